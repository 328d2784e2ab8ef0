// Key-value bindings, with the calls of Workers' KV: values in the app's volumes (see `kv.py`). The
// host answers at once.

import { bytesOf, decode, encode, join } from "./encoding.js";
import { ask, LARGEST } from "./wire.js";

const MOST_LISTED = 1000;
const PAGE = 100; // that the host lists at once
const SHORTEST_S = 60; // Workers' least time to live
const BEGINS = 1;
const LAST = 2;

const number = (size, value) => {
  const view = new DataView(new ArrayBuffer(size));
  if (size === 1) view.setUint8(0, value);
  else if (size === 2) view.setUint16(0, value, true);
  else view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
};
const counted = (bytes) => join([number(2, bytes.length), bytes]);
const now = () => Math.floor(Date.now() / 1000);

function keyBytes(key) {
  if (typeof key !== "string") throw new TypeError("a key is a string");
  const bytes = encode(key);
  if (bytes.length > 512) throw new TypeError("the key is too long");
  return bytes;
}

function parsed(header) {
  if (header.length === 0) return { expires: null, metadata: null };
  const { expires = null, metadata = null } = JSON.parse(decode(header));
  return { expires, metadata };
}

async function contentOf(value) {
  if (typeof value === "string") return encode(value);
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return bytesOf(value);
  if (value instanceof ReadableStream) return new Response(value).bytes();
  throw new TypeError("a value is a string, an ArrayBuffer, a view of one or a ReadableStream");
}

function converted(bytes, type) {
  switch (type) {
    case "text":
      return decode(bytes);
    case "json":
      return JSON.parse(decode(bytes));
    case "arrayBuffer":
      return bytes.slice().buffer;
    case "stream":
      return new Response(bytes).body;
    default:
      throw new TypeError(`${JSON.stringify(type)} is no type of a value`);
  }
}

export class KVNamespace {
  #index;
  constructor(index) {
    this.#index = index;
  }
  #call(operation, ...parts) {
    const answer = ask("K", join([Uint8Array.of(this.#index, operation.charCodeAt(0)), ...parts]));
    if (answer[0] !== 0) throw new Error(decode(answer.subarray(1)));
    return answer.subarray(1);
  }
  #read(key) {
    const first = this.#call("g", number(4, 0), key);
    if (first.length === 0) return null;
    const view = new DataView(first.buffer, first.byteOffset);
    const [size, head] = [view.getUint32(0, true), view.getUint32(4, true)];
    const { expires, metadata } = parsed(first.subarray(8, 8 + head));
    if (expires !== null && expires <= now()) {
      this.#call("d", key);
      return null;
    }
    const parts = [first.subarray(8 + head)];
    for (let at = parts[0].length; at < size; ) {
      const part = this.#call("g", number(4, at), key);
      if (part.length === 0) break;
      parts.push(part);
      at += part.length;
    }
    return { bytes: join(parts), metadata };
  }
  async get(key, how = "text") {
    return (await this.getWithMetadata(key, how)).value;
  }
  async getWithMetadata(key, how = "text") {
    const found = this.#read(keyBytes(key));
    if (found === null) return { value: null, metadata: null, cacheStatus: null };
    const type = typeof how === "string" ? how : (how?.type ?? "text");
    return { value: converted(found.bytes, type), metadata: found.metadata, cacheStatus: null };
  }
  async put(key, value, { expiration, expirationTtl, metadata } = {}) {
    const name = keyBytes(key);
    const bytes = await contentOf(value);
    const seconds = expirationTtl === undefined ? expiration : now() + Number(expirationTtl);
    if (seconds !== undefined && !(Number(seconds) >= now() + SHORTEST_S)) {
      throw new RangeError(`a value lives for ${SHORTEST_S} s at least`);
    }
    const said = {};
    if (seconds !== undefined) said.expires = Math.floor(Number(seconds));
    if (metadata !== undefined && metadata !== null) said.metadata = metadata;
    const header = counted(Object.keys(said).length ? encode(JSON.stringify(said)) : new Uint8Array(0));
    const room = LARGEST - header.length - name.length - 8;
    if (room <= 0) throw new RangeError("the metadata is too long");
    for (let at = 0; ; at += room) {
      const last = at + room >= bytes.length;
      const flags = (at === 0 ? BEGINS : 0) | (last ? LAST : 0);
      this.#call("p", number(1, flags), header, counted(name), bytes.subarray(at, at + room));
      if (last) return;
    }
  }
  async delete(key) {
    this.#call("d", keyBytes(key));
  }
  async list({ prefix = "", limit = MOST_LISTED, cursor = "" } = {}) {
    const begin = counted(encode(String(prefix ?? "")));
    const most = Math.min(Math.max(Number(limit) || MOST_LISTED, 1), MOST_LISTED);
    const keys = [];
    let after = cursor ? encode(decodeURIComponent(cursor)) : new Uint8Array(0);
    for (;;) {
      const found = this.#call("l", number(1, PAGE), begin, after);
      if (found.length === 0) return { keys, list_complete: true, cacheStatus: null };
      const view = new DataView(found.buffer, found.byteOffset);
      for (let at = 0; at < found.length; ) {
        const take = () => {
          const size = view.getUint16(at, true);
          at += 2 + size;
          return found.subarray(at - size, at);
        };
        const key = take();
        const { expires, metadata } = parsed(take());
        if (keys.length === most) {
          const next = encodeURIComponent(keys.at(-1).name);
          return { keys, list_complete: false, cursor: next, cacheStatus: null };
        }
        after = key;
        if (expires !== null && expires <= now()) continue;
        keys.push({
          name: decode(key),
          ...(expires === null ? {} : { expiration: expires }),
          ...(metadata === null ? {} : { metadata }),
        });
      }
    }
  }
  get [Symbol.toStringTag]() {
    return "KvNamespace";
  }
}
