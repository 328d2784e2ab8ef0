// Blob, File and FormData, and the two encodings of forms.

import { bytesOf, decode, encode, join, latin1, textOf } from "./encoding.js";
import { dictionary, iterable, required, text } from "./idl.js";

const kindOf = (type) => (/^[ -~]*$/.test(type) ? type.toLowerCase() : "");

export class Blob {
  #bytes;
  #type;
  constructor(parts = [], options) {
    const list = (typeof parts === "object" && parts !== null) || typeof parts === "function";
    if (!list || typeof parts[Symbol.iterator] !== "function") {
      throw new TypeError("the parts of a Blob are a list");
    }
    const { endings = "transparent", type = "" } = dictionary(options, "what is said of a Blob");
    const native = `${endings}` === "native";
    if (!native && `${endings}` !== "transparent") {
      throw new TypeError(`endings cannot be ${JSON.stringify(`${endings}`)}`);
    }
    this.#bytes = join(
      Array.from(parts, (part) => {
        if (typeof part === "object" && part !== null && #bytes in part) return part.#bytes;
        if (part instanceof ArrayBuffer || ArrayBuffer.isView(part)) return bytesOf(part).slice();
        return encode(native ? `${part}`.replace(/\r\n?/g, "\n") : `${part}`);
      }).concat([new Uint8Array(0)]),
    );
    this.#type = kindOf(`${type}`);
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
    return textOf(this.#bytes);
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
  #name;
  #lastModified;
  constructor(parts, name, options) {
    required(arguments, 2);
    if (parts === undefined) throw new TypeError("the parts of a File are a list");
    super(parts, options);
    this.#name = text(name);
    const { lastModified } = dictionary(options, "what is said of a File");
    this.#lastModified = lastModified === undefined ? Date.now() : Math.trunc(lastModified) || 0;
  }
  get name() {
    return this.#name;
  }
  get lastModified() {
    return this.#lastModified;
  }
  get [Symbol.toStringTag]() {
    return "File";
  }
}

export class FormData {
  #all = [];
  constructor(form) {
    if (form !== undefined) throw new TypeError("there are no forms to read here");
  }
  append(name, value, ...filename) {
    required(arguments, 2);
    this.#all.push([text(name), entry(value, filename)]);
  }
  set(name, value, ...filename) {
    required(arguments, 2);
    const key = text(name);
    const at = this.#all.findIndex(([one]) => one === key);
    if (at < 0) this.#all.push([key, entry(value, filename)]);
    else {
      this.#all = this.#all.filter(([one], index) => one !== key || index === at);
      this.#all[at] = [key, entry(value, filename)];
    }
  }
  get(name) {
    required(arguments, 1);
    const key = text(name);
    return this.#all.find(([one]) => one === key)?.[1] ?? null;
  }
  getAll(name) {
    required(arguments, 1);
    const key = text(name);
    return this.#all.filter(([one]) => one === key).map(([, value]) => value);
  }
  has(name) {
    required(arguments, 1);
    const key = text(name);
    return this.#all.some(([one]) => one === key);
  }
  delete(name) {
    required(arguments, 1);
    const key = text(name);
    this.#all = this.#all.filter(([one]) => one !== key);
  }
  static _pairs(form) {
    return form.#all;
  }
  get [Symbol.toStringTag]() {
    return "FormData";
  }
}

iterable(FormData, FormData._pairs);
delete FormData._pairs;

function entry(value, [filename]) {
  if (!(value instanceof Blob)) {
    if (filename !== undefined) throw new TypeError("only a Blob has a file name");
    return text(value);
  }
  if (value instanceof File && filename === undefined) return value;
  const { type, lastModified } = value;
  return new File([value], filename ?? "blob", { type, lastModified });
}

const crlf = (text) => text.replace(/\r\n?|\n/g, "\r\n");
const escaped = (text) => text.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");

// multipart/form-data (RFC 7578), as [bytes, type].
export function formBytes(form) {
  const boundary = `----isopod${crypto.randomUUID().replaceAll("-", "")}`;
  const parts = [];
  for (const [name, value] of form) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(crlf(name))}"`;
    if (typeof value === "string") parts.push(encode(`${head}\r\n\r\n${crlf(value)}\r\n`));
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
  const whole = latin1(bytes);
  const mark = `--${boundary[1] ?? boundary[2]}`;
  let at = whole.startsWith(mark) ? 0 : whole.indexOf(`\r\n${mark}`) + 2;
  if (at < 2 && !whole.startsWith(mark)) throw new TypeError("the form has no boundary in it");
  for (;;) {
    at += mark.length;
    if (whole.startsWith("--", at)) return form;
    const head = at + 2;
    const body = whole.indexOf("\r\n\r\n", at) + 4;
    const end = whole.indexOf(`\r\n${mark}`, body - 2);
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
