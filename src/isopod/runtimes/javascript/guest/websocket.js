// WebSockets as Workers have them: an app makes a pair, keeps the second and answers with the first.
// The items are in `socket.py`. The app is asked for one message after the other.

import { Event, EventTarget } from "event-target-shim";
import { Blob, blobBytes } from "./blob.js";
import { bytesOf, decode, encode, join } from "./encoding.js";
import { LARGEST, say, sayNumber } from "./wire.js";

const WINDOW = 256 * 1024; // bytes on their way that nobody has taken yet
const EACH = 64; // what a message counts beside its bytes
const LARGEST_MESSAGE = 4 << 20;
const LONGEST_REASON = 123; // bytes; RFC 6455, 5.5
const MOST_ATTACHED = 2048;
const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];
const KEY = Symbol("WebSocket");
const links = new WeakMap();

// What an app attached, from its bytes; null: nothing.
export function attachedValue(bytes) {
  return bytes === null || bytes.length === 0 ? null : JSON.parse(decode(bytes));
}

class MessageEvent extends Event {
  constructor(type, init = {}) {
    super(type, init);
    Object.defineProperty(this, "data", { value: init.data ?? null, enumerable: true });
  }
}

class CloseEvent extends Event {
  constructor(type, init = {}) {
    super(type, init);
    for (const [name, value] of Object.entries({ code: 0, reason: "", wasClean: false })) {
      Object.defineProperty(this, name, { value: init[name] ?? value, enumerable: true });
    }
  }
}

// What happens behind an end that an app keeps.
class Link {
  constructor(socket) {
    this.socket = socket;
    this.accepted = false;
    this.exchange = null; // when it has a client
    this.state = CONNECTING;
    this.protocol = "";
    this.out = []; // [operation, bytes] that wait
    this.untaken = 0;
    this.parts = []; // of a message that is not whole
    this.asked = false;
    this.close = null; // what the app closed it with
    this.over = Promise.withResolvers();
    this.attached = null;
    this.attachment = undefined; // as it was given
  }
  dispatch(event) {
    const handler = this.socket[`on${event.type}`];
    if (typeof handler === "function") this.socket.addEventListener(event.type, handler, { once: true });
    this.socket.dispatchEvent(event);
  }
  ask() {
    if (!this.accepted || this.exchange === null || this.asked || this.state !== OPEN) return;
    this.asked = true;
    sayNumber("B", this.exchange.number, 1);
  }
  flush() {
    if (this.exchange === null) return;
    const { number } = this.exchange;
    if (this.attachment !== undefined) say("N", number, this.attachment);
    this.attachment = undefined;
    while (this.out.length > 0 && this.untaken <= WINDOW) {
      const [operation, bytes] = this.out.shift();
      this.untaken += bytes.length + EACH;
      let from = 0;
      for (; bytes.length - from > LARGEST; from += LARGEST) say("P", number, bytes.subarray(from, from + LARGEST));
      say(operation, number, bytes.subarray(from));
    }
    if (this.close !== null && this.out.length === 0) {
      say("Z", number, this.close);
      const code = this.close[0] | (this.close[1] << 8);
      this.end(code, decode(this.close.subarray(2)), true);
    }
  }
  end(code, reason, wasClean) {
    if (this.state === CLOSED) return;
    this.state = CLOSED;
    this.dispatch(new CloseEvent("close", { code, reason, wasClean }));
    this.over.resolve();
  }
  taken(count) {
    this.untaken -= count;
    this.flush();
  }
  // Items of the host's.
  p(bytes) {
    this.parts.push(bytes.slice());
  }
  m(bytes) {
    this.message(decode(join([...this.parts.splice(0), bytes])));
  }
  n(bytes) {
    this.message(join([...this.parts.splice(0), bytes]).slice().buffer);
  }
  message(data) {
    this.asked = false;
    if (this.state === OPEN) this.dispatch(new MessageEvent("message", { data }));
    this.ask();
  }
  q(bytes) {
    const code = bytes[0] | (bytes[1] << 8);
    this.end(code, decode(bytes.subarray(2)), code !== 1006);
  }
}

class WebSocket extends EventTarget {
  onmessage = null;
  onclose = null;
  onerror = null;
  onopen = null;
  constructor(key) {
    if (key !== KEY) {
      throw new DOMException("a WebSocket of the app's own cannot be opened here", "NotSupportedError");
    }
    super();
    links.set(this, new Link(this));
  }
  get readyState() {
    return links.get(this).state;
  }
  get protocol() {
    return links.get(this).protocol;
  }
  get url() {
    return null;
  }
  get extensions() {
    return "";
  }
  get binaryType() {
    return "arraybuffer";
  }
  set binaryType(_kind) {}
  accept() {
    const link = links.get(this);
    if (link.client) throw new TypeError("this end of the pair is for the Response");
    if (link.accepted) return;
    link.accepted = true;
    link.state = OPEN;
    link.ask();
  }
  send(data) {
    const link = links.get(this);
    if (!link.accepted) throw new TypeError("accept() comes before send()");
    if (link.state !== OPEN) return;
    const isText = !(data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob);
    const bytes = isText ? encode(String(data)) : data instanceof Blob ? blobBytes(data) : bytesOf(data).slice();
    if (bytes.length > LARGEST_MESSAGE) throw new RangeError(`a message has at most ${LARGEST_MESSAGE} bytes`);
    link.out.push([isText ? "W" : "M", bytes]);
    link.flush();
  }
  close(code = 1000, reason = "") {
    const link = links.get(this);
    const number = Number(code);
    const known = (number >= 1000 && number <= 1014 && ![1004, 1005, 1006].includes(number)) || (number >= 3000 && number <= 4999);
    if (!Number.isInteger(number) || !known) throw new DOMException(`${code} is no close code`, "InvalidAccessError");
    const text = encode(String(reason));
    if (text.length > LONGEST_REASON) throw new DOMException("the reason is too long", "SyntaxError");
    if (link.state === CLOSING || link.state === CLOSED) return;
    link.state = CLOSING;
    link.close = Uint8Array.of(number & 255, number >> 8, ...text);
    link.flush();
  }
  // Kept with a WebSocket whose instance ends (see docs/websockets.md).
  serializeAttachment(value) {
    const bytes = encode(JSON.stringify(value ?? null));
    if (bytes.length > MOST_ATTACHED) throw new RangeError(`an attachment has at most ${MOST_ATTACHED} bytes`);
    const link = links.get(this);
    link.attached = bytes;
    link.attachment = bytes;
    link.flush();
  }
  deserializeAttachment() {
    const link = links.get(this);
    return attachedValue(link.attached);
  }
  get [Symbol.toStringTag]() {
    return "WebSocket";
  }
}
for (const [name, value] of Object.entries({ CONNECTING, OPEN, CLOSING, CLOSED })) {
  for (const one of [WebSocket, WebSocket.prototype]) {
    Object.defineProperty(one, name, { value, enumerable: true });
    Object.defineProperty(one, `READY_STATE_${name}`, { value });
  }
}

class WebSocketPair {
  constructor() {
    const [client, server] = [new WebSocket(KEY), new WebSocket(KEY)];
    links.get(client).client = links.get(server);
    Object.assign(this, { 0: client, 1: server });
  }
}

export function isWebSocket(value) {
  return value instanceof WebSocket;
}

// Until it is closed. `response` is the app's, with the client's end of a pair.
export async function converse(exchange, response, offered) {
  const link = links.get(response.webSocket)?.client;
  if (!link) throw new TypeError("the response's webSocket is not the first end of a WebSocketPair");
  if (link.exchange !== null) throw new TypeError("the WebSocketPair has a client already");
  const protocol = response.headers.get("sec-websocket-protocol") ?? "";
  if (protocol !== "" && !offered.includes(protocol)) {
    throw new TypeError(`the client did not offer the subprotocol ${JSON.stringify(protocol)}`);
  }
  say("A", exchange.number, encode(protocol));
  link.protocol = protocol;
  link.attached ??= exchange.attachment;
  link.exchange = exchange;
  exchange.socket = link;
  if (exchange.gone) link.end(1006, "", false);
  link.flush();
  link.ask();
  await link.over.promise;
}

Object.assign(globalThis, { WebSocket, WebSocketPair, MessageEvent, CloseEvent });
