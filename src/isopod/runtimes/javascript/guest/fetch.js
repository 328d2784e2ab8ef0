// fetch of the Fetch standard, over the host's HTTP client. Redirects are followed here; bodies are
// given as they come. There is no cache, no cookie and no CORS.

import { decode, encode, latin1 } from "./encoding.js";
import { lines, received } from "./headers.js";
import { contentOf, Request, Response, setContent } from "./messages.js";
import { LARGEST, say } from "./wire.js";

const MOST_REDIRECTS = 20;
const NOTHING = new Uint8Array(0);
// What the host's client says by itself.
const OWN_HEADERS = ["host", "connection", "content-length", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer", "expect"];
const open = new Map();
let count = 0;

class Fetch {
  constructor(number) {
    this.number = number;
    this.head = Promise.withResolvers();
    this.piece = null; // who waits for a piece of the response
    this.upload = null; // who waits to send a piece of the request
    this.ended = false;
    this.error = null;
  }
  pull() {
    if (this.error) return Promise.reject(this.error);
    if (this.ended) return Promise.resolve(null);
    say("k", this.number, NOTHING);
    return new Promise((resolve, reject) => (this.piece = { resolve, reject }));
  }
  fail(error) {
    if (this.ended || this.error) return;
    this.error = error;
    open.delete(this.number);
    this.head.promise.catch(() => {});
    this.head.reject(error);
    this.piece?.reject(error);
    this.upload?.reject(error);
  }
  abort(reason) {
    if (this.ended || this.error) return;
    say("a", this.number, NOTHING);
    this.fail(reason);
  }
}

export const fromHost = {
  h(fetch, bytes) {
    const [status, reason, ...headers] = latin1(bytes).split("\n");
    fetch.head.resolve({ status: Number(status), reason, headers: received(headers) });
  },
  d(fetch, bytes) {
    const waiter = fetch.piece;
    fetch.piece = null;
    waiter?.resolve(bytes);
  },
  z(fetch) {
    fetch.ended = true;
    open.delete(fetch.number);
    fetch.piece?.resolve(null);
  },
  x(fetch, bytes) {
    fetch.fail(new TypeError(`fetch failed: ${decode(bytes)}`));
  },
  w(fetch) {
    const waiter = fetch.upload;
    fetch.upload = null;
    if (waiter) waiter.resolve();
    else fetch.wanted = true;
  },
};

export function take(operation, number, bytes) {
  const fetch = open.get(number);
  if (fetch) fromHost[operation](fetch, bytes);
}

async function upload(fetch, content) {
  const turn = () => {
    if (fetch.error) throw fetch.error;
    if (fetch.wanted) {
      fetch.wanted = false;
      return undefined;
    }
    return new Promise((resolve, reject) => (fetch.upload = { resolve, reject }));
  };
  for await (const part of content) {
    if (!(part instanceof Uint8Array)) throw new TypeError("the stream gave no Uint8Array");
    for (let at = 0; at < part.length; at += LARGEST) {
      await turn();
      say("u", fetch.number, part.subarray(at, at + LARGEST));
    }
  }
  await turn();
  say("v", fetch.number, NOTHING);
}

// The body as pieces, and how long it is if that is known.
function bodyOf(request) {
  const content = contentOf(request);
  const { source, stream } = content;
  if (source === null) return [null, 0];
  if (content.used || stream?.locked) throw new TypeError("the body has been read already");
  if (stream === null && (typeof source === "string" || source instanceof Uint8Array)) {
    const bytes = typeof source === "string" ? encode(source) : source;
    return [[bytes], bytes.length];
  }
  content.used = true;
  return [request.body, null];
}

async function once(request, url, method, headers, body, length) {
  const fetch = new Fetch(++count);
  const sent = new Headers(headers);
  for (const name of OWN_HEADERS) sent.delete(name);
  if (!sent.has("accept")) sent.set("accept", "*/*");
  if (!sent.has("user-agent")) sent.set("user-agent", "isopod");
  if (!sent.has("accept-encoding")) sent.set("accept-encoding", "identity");
  const secure = url.protocol === "https:";
  const head = [
    ...[method, secure ? "https" : "http", url.hostname, url.port || (secure ? "443" : "80")],
    ...[url.pathname + url.search, body === null ? "" : "1", `host:${url.host}`, "connection:close"],
  ];
  if (body !== null) head.push(length === null ? "transfer-encoding:chunked" : `content-length:${length}`);
  else if (method === "POST" || method === "PUT") head.push("content-length:0");
  const text = head.join("\n") + lines(sent);
  if (text.length > LARGEST) throw new TypeError("the request's headers are too long");
  const { signal } = request;
  const stop = () => fetch.abort(signal.reason);
  signal?.addEventListener("abort", stop, { once: true });
  open.set(fetch.number, fetch);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  say("f", fetch.number, bytes);
  if (body !== null) upload(fetch, body).catch((error) => fetch.abort(error));
  return [await fetch.head.promise, fetch];
}

globalThis.fetch = async function fetch(input, init) {
  const request = new Request(input, init);
  request.signal?.throwIfAborted();
  let url = new URL(request.url);
  let { method } = request;
  let [body, length] = bodyOf(request);
  const headers = new Headers(request.headers);
  for (let redirects = 0; ; redirects++) {
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new TypeError(`fetch failed: it does not know ${url.protocol}`);
    }
    const [head, exchange] = await once(request, url, method, headers, body, length);
    const location = head.headers.get("location");
    const redirected = [301, 302, 303, 307, 308].includes(head.status) && location !== null;
    if (!redirected || request.redirect === "manual") {
      const empty = method === "HEAD" || [204, 205, 304].includes(head.status);
      const response = new Response(null, { status: head.status, statusText: head.reason });
      response.headers = head.headers;
      response.url = url.href;
      response.redirected = redirects > 0;
      response.type = "basic";
      if (!empty) setContent(response, { pull: () => exchange.pull(), cancel: (why) => exchange.abort(why) });
      return response;
    }
    exchange.abort(new TypeError("it was a redirect"));
    if (request.redirect === "error") throw new TypeError("fetch failed: it was a redirect");
    if (redirects >= MOST_REDIRECTS) throw new TypeError("fetch failed: too many redirects");
    const next = new URL(location, url);
    if (next.origin !== url.origin) for (const name of ["authorization", "cookie"]) headers.delete(name);
    if (head.status === 303 ? method !== "HEAD" : head.status < 303 && method === "POST") {
      method = "GET";
      [body, length] = [null, 0];
      for (const name of ["content-type", "content-encoding", "content-language"]) headers.delete(name);
    }
    if (body !== null && length === null) {
      throw new TypeError("fetch failed: a redirect wants a stream again");
    }
    url = next;
  }
};
