// crypto.subtle of Web Cryptography, for what the host computes (see `subtle.py`): SHA, HMAC, AES-GCM,
// AES-CBC, ECDSA, Ed25519. A key's bytes are the guest's own.
//
// The host is asked in pieces, and each is answered at once.

import { bytesOf, decode, encode, join } from "./encoding.js";
import { crypto, drawBytes, markDrawn } from "./random.js";
import { ask, LARGEST } from "./wire.js";

const BEGINS = 1;
const LAST = 2;
const NOTHING = new Uint8Array(0);
const HASHES = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 }; // bytes of a block
const CURVES = { "P-256": 32, "P-384": 48, "P-521": 66 }; // bytes of a number
const USES = {
  HMAC: ["sign", "verify"],
  "AES-GCM": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
  "AES-CBC": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
  ECDSA: ["sign", "verify"],
  Ed25519: ["sign", "verify"],
};
const AES = ["AES-GCM", "AES-CBC"];
const NAMES = Object.keys({ ...USES, ...HASHES });

const refuse = (name, text) => {
  throw new DOMException(text, name);
};
const unsupported = (what) => refuse("NotSupportedError", `${what} is not supported`);

function source(data) {
  if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) return bytesOf(data).slice();
  throw new TypeError("it takes an ArrayBuffer or a view of one");
}

// { name, ... } of what an app says of an algorithm; names have any case.
function normalize(given) {
  const all = typeof given === "string" ? { name: given } : given;
  const said = String(all?.name ?? "");
  const name = NAMES.find((one) => one.toLowerCase() === said.toLowerCase());
  return { ...all, name: name ?? unsupported(JSON.stringify(said)) };
}

function hashOf(algorithm) {
  if (algorithm.hash === undefined) throw new TypeError("the algorithm has no hash");
  const { name } = normalize(algorithm.hash);
  return name in HASHES ? name : unsupported(`the hash ${name}`);
}

// What the host makes of `data`; `fields`: texts and bytes, the operation first.
function run(fields, data = NOTHING) {
  const parts = fields.map((one) => (typeof one === "string" ? encode(one) : one));
  const head = new Uint8Array(2 + parts.reduce((size, part) => size + 4 + part.length, 0));
  if (head.length + 1 > LARGEST) {
    refuse(fields[0].startsWith("key-") ? "DataError" : "OperationError", "its parameters are too long");
  }
  const view = new DataView(head.buffer);
  head[1] = parts.length;
  let at = 2;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    head.set(part, at + 4);
    at += 4 + part.length;
  }
  const out = [];
  let from = 0;
  for (let begun = head; ; begun = NOTHING.slice()) {
    const first = begun === head;
    const size = Math.min(data.length - from, LARGEST - Math.max(1, begun.length));
    const last = from + size === data.length;
    const frame = new Uint8Array(Math.max(1, begun.length) + size);
    frame.set(begun);
    frame[0] = (first ? BEGINS : 0) | (last ? LAST : 0);
    frame.set(data.subarray(from, from + size), frame.length - size);
    const answer = ask("y", frame);
    if (answer[0] !== 0) {
      const [name, text] = decode(answer.subarray(1)).split("\n");
      refuse(name, text);
    }
    out.push(answer.subarray(1));
    from += size;
    if (last) return join(out);
  }
}

const KEY = Symbol("CryptoKey");
const material = new WeakMap(); // bytes, in the form that the host keeps

class CryptoKey {
  constructor(key, type, algorithm, extractable, usages, bytes) {
    if (key !== KEY) throw new TypeError("Illegal constructor");
    const fields = { type, extractable, algorithm: Object.freeze(algorithm), usages: Object.freeze(usages) };
    for (const [name, value] of Object.entries(fields)) {
      Object.defineProperty(this, name, { value, enumerable: true });
    }
    material.set(this, bytes);
  }
  get [Symbol.toStringTag]() {
    return "CryptoKey";
  }
}

function made(type, algorithm, extractable, usages, bytes) {
  if (usages.length === 0 && type !== "public") {
    refuse("SyntaxError", `a ${type} key needs a usage`);
  }
  return new CryptoKey(KEY, type, algorithm, Boolean(extractable), usages, bytes);
}

function usagesOf(given, name, type) {
  const fit = { public: ["verify"], private: ["sign"] }[type] ?? USES[name];
  const usages = [...new Set(Array.from(given, String))];
  const bad = usages.find((one) => !fit.includes(one));
  if (bad !== undefined) refuse("SyntaxError", `a ${type} key of ${name} is not for ${JSON.stringify(bad)}`);
  return usages;
}

function keyFor(key, algorithm, usage) {
  if (!(key instanceof CryptoKey)) throw new TypeError("it takes a CryptoKey");
  if (key.algorithm.name !== algorithm.name) {
    refuse("InvalidAccessError", `the key is for ${key.algorithm.name}, not for ${algorithm.name}`);
  }
  if (!key.usages.includes(usage)) refuse("InvalidAccessError", `the key is not for ${JSON.stringify(usage)}`);
  return material.get(key);
}

const kindOf = (algorithm) => (algorithm.name === "ECDSA" ? algorithm.namedCurve : algorithm.name);

function asymmetric(algorithm) {
  if (algorithm.name === "Ed25519") return { name: "Ed25519" };
  if (!(algorithm.namedCurve in CURVES)) unsupported(`the curve ${algorithm.namedCurve}`);
  return { name: "ECDSA", namedCurve: algorithm.namedCurve };
}

const toBase64 = (bytes) => {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
};

function fromBase64(jwk, field) {
  const text = jwk[field];
  if (typeof text !== "string" || !/^[\w-]*$/.test(text)) refuse("DataError", `the JWK has no ${field}`);
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
}

function checkJwk(jwk, kty, extractable, usages) {
  if (typeof jwk !== "object" || jwk === null) throw new TypeError("a JWK is an object");
  if (jwk.kty !== kty) refuse("DataError", `the JWK's kty is not ${JSON.stringify(kty)}`);
  if (jwk.ext === false && extractable) refuse("DataError", "the JWK is not extractable");
  if (Array.isArray(jwk.key_ops) && usages.some((one) => !jwk.key_ops.includes(one))) {
    refuse("DataError", "the JWK is not for these usages");
  }
}

function secretLength(algorithm) {
  if (AES.includes(algorithm.name)) {
    if (![128, 192, 256].includes(algorithm.length)) refuse("OperationError", "an AES key has 128, 192 or 256 bits");
    return algorithm.length / 8;
  }
  const bits = algorithm.length ?? HASHES[hashOf(algorithm)] * 8;
  if (!(bits > 0) || bits % 8 !== 0) refuse("OperationError", "a key has whole bytes");
  return bits / 8;
}

function importSecret(format, data, algorithm, extractable, usages) {
  const { name } = algorithm;
  const uses = usagesOf(usages, name, "secret");
  const hash = name === "HMAC" ? hashOf(algorithm) : null;
  let bytes;
  if (format === "raw") bytes = source(data);
  else if (format === "jwk") {
    checkJwk(data, "oct", extractable, uses);
    bytes = fromBase64(data, "k");
    const alg = hash === null ? `A${bytes.length * 8}${name.slice(4)}` : hash.replace(/SHA-/, "HS");
    if (data.alg !== undefined && data.alg !== alg) refuse("DataError", `the JWK's alg is not ${alg}`);
  } else unsupported(`the format ${JSON.stringify(format)}`);
  const sound = hash === null ? [16, 24, 32].includes(bytes.length) : bytes.length > 0;
  if (!sound) refuse("DataError", `a key of ${name} has no ${bytes.length * 8} bits`);
  if (hash !== null && algorithm.length !== undefined && algorithm.length !== bytes.length * 8) {
    refuse("DataError", "the key has another length");
  }
  const length = bytes.length * 8;
  return made("secret", hash === null ? { name, length } : { name, hash: { name: hash }, length }, extractable, uses, bytes);
}

function importPair(format, data, given, extractable, usages) {
  const algorithm = asymmetric(given);
  const kind = kindOf(algorithm);
  let found;
  if (format === "jwk") {
    checkJwk(data, algorithm.name === "ECDSA" ? "EC" : "OKP", extractable, usages);
    if (data.crv !== kind) refuse("DataError", `the JWK's crv is not ${JSON.stringify(kind)}`);
    const parts = (algorithm.name === "ECDSA" ? ["x", "y"] : ["x"]).map((one) => fromBase64(data, one));
    const secret = data.d === undefined ? NOTHING : fromBase64(data, "d");
    if (parts.some((one) => one.length !== (CURVES[kind] ?? 32))) refuse("DataError", "a number has another length");
    found = run(["key-join", kind, join(parts), secret]);
  } else {
    if (!["raw", "spki", "pkcs8"].includes(format)) unsupported(`the format ${JSON.stringify(format)}`);
    found = run(["key-import", kind, format, source(data)]);
  }
  const type = found[0] === 1 ? "private" : "public";
  return made(type, algorithm, type === "public" || extractable, usagesOf(usages, algorithm.name, type), found.slice(1));
}

function exportKey(format, key) {
  const { type, algorithm, usages } = key;
  const bytes = material.get(key);
  const ext = key.extractable;
  if (type === "secret") {
    if (format === "raw") return bytes.slice().buffer;
    if (format !== "jwk") unsupported(`the format ${JSON.stringify(format)}`);
    const hash = algorithm.hash?.name;
    const alg = hash === undefined ? `A${algorithm.length}${algorithm.name.slice(4)}` : hash.replace(/SHA-/, "HS");
    return { kty: "oct", k: toBase64(bytes), alg, key_ops: [...usages], ext };
  }
  const kind = kindOf(algorithm);
  if (format === "jwk") {
    const numbers = run(["key-export", kind, type, "jwk", bytes]);
    const size = CURVES[kind] ?? 32;
    const names = [...(kind in CURVES ? ["x", "y"] : ["x"]), ...(type === "private" ? ["d"] : [])];
    const parts = names.map((name, at) => [name, toBase64(numbers.subarray(at * size, (at + 1) * size))]);
    const more = kind in CURVES ? { kty: "EC" } : { kty: "OKP", alg: kind };
    return { ...more, crv: kind, ...Object.fromEntries(parts), key_ops: [...usages], ext };
  }
  if (!(type === "private" ? ["pkcs8"] : ["raw", "spki"]).includes(format)) {
    refuse("InvalidAccessError", `a ${type} key has no format ${JSON.stringify(format)}`);
  }
  return run(["key-export", kind, type, format, bytes]).slice().buffer;
}

function generate(given, extractable, usages) {
  const { name } = given;
  if (name === "HMAC" || AES.includes(name)) {
    const size = secretLength(given);
    const uses = usagesOf(usages, name, "secret");
    const hash = name === "HMAC" ? { hash: { name: hashOf(given) } } : {};
    return made("secret", { name, ...hash, length: size * 8 }, extractable, uses, drawBytes(size));
  }
  const algorithm = asymmetric(given);
  const uses = usagesOf(usages, name);
  markDrawn();
  const found = run(["key-generate", kindOf(algorithm)]);
  const size = new DataView(found.buffer, found.byteOffset).getUint32(0, true);
  const only = (one) => uses.filter((use) => use === one);
  return {
    privateKey: made("private", { ...algorithm }, extractable, only("sign"), found.slice(4, 4 + size)),
    publicKey: made("public", { ...algorithm }, true, only("verify"), found.slice(4 + size)),
  };
}

// The fields of an operation; a signature or a tag is the last.
function signing(algorithm, key, usage, ...signature) {
  const bytes = keyFor(key, algorithm, usage);
  switch (algorithm.name) {
    case "HMAC":
      return [`hmac-${usage}`, key.algorithm.hash.name, bytes, ...signature];
    case "ECDSA":
      return [`ecdsa-${usage}`, key.algorithm.namedCurve, hashOf(algorithm), bytes, ...signature];
    case "Ed25519":
      return [`ed25519-${usage}`, bytes, ...signature];
    default:
      return unsupported(`${usage} with ${algorithm.name}`);
  }
}

function cipher(algorithm, key, usage, data) {
  const bytes = keyFor(key, algorithm, usage);
  if (!AES.includes(algorithm.name)) unsupported(`${usage} with ${algorithm.name}`);
  const iv = source(algorithm.iv);
  if (algorithm.name === "AES-CBC") {
    if (iv.length !== 16) refuse("OperationError", "the iv of AES-CBC has 16 bytes");
    return run([`cbc-${usage}`, bytes, iv], data);
  }
  const also = algorithm.additionalData === undefined ? NOTHING : source(algorithm.additionalData);
  const size = (algorithm.tagLength ?? 128) / 8;
  if (usage === "encrypt") return run(["gcm-encrypt", bytes, iv, also, Uint8Array.of(size)], data);
  if (data.length < size) refuse("OperationError", "the data is shorter than its tag");
  const end = data.length - size;
  return run(["gcm-decrypt", bytes, iv, also, data.subarray(end)], data.subarray(0, end));
}

class SubtleCrypto {
  async digest(algorithm, data) {
    const { name } = normalize(algorithm);
    if (!(name in HASHES)) unsupported(`a digest with ${name}`);
    return run(["digest", name], source(data)).slice().buffer;
  }
  async sign(algorithm, key, data) {
    return run(signing(normalize(algorithm), key, "sign"), source(data)).slice().buffer;
  }
  async verify(algorithm, key, signature, data) {
    const fields = signing(normalize(algorithm), key, "verify", source(signature));
    return run(fields, source(data))[0] === 1;
  }
  async encrypt(algorithm, key, data) {
    return cipher(normalize(algorithm), key, "encrypt", source(data)).slice().buffer;
  }
  async decrypt(algorithm, key, data) {
    return cipher(normalize(algorithm), key, "decrypt", source(data)).slice().buffer;
  }
  async generateKey(algorithm, extractable, usages) {
    const given = normalize(algorithm);
    if (!(given.name in USES)) unsupported(`a key of ${given.name}`);
    return generate(given, extractable, usages);
  }
  async importKey(format, data, algorithm, extractable, usages) {
    const given = normalize(algorithm);
    const { name } = given;
    if (!(name in USES)) unsupported(`a key of ${name}`);
    const read = name === "HMAC" || AES.includes(name) ? importSecret : importPair;
    return read(format, data, given, extractable, Array.from(usages, String));
  }
  async exportKey(format, key) {
    if (!(key instanceof CryptoKey)) throw new TypeError("it takes a CryptoKey");
    if (!key.extractable) refuse("InvalidAccessError", "the key is not extractable");
    return exportKey(format, key);
  }
  get [Symbol.toStringTag]() {
    return "SubtleCrypto";
  }
}

for (const name of ["deriveBits", "deriveKey", "wrapKey", "unwrapKey"]) {
  SubtleCrypto.prototype[name] = async () => unsupported(`crypto.subtle.${name}`);
}

Object.defineProperty(crypto, "subtle", { value: new SubtleCrypto(), enumerable: true });
Object.assign(globalThis, { CryptoKey, SubtleCrypto });
