// The mailbox (see the engine's Mailbox) and the items in it: a byte that says what it is, u32 of the
// exchange it belongs to, u32 length, bytes. The host reads the outbox when a turn is over, when it
// is full, and when it is asked something.

const SIZE = 256 * 1024;
const HEAD = 9;
export const LARGEST = 64 * 1024; // bytes in one item
export const inbox = new ArrayBuffer(SIZE);
export const outbox = new ArrayBuffer(SIZE);

const host = globalThis.__isopod_host;
delete globalThis.__isopod_host;
const received = new Uint8Array(inbox);
const receivedView = new DataView(inbox);
const sent = new Uint8Array(outbox);
const sentView = new DataView(outbox);

// Space for an item of `size` bytes at most; gives the array and where the bytes begin.
function space(size) {
  let used = sentView.getUint32(0, true);
  if (4 + used + HEAD + size > SIZE) {
    host();
    used = 0;
  }
  return 4 + used;
}

function finish(at, operation, exchange, size) {
  sent[at] = operation.charCodeAt(0);
  sentView.setUint32(at + 1, exchange, true);
  sentView.setUint32(at + 5, size, true);
  sentView.setUint32(0, at + HEAD + size - 4, true);
}

// `bytes`: at most LARGEST of them.
export function say(operation, exchange, bytes) {
  const at = space(bytes.length);
  sent.set(bytes, at + HEAD);
  finish(at, operation, exchange, bytes.length);
}

// As `say`; `write(array, offset, room)` gives how many bytes it wrote. `decide`: the operation, when
// that depends on what went in.
export function sayWith(operation, exchange, write, decide = () => operation) {
  const at = space(LARGEST);
  const size = write(sent, at + HEAD, LARGEST);
  finish(at, decide(), exchange, size);
}

export function sayNumber(operation, exchange, number) {
  const at = space(4);
  sentView.setUint32(at + HEAD, number, true);
  finish(at, operation, exchange, 4);
}

// Suspends the guest until the host has answered.
export function ask(operation, bytes) {
  say(operation, 0, bytes);
  host();
  const size = receivedView.getUint32(0, true);
  receivedView.setUint32(0, 0, true);
  return received.slice(4, 4 + size);
}

// What the host has put into the inbox: `take(operation, exchange, bytes)`, whose bytes are its own.
export function readItems(take) {
  const size = receivedView.getUint32(0, true);
  receivedView.setUint32(0, 0, true);
  if (size === 0) return;
  const all = received.slice(4, 4 + size);
  const view = new DataView(all.buffer);
  for (let at = 0; at < size; ) {
    const length = view.getUint32(at + 5, true);
    const begin = at + HEAD;
    take(all[at], view.getUint32(at + 1, true), all.subarray(begin, begin + length));
    at = begin + length;
  }
}
