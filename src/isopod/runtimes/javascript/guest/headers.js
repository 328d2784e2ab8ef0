// Headers of the Fetch standard. Names are kept in lower case; the values of one name are joined,
// but for Set-Cookie.

import { iterable, required } from "./idl.js";

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const BAD_VALUE = /[\0\r\n]|[^\0-\xff]/;

function nameOf(name) {
  const text = `${name}`;
  if (!TOKEN.test(text)) throw new TypeError(`${JSON.stringify(text)} is no header name`);
  return text.toLowerCase();
}

function valueOf(value) {
  const text = `${value}`.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (BAD_VALUE.test(text)) throw new TypeError(`${JSON.stringify(text)} is no header value`);
  return text;
}

export class Headers {
  #all = new Map();
  #sorted = null; // the pairs in their order, until something changes
  #fixed = false;
  constructor(init) {
    if (init === undefined) return;
    if (init === null || (typeof init !== "object" && typeof init !== "function")) {
      throw new TypeError("headers are an object or pairs");
    }
    const iterator = init[Symbol.iterator];
    // Not `instanceof`: a Proxy of Headers is one, and has no field of ours.
    if (#all in init && iterator === Headers.prototype[Symbol.iterator]) {
      for (const [name, values] of init.#all) this.#all.set(name, values.slice());
    } else if (iterator !== undefined && iterator !== null) {
      for (const pair of init) {
        const parts = typeof pair === "object" && pair !== null ? [...pair] : [];
        if (parts.length !== 2) throw new TypeError("a header is a name and a value");
        this.append(parts[0], parts[1]);
      }
    } else {
      for (const name of Reflect.ownKeys(init)) {
        if (!Object.getOwnPropertyDescriptor(init, name)?.enumerable) continue;
        this.append(name, init[name]);
      }
    }
  }
  // As the host gives them: checked, in lower case.
  static _received(lines) {
    const made = new Headers();
    for (const line of lines) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon);
      const values = made.#all.get(name);
      if (values) values.push(line.slice(colon + 1));
      else made.#all.set(name, [line.slice(colon + 1)]);
    }
    return made;
  }
  // name:value, in the order they were set.
  static _lines(headers) {
    let text = "";
    for (const [name, values] of headers.#all) {
      if (name === "set-cookie") for (const value of values) text += `\n${name}:${value}`;
      else text += `\n${name}:${values.length === 1 ? values[0] : values.join(", ")}`;
    }
    return text;
  }
  static _pairs(headers) {
    if (headers.#sorted !== null) return headers.#sorted;
    const pairs = [];
    for (const name of [...headers.#all.keys()].sort()) {
      const values = headers.#all.get(name);
      if (name === "set-cookie") for (const value of values) pairs.push([name, value]);
      else pairs.push([name, values.length === 1 ? values[0] : values.join(", ")]);
    }
    headers.#sorted = pairs;
    return pairs;
  }
  static _fixed(headers) {
    headers.#fixed = true;
    return headers;
  }
  #changes() {
    if (this.#fixed) throw new TypeError("these headers stay as they are");
    this.#sorted = null;
  }
  append(name, value) {
    required(arguments, 2);
    const key = nameOf(name);
    const text = valueOf(value);
    this.#changes();
    const values = this.#all.get(key);
    if (values) values.push(text);
    else this.#all.set(key, [text]);
  }
  set(name, value) {
    required(arguments, 2);
    const key = nameOf(name);
    const text = valueOf(value);
    this.#changes();
    this.#all.set(key, [text]);
  }
  get(name) {
    required(arguments, 1);
    const values = this.#all.get(nameOf(name));
    return values === undefined ? null : values.length === 1 ? values[0] : values.join(", ");
  }
  has(name) {
    required(arguments, 1);
    return this.#all.has(nameOf(name));
  }
  delete(name) {
    required(arguments, 1);
    const key = nameOf(name);
    this.#changes();
    this.#all.delete(key);
  }
  getSetCookie() {
    return (this.#all.get("set-cookie") ?? []).slice();
  }
  get [Symbol.toStringTag]() {
    return "Headers";
  }
}

export const received = Headers._received;
export const lines = Headers._lines;
export const fixed = Headers._fixed;
iterable(Headers, Headers._pairs);
delete Headers._received;
delete Headers._lines;
delete Headers._pairs;
delete Headers._fixed;
globalThis.Headers = Headers;
