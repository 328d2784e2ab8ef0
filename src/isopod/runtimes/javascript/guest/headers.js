// Headers of the Fetch standard. Names are kept in lower case; the values of one name are joined,
// but for Set-Cookie.

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const BAD_VALUE = /[\0\r\n]|[^\0-\xff]/;

function nameOf(name) {
  const text = String(name);
  if (!TOKEN.test(text)) throw new TypeError(`${JSON.stringify(text)} is no header name`);
  return text.toLowerCase();
}

function valueOf(value) {
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (BAD_VALUE.test(text)) throw new TypeError(`${JSON.stringify(text)} is no header value`);
  return text;
}

export class Headers {
  #all = new Map();
  constructor(init) {
    if (init === undefined) return;
    if (init === null) throw new TypeError("headers are an object or pairs");
    if (init instanceof Headers) {
      for (const [name, values] of init.#all) this.#all.set(name, values.slice());
    } else if (typeof init[Symbol.iterator] === "function") {
      for (const pair of init) {
        const [name, value, ...more] = pair;
        if (value === undefined || more.length) throw new TypeError("a header is a name and a value");
        this.append(name, value);
      }
    } else if (typeof init === "object") {
      for (const name of Object.keys(init)) this.append(name, init[name]);
    } else throw new TypeError("headers are an object or pairs");
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
  append(name, value) {
    const key = nameOf(name);
    const values = this.#all.get(key);
    if (values) values.push(valueOf(value));
    else this.#all.set(key, [valueOf(value)]);
  }
  set(name, value) {
    this.#all.set(nameOf(name), [valueOf(value)]);
  }
  get(name) {
    const values = this.#all.get(nameOf(name));
    return values === undefined ? null : values.length === 1 ? values[0] : values.join(", ");
  }
  has(name) {
    return this.#all.has(nameOf(name));
  }
  delete(name) {
    this.#all.delete(nameOf(name));
  }
  getSetCookie() {
    return (this.#all.get("set-cookie") ?? []).slice();
  }
  forEach(callback, self) {
    for (const [name, value] of this) callback.call(self, value, name, this);
  }
  *entries() {
    for (const name of [...this.#all.keys()].sort()) {
      const values = this.#all.get(name);
      if (values === undefined) continue;
      if (name === "set-cookie") for (const value of values) yield [name, value];
      else yield [name, values.join(", ")];
    }
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
    return "Headers";
  }
}

export const received = Headers._received;
export const lines = Headers._lines;
delete Headers._received;
delete Headers._lines;
globalThis.Headers = Headers;
