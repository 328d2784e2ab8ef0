// Blob, File and FormData, and the two encodings of forms.

import { bytesOf, decode, encode, latin1 } from "./encoding.js";

export function join(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export class Blob {
  #bytes;
  #type;
  constructor(parts = [], { type = "" } = {}) {
    if (typeof parts !== "object" || typeof parts?.[Symbol.iterator] !== "function") {
      throw new TypeError("the parts of a Blob are a list");
    }
    this.#bytes = join(
      Array.from(parts, (part) => {
        if (part instanceof Blob) return part.#bytes;
        if (part instanceof ArrayBuffer || ArrayBuffer.isView(part)) return bytesOf(part).slice();
        return encode(String(part));
      }).concat([new Uint8Array(0)]),
    );
    this.#type = /^[ -~]*$/.test(type) ? String(type).toLowerCase() : "";
  }
  get size() {
    return this.#bytes.length;
  }
  get type() {
    return this.#type;
  }
  async arrayBuffer() {
    return this.#bytes.slice().buffer;
  }
  async bytes() {
    return this.#bytes.slice();
  }
  async text() {
    return decode(this.#bytes);
  }
  slice(from, to, type = "") {
    return new Blob([this.#bytes.slice(from, to)], { type });
  }
  stream() {
    return new Response(this.#bytes).body;
  }
  static _bytes(blob) {
    return blob.#bytes;
  }
  get [Symbol.toStringTag]() {
    return "Blob";
  }
}

export const blobBytes = Blob._bytes;
delete Blob._bytes;

export class File extends Blob {
  constructor(parts, name, { type = "", lastModified = Date.now() } = {}) {
    super(parts, { type });
    Object.defineProperties(this, {
      name: { value: String(name), enumerable: true },
      lastModified: { value: Number(lastModified), enumerable: true },
    });
  }
  get [Symbol.toStringTag]() {
    return "File";
  }
}

export class FormData {
  #all = [];
  append(name, value, filename) {
    this.#all.push([String(name), entry(value, filename)]);
  }
  set(name, value, filename) {
    const key = String(name);
    const at = this.#all.findIndex(([one]) => one === key);
    if (at < 0) this.#all.push([key, entry(value, filename)]);
    else {
      this.#all = this.#all.filter(([one], index) => one !== key || index === at);
      this.#all[at] = [key, entry(value, filename)];
    }
  }
  get(name) {
    return this.#all.find(([one]) => one === String(name))?.[1] ?? null;
  }
  getAll(name) {
    return this.#all.filter(([one]) => one === String(name)).map(([, value]) => value);
  }
  has(name) {
    return this.#all.some(([one]) => one === String(name));
  }
  delete(name) {
    this.#all = this.#all.filter(([one]) => one !== String(name));
  }
  forEach(callback, self) {
    for (const [name, value] of this) callback.call(self, value, name, this);
  }
  *entries() {
    yield* this.#all;
  }
  *keys() {
    for (const [name] of this) yield name;
  }
  *values() {
    for (const [, value] of this) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  get [Symbol.toStringTag]() {
    return "FormData";
  }
}

function entry(value, filename) {
  if (!(value instanceof Blob)) return String(value);
  if (value instanceof File && filename === undefined) return value;
  return new File([value], filename ?? "blob", { type: value.type });
}

const escaped = (text) => text.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");

// multipart/form-data (RFC 7578), as [bytes, type].
export function formBytes(form) {
  const boundary = `----isopod${crypto.randomUUID().replaceAll("-", "")}`;
  const parts = [];
  for (const [name, value] of form) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(name)}"`;
    if (typeof value === "string") parts.push(encode(`${head}\r\n\r\n${value}\r\n`));
    else {
      head += `; filename="${escaped(value.name)}"\r\nContent-Type: `;
      head += `${value.type || "application/octet-stream"}\r\n\r\n`;
      parts.push(encode(head), blobBytes(value), encode("\r\n"));
    }
  }
  parts.push(encode(`--${boundary}--\r\n`));
  return [join(parts), `multipart/form-data; boundary=${boundary}`];
}

export function parseForm(bytes, type) {
  const form = new FormData();
  if (/^application\/x-www-form-urlencoded\b/i.test(type)) {
    for (const [name, value] of new URLSearchParams(decode(bytes))) form.append(name, value);
    return form;
  }
  const boundary = /;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(type);
  if (!/^multipart\/form-data\b/i.test(type) || !boundary) {
    throw new TypeError(`a body of type ${JSON.stringify(type)} is no form`);
  }
  // Bytes as characters: indexOf is the engine's own, and fast.
  const text = latin1(bytes);
  const mark = `--${boundary[1] ?? boundary[2]}`;
  let at = text.startsWith(mark) ? 0 : text.indexOf(`\r\n${mark}`) + 2;
  if (at < 2 && !text.startsWith(mark)) throw new TypeError("the form has no boundary in it");
  for (;;) {
    at += mark.length;
    if (text.startsWith("--", at)) return form;
    const head = at + 2;
    const body = text.indexOf("\r\n\r\n", at) + 4;
    const end = text.indexOf(`\r\n${mark}`, body - 2);
    if (body < 4 || end < 0) throw new TypeError("a part of the form is not whole");
    const lines = decode(bytes.subarray(head, body - 4)).split("\r\n");
    const said = lines.find((line) => /^content-disposition:/i.test(line)) ?? "";
    const name = /[;\s]name="([^"]*)"/i.exec(said);
    if (!name) throw new TypeError("a part of the form has no name");
    const file = /[;\s]filename="([^"]*)"/i.exec(said);
    const kind = lines.find((line) => /^content-type:/i.test(line));
    const data = bytes.subarray(body, Math.max(body, end));
    const plain = (text) => text.replace(/%0A/g, "\n").replace(/%0D/g, "\r").replace(/%22/g, '"');
    if (!file) form.append(plain(name[1]), decode(data));
    else {
      const type = kind ? kind.slice(13).trim() : "application/octet-stream";
      form.append(plain(name[1]), new File([data], plain(file[1]), { type }));
    }
    at = end + 2;
  }
}

Object.assign(globalThis, { Blob, File, FormData });
