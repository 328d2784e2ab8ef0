// The requests of an app: what the host says becomes Requests, what the app answers becomes items.
//
// From the host: r a request | b a piece of its body | e the body's end | t so many bytes of what was
// sent were taken (u32) | g nobody wants the response | c the settings of a new instance (JSON) |
// s before a snapshot. To the host: Q ready | R why it could not start | S status, headers and a whole body
// (u32 length of the head, head, body) | H the same, and more follows | D more | E end | X it failed |
// F everything is done for the request | B wants a piece of the body | L a line of output | T wants a
// turn in so many ms | I what a snapshot has to know (JSON) | r random bytes (u32) | y a piece of an operation
// of crypto.subtle | K a call of a key-value binding (kv.py). The last three are answered at once. Those of WebSockets are in `socket.py`.

import { describe, log } from "./console.js";
import { decode, encode, encodeInto, latin1 } from "./encoding.js";
import { take } from "./fetch.js";
import { lines as headerLines, received } from "./headers.js";
import { KVNamespace } from "./kv.js";
import { contentOf, incoming, Response } from "./messages.js";
import { reseed, wasDrawn } from "./random.js";
import { runDue } from "./timers.js";
import { attachedValue, converse } from "./websocket.js";
import { LARGEST, readItems, say, sayNumber, sayWith } from "./wire.js";

const PIECE = LARGEST;
const WINDOW = 256 * 1024; // bytes on their way that nobody has taken yet
const NOTHING = new Uint8Array(0);
const clientGone = () => new DOMException("the client is gone", "AbortError");

const exchanges = new Map();
let handler = null;

// The settings. Which of them are read is told before a snapshot: what an app has made of one must not
// be in an image.
const settings = {};
const read = new Set();
const bindings = new Set();
const env = new Proxy(settings, {
  get(target, name) {
    if (typeof name === "string" && !bindings.has(name)) read.add(name);
    return target[name];
  },
  has(target, name) {
    if (!bindings.has(name)) read.add(String(name));
    return name in target;
  },
  ownKeys(target) {
    read.add("*");
    return Reflect.ownKeys(target);
  },
});

class Exchange {
  constructor(number) {
    this.number = number;
    this.onBody = null; // waits for a piece of the body
    this.bodyEnded = false;
    this.onTaken = null; // waits until the host takes more
    this.untaken = 0;
    this.gone = false;
    this.controller = null;
    this.waits = []; // ctx.waitUntil
    this.socket = null; // of a WebSocket that was taken: what takes its items
    this.attachment = null;
  }
  pull() {
    if (this.bodyEnded) return Promise.resolve(null);
    if (this.gone) return Promise.reject(new TypeError("the client is gone"));
    sayNumber("B", this.number, PIECE);
    return new Promise((resolve, reject) => (this.onBody = { resolve, reject }));
  }
  async send(bytes) {
    for (let at = 0; at < bytes.length; at += PIECE) {
      while (this.untaken >= WINDOW && !this.gone) {
        await new Promise((resolve) => (this.onTaken = resolve));
      }
      if (this.gone) throw new TypeError("the client is gone");
      const piece = bytes.subarray(at, at + PIECE);
      this.untaken += piece.length;
      say("D", this.number, piece);
    }
  }
  taken(count) {
    this.untaken -= count;
    const resume = this.onTaken;
    this.onTaken = null;
    resume?.();
  }
  signal() {
    this.controller ??= new AbortController();
    if (this.gone) this.controller.abort(clientGone());
    return this.controller.signal;
  }
  leave() {
    this.gone = true;
    this.onBody?.reject(new TypeError("the client is gone"));
    this.onTaken?.();
    this.controller?.abort(clientGone());
    this.socket?.end(1006, "", false);
  }
}

function respond(exchange, operation, response, body) {
  const head = `${response.status}${headerLines(response.headers)}`;
  if (head.length > LARGEST - 4) throw new RangeError("the response's headers are too long");
  let read = 0;
  let whole = true;
  const write = (array, at, room) => {
    for (let index = 0; index < head.length; index++) array[at + 4 + index] = head.charCodeAt(index);
    new DataView(array.buffer).setUint32(at, head.length, true);
    let size = 4 + head.length;
    if (typeof body === "string") {
      let written;
      [read, written] = encodeInto(body, array, at + size, at + room);
      size += written;
    } else {
      read = Math.min(body.length, room - size);
      array.set(body.subarray(0, read), at + size);
      size += read;
    }
    whole = read === body.length;
    return size;
  };
  sayWith(operation, exchange.number, write, () => (whole ? operation : "H"));
  return whole ? null : typeof body === "string" ? encode(body.slice(read)) : body.subarray(read);
}

async function deliver(exchange, response, isHead) {
  const content = contentOf(response);
  if (content.used || content.stream?.locked) {
    throw new TypeError("the response's body has been read already");
  }
  content.used = true;
  const { source } = content;
  if (content.stream === null && (source === null || typeof source === "string" || source instanceof Uint8Array)) {
    const body = isHead || source === null ? NOTHING : source;
    const rest = respond(exchange, "S", response, body);
    if (rest === null) return;
    await exchange.send(rest);
    say("E", exchange.number, NOTHING);
    return;
  }
  if (isHead) {
    respond(exchange, "S", response, NOTHING);
    if (content.stream) await content.stream.cancel();
    return;
  }
  respond(exchange, "H", response, NOTHING);
  if (content.stream === null) {
    // An incoming body that goes out again.
    for (let part; (part = await source.pull()) !== null; ) await exchange.send(part);
  } else {
    const reader = content.stream.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        if (!(value instanceof Uint8Array)) throw new TypeError("the stream gave no Uint8Array");
        await exchange.send(value);
      }
    } catch (error) {
      await reader.cancel(error).catch(() => {});
      throw error;
    }
  }
  say("E", exchange.number, NOTHING);
}

function fail(exchange, error) {
  const kind = error instanceof Error && /out of memory/.test(error.message) ? "memory" : "app";
  const text = describe(error);
  log(2, text);
  say("X", exchange.number, encode(`${kind}\n${text.split("\n")[0].slice(0, 400)}`));
}

class ExecutionContext {
  #exchange;
  constructor(exchange) {
    this.#exchange = exchange;
    this.props = {};
  }
  waitUntil(promise) {
    const wait = Promise.resolve(promise).catch((error) => {
      log(2, `in waitUntil: ${describe(error)}`);
    });
    this.#exchange.waits.push(wait);
  }
  passThroughOnException() {}
}

function parse(exchange, bytes) {
  const [method, path, query, , scheme, host, port, client, hasBody, ...headers] =
    latin1(bytes).split("\n");
  const attached = headers.at(-1)?.startsWith(":") ? headers.pop() : null;
  if (attached !== null) exchange.attachment = Uint8Array.from(attached.slice(1).match(/../g) ?? [], (one) => parseInt(one, 16));
  const all = received(headers);
  const authority = all.get("host") ?? (port === "80" || port === "443" ? host : `${host}:${port}`);
  const url = `${scheme.replace(/^ws/, "http")}://${authority}${path}${query === "" ? "" : `?${query}`}`;
  if (!all.has("cf-connecting-ip")) all.set("cf-connecting-ip", client);
  const source = hasBody === "1" ? { pull: () => exchange.pull() } : null;
  return incoming(method, url, all, () => exchange.signal(), source);
}

async function serve(exchange, bytes) {
  try {
    const request = parse(exchange, bytes);
    const isHead = request.method === "HEAD";
    const response = await responseOf(exchange, request, new ExecutionContext(exchange));
    if (response.webSocket !== null) throw new TypeError("the request is for no WebSocket");
    await deliver(exchange, response, isHead);
  } catch (error) {
    if (!exchange.gone) fail(exchange, error);
  }
  await finish(exchange);
}

async function responseOf(exchange, request, given) {
  const response = await handler.fetch(request, env, given);
  if (response instanceof Response) return response;
  throw new TypeError(`fetch() gave ${response === undefined ? "nothing" : typeof response}, not a Response`);
}

async function finish(exchange) {
  while (exchange.waits.length > 0) await Promise.all(exchange.waits.splice(0));
  exchanges.delete(exchange.number);
  say("F", exchange.number, NOTHING);
}

async function serveSocket(exchange, bytes) {
  try {
    const request = parse(exchange, bytes);
    request.headers.set("upgrade", "websocket");
    const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(",").map((one) => one.trim());
    const given = new ExecutionContext(exchange);
    const { attachment } = exchange;
    given.webSocket = { resumed: attachment !== null, attachment: attachedValue(attachment) };
    const response = await responseOf(exchange, request, given);
    if (response.webSocket !== null) await converse(exchange, response, offered);
    else {
      const body = await response.bytes();
      if (respond(exchange, "S", response, body) !== null) {
        throw new RangeError("the refusal of a WebSocket is too long");
      }
    }
  } catch (error) {
    if (!exchange.gone) fail(exchange, error);
  }
  await finish(exchange);
}

const handlers = {
  r(number, bytes) {
    const exchange = new Exchange(number);
    exchanges.set(number, exchange);
    serve(exchange, bytes);
  },
  b(number, bytes) {
    const waiter = exchanges.get(number)?.onBody;
    if (waiter) exchanges.get(number).onBody = null;
    waiter?.resolve(bytes);
  },
  e(number) {
    const exchange = exchanges.get(number);
    if (!exchange) return;
    exchange.bodyEnded = true;
    exchange.onBody?.resolve(null);
    exchange.onBody = null;
  },
  t(number, bytes) {
    const exchange = exchanges.get(number);
    const count = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    (exchange?.socket ?? exchange)?.taken(count);
  },
  g(number) {
    exchanges.get(number)?.leave();
  },
  c(_number, bytes) {
    reseed();
    for (const name of Object.keys(settings)) delete settings[name];
    const said = JSON.parse(decode(bytes));
    Object.assign(settings, said.env);
    bindings.clear();
    said.bindings.forEach((name, index) => {
      bindings.add(name);
      settings[name] = new KVNamespace(index);
    });
    read.clear();
  },
  s() {
    say("I", 0, encode(JSON.stringify({ drawn: wasDrawn(), read: [...read] })));
  },
};

// Of a WebSocket: see websocket.js.
handlers.o = (number, bytes) => {
  const exchange = new Exchange(number);
  exchanges.set(number, exchange);
  serveSocket(exchange, bytes);
};
for (const operation of "pmnq") {
  handlers[operation] = (number, bytes) => exchanges.get(number)?.socket?.[operation](bytes);
}

// Of fetch: see fetch.js.
for (const operation of "hdzxw") {
  handlers[operation] = (number, bytes) => take(operation, number, bytes);
}

function start(promise) {
  promise.then(
    (exports) => {
      const found = exports.default;
      if (found === undefined) return refuse("not_found", "the module has no default export");
      const fetcher = typeof found === "function" && found.prototype?.fetch ? new found({}, env) : found;
      if (typeof fetcher?.fetch !== "function") {
        return refuse("not_callable", "the default export has no function fetch(request, env, ctx)");
      }
      handler = fetcher;
      say("Q", 0, NOTHING);
    },
    (error) => refused(error),
  );
}

function refused(error) {
  const text = describe(error);
  const kind = error instanceof SyntaxError ? "syntax" : /out of memory/.test(text) ? "memory" : "app";
  refuse(kind, `${text.split("\n")[0]}\n${text}`);
}

function refuse(kind, text) {
  let size = 0;
  sayWith("R", 0, (array, at, room) => {
    [, size] = encodeInto(`${kind}\n${text}`, array, at, at + room);
    return size;
  });
}

export function turn(promise, thrown) {
  try {
    if (promise !== undefined) start(promise);
    else if (thrown !== undefined && handler === null) refused(thrown);
    else if (thrown !== undefined) log(2, `a rejected promise has no handler: ${describe(thrown)}`);
    readItems((code, number, bytes) => handlers[String.fromCharCode(code)](number, bytes));
    runDue();
  } catch (error) {
    log(2, describe(error));
  }
}
