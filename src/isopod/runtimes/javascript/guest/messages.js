// Request and Response of the Fetch standard. A body is a text, bytes or a stream; a stream is made
// of what is none only when somebody asks for `body`.

import { bytesOf, encode, join, textOf } from "./encoding.js";
import { Blob, blobBytes, formBytes, parseForm } from "./blob.js";
import { Headers, fixed } from "./headers.js";
import { dictionary, text } from "./idl.js";
import { isWebSocket } from "./websocket.js";

const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;
const NULL_BODY = [101, 103, 204, 205, 304];

// `source`: null, a string, a Uint8Array, or a ReadableStream; or { pull() }, an incoming body: each
// call gives a promise of the next bytes, or of null.
class Content {
  constructor(source) {
    this.source = source;
    this.stream = source instanceof ReadableStream ? source : null;
    this.used = false;
  }
  get spent() {
    return this.used || (this.stream !== null && (this.stream.locked || disturbed(this.stream)));
  }
}

// Read from, or cancelled, be it by nobody any more.
const disturbed = (stream) => stream._disturbed === true;

function extract(init) {
  if (init === null || init === undefined) return [null, null];
  if (typeof init === "string") return [init.toWellFormed(), "text/plain;charset=UTF-8"];
  if (init instanceof ReadableStream) {
    if (init.locked || disturbed(init)) throw new TypeError("the stream is read by another");
    return [init, null];
  }
  if (init instanceof Blob) return [blobBytes(init), init.type || null];
  if (init instanceof ArrayBuffer || ArrayBuffer.isView(init)) return [bytesOf(init).slice(), null];
  if (init instanceof FormData) return formBytes(init);
  if (init instanceof URLSearchParams) {
    return [String(init), "application/x-www-form-urlencoded;charset=UTF-8"];
  }
  if (typeof init === "object" && typeof init[Symbol.asyncIterator] === "function") {
    return [ReadableStream.from(init), null];
  }
  return [text(init), "text/plain;charset=UTF-8"];
}

function streamOf(source) {
  if (typeof source === "string" || source instanceof Uint8Array) {
    return new ReadableStream({
      type: "bytes",
      start(controller) {
        const bytes = typeof source === "string" ? encode(source) : source.slice();
        if (bytes.length) controller.enqueue(bytes);
        controller.close();
      },
    });
  }
  return new ReadableStream(
    {
      async pull(controller) {
        const bytes = await source.pull();
        if (bytes === null) controller.close();
        else controller.enqueue(bytes);
      },
      cancel(why) {
        source.cancel?.(why);
      },
    },
    { highWaterMark: 0 },
  );
}

async function consume(content) {
  const { source, stream } = content;
  if (content.spent) throw new TypeError("the body has been read already");
  if (source === null) return new Uint8Array(0); // no body: as often as one likes
  content.used = true;
  if (stream === null && typeof source === "string") return encode(source);
  if (stream === null && source instanceof Uint8Array) return source;
  const parts = [];
  if (stream === null) {
    for (let part; (part = await source.pull()) !== null; ) parts.push(part);
  } else {
    const reader = stream.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (!(value instanceof Uint8Array)) throw new TypeError("the stream gave no Uint8Array");
      parts.push(value);
    }
  }
  return parts.length ? join(parts) : new Uint8Array(0);
}

const contents = new WeakMap();

export function contentOf(message) {
  return contents.get(message);
}

export function setContent(message, source) {
  contents.set(message, new Content(source));
}

class Body {
  get body() {
    const content = contents.get(this);
    if (content.source === null) return null;
    if (content.stream === null) content.stream = streamOf(content.source);
    return content.stream;
  }
  get bodyUsed() {
    const content = contents.get(this);
    return content.used || (content.stream !== null && disturbed(content.stream));
  }
  async bytes() {
    const bytes = await consume(contents.get(this));
    return bytes;
  }
  async arrayBuffer() {
    const bytes = await consume(contents.get(this));
    const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
    return whole ? bytes.buffer : bytes.slice().buffer;
  }
  async text() {
    const content = contents.get(this);
    if (typeof content.source === "string" && content.stream === null && !content.used) {
      content.used = true;
      const { source } = content;
      return source.charCodeAt(0) === 0xfeff ? source.slice(1) : source;
    }
    return textOf(await consume(content));
  }
  async json() {
    return JSON.parse(await this.text());
  }
  async blob() {
    return new Blob([await consume(contents.get(this))], {
      type: this.headers.get("content-type") ?? "",
    });
  }
  async formData() {
    return parseForm(await consume(contents.get(this)), this.headers.get("content-type") ?? "");
  }
}

// Both of a body that is needed twice.
function split(content) {
  if (content.spent) throw new TypeError("the body has been read already");
  const { source } = content;
  if (content.stream === null && (source === null || typeof source === "string" || source instanceof Uint8Array)) {
    return new Content(source);
  }
  const [one, other] = (content.stream ?? streamOf(source)).tee();
  content.source = content.stream = one;
  return new Content(other);
}

// A forbidden method, or none (Fetch standard, "method").
function methodOf(method) {
  const name = `${method}`;
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || /^(connect|trace|track)$/i.test(name)) {
    throw new TypeError(`${JSON.stringify(name)} is no method for a request`);
  }
  return /^(delete|get|head|options|post|put|patch)$/i.test(name) ? name.toUpperCase() : name;
}

// A password in an address would be sent to whoever reads the request's URL.
function addressOf(input) {
  const url = new URL(text(input));
  if (url.username || url.password) throw new TypeError("the URL of a Request has no credentials");
  return url.href;
}

const INCOMING = Symbol("incoming");

export class Request extends Body {
  #signal; // or what makes it: most apps never ask
  constructor(input, options, given) {
    super();
    if (options === INCOMING) {
      Object.assign(this, given.fields);
      this.#signal = given.signal;
      contents.set(this, new Content(given.source));
      return;
    }
    const init = dictionary(options, "what is said of a Request");
    const from = input instanceof Request ? input : null;
    const url = from ? from.url : addressOf(input);
    const method = init.method === undefined ? (from?.method ?? "GET") : methodOf(init.method);
    const headers = new Headers(init.headers ?? from?.headers);
    let content = null;
    if (init.body !== undefined && init.body !== null) {
      const [source, type] = extract(init.body);
      content = new Content(source);
      if (type && !headers.has("content-type")) headers.set("content-type", type);
    } else if (from && init.body === undefined) {
      const old = contents.get(from);
      if (old.spent) throw new TypeError("the body has been read already");
      content = new Content(old.source);
      content.stream = old.stream;
      if (old.source !== null) old.used = true;
    }
    content ??= new Content(null);
    if (content.source !== null && (method === "GET" || method === "HEAD")) {
      throw new TypeError(`a ${method} request has no body`);
    }
    const redirect = init.redirect ?? from?.redirect ?? "follow";
    if (!["follow", "error", "manual"].includes(redirect)) {
      throw new TypeError(`redirect cannot be ${JSON.stringify(redirect)}`);
    }
    Object.assign(this, { method, url, headers, redirect, cf: init.cf ?? from?.cf });
    this.#signal = init.signal ?? (from ? () => from.signal : () => new AbortController().signal);
    contents.set(this, content);
  }
  get signal() {
    if (typeof this.#signal === "function") this.#signal = this.#signal();
    return this.#signal;
  }
  clone() {
    const { method, url, headers, redirect, cf } = this;
    const made = new Request("", INCOMING, {
      fields: { method, url, headers: new Headers(headers), redirect, cf },
      signal: () => this.signal,
      source: null,
    });
    contents.set(made, split(contents.get(this)));
    return made;
  }
  get [Symbol.toStringTag]() {
    return "Request";
  }
}

// A request as the host gives it: everything is checked. `signal` gives it.
export function incoming(method, url, headers, signal, source) {
  return new Request("", INCOMING, {
    fields: { method, url, headers, redirect: "manual", cf: undefined },
    signal,
    source,
  });
}

export class Response extends Body {
  constructor(body = null, options) {
    super();
    const init = dictionary(options, "what is said of a Response");
    const status = init.status === undefined ? 200 : Math.trunc(init.status);
    const webSocket = init.webSocket ?? null;
    const switches = status === 101 && isWebSocket(webSocket);
    if (webSocket !== null && !switches) throw new TypeError("a webSocket goes with the status 101");
    if (!switches && (!Number.isInteger(status) || status < 200 || status > 599)) {
      throw new RangeError(`a response cannot have the status ${init.status}`);
    }
    const statusText = init.statusText === undefined ? "" : `${init.statusText}`;
    if (!REASON.test(statusText)) {
      throw new TypeError(`${JSON.stringify(statusText)} is no status text`);
    }
    const headers = new Headers(init.headers);
    const [source, type] = extract(body);
    if (source !== null && NULL_BODY.includes(status)) {
      throw new TypeError(`a response with status ${status} has no body`);
    }
    if (type && !headers.has("content-type")) headers.set("content-type", type);
    this.status = status;
    this.statusText = statusText;
    this.headers = headers;
    this.url = "";
    this.redirected = false;
    this.type = "default";
    this.webSocket = webSocket;
    contents.set(this, new Content(source));
  }
  get ok() {
    return this.status >= 200 && this.status <= 299;
  }
  clone() {
    const made = new Response(null, this);
    made.url = this.url;
    contents.set(made, split(contents.get(this)));
    return made;
  }
  static json(data, options) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new TypeError("the value has no JSON");
    const init = dictionary(options, "what is said of a Response");
    const headers = new Headers(init.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(json, { status: init.status, statusText: init.statusText, headers });
  }
  static redirect(url, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) {
      throw new RangeError(`${status} is no redirect`);
    }
    return new Response(null, { status, headers: { location: new URL(text(url)).href } });
  }
  static error() {
    const made = new Response(null);
    made.status = 0;
    made.type = "error";
    fixed(made.headers);
    return made;
  }
  get [Symbol.toStringTag]() {
    return "Response";
  }
}

Object.assign(globalThis, { Request, Response });
