// CompressionStream and DecompressionStream of the Compression standard, over pako's zlib. What they
// know is in the guest's memory, as everything of a guest: an image keeps a stream as it is.

import {
  Z_BUF_ERROR,
  Z_DEFAULT_STRATEGY,
  Z_FINISH,
  Z_NO_FLUSH,
  Z_OK,
  Z_STREAM_END,
  ZStream,
  zlibDeflate,
  zlibDeflateInit2,
  zlibInflate,
  zlibInflateInit2,
} from "pako";
import { TransformStream } from "web-streams-polyfill";
import { bytesOf } from "./encoding.js";

const WINDOW_BITS = new Map([
  ["deflate", 15],
  ["deflate-raw", -15],
  ["gzip", 31],
]);
const LEVEL = 3; // in an interpreter 6 takes more than twice as long, and saves some percent
const METHOD = 8; // deflate, the only one there is
const MEMORY_LEVEL = 8;
const PIECE = 16384;
const NOTHING = new Uint8Array(0);

function windowBits(format) {
  const bits = WINDOW_BITS.get(`${format}`);
  if (bits === undefined) throw new TypeError(`there is no format ${JSON.stringify(`${format}`)}`);
  return bits;
}

// Gives what comes of `chunk`, piece by piece; says whether the data is at its end.
function run(act, stream, chunk, flush, give) {
  if (!(chunk instanceof ArrayBuffer) && !ArrayBuffer.isView(chunk)) {
    throw new TypeError("what is written are bytes");
  }
  stream.input = bytesOf(chunk);
  stream.next_in = 0;
  stream.avail_in = stream.input.length;
  for (;;) {
    stream.output = new Uint8Array(PIECE);
    stream.next_out = 0;
    stream.avail_out = PIECE;
    const status = act(stream, flush);
    if (stream.next_out > 0) give(stream.output.slice(0, stream.next_out));
    if (status === Z_STREAM_END) return true;
    if (status !== Z_OK && status !== Z_BUF_ERROR) {
      throw new TypeError(`the data is not valid: ${stream.msg || status}`);
    }
    if (stream.avail_out > 0) return false;
  }
}

class CompressionStream {
  #transform;
  constructor(format) {
    const stream = new ZStream();
    const bits = windowBits(format);
    zlibDeflateInit2(stream, LEVEL, METHOD, bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
    const give = (controller) => (piece) => controller.enqueue(piece);
    this.#transform = new TransformStream({
      transform: (chunk, controller) => {
        run(zlibDeflate, stream, chunk, Z_NO_FLUSH, give(controller));
      },
      flush: (controller) => {
        run(zlibDeflate, stream, NOTHING, Z_FINISH, give(controller));
      },
    });
  }
  get readable() {
    return this.#transform.readable;
  }
  get writable() {
    return this.#transform.writable;
  }
}

class DecompressionStream {
  #transform;
  constructor(format) {
    const stream = new ZStream();
    zlibInflateInit2(stream, windowBits(format));
    let ended = false;
    this.#transform = new TransformStream({
      transform(chunk, controller) {
        if (ended && chunk.byteLength === 0) return;
        if (ended) throw new TypeError("there is more than the data");
        ended = run(zlibInflate, stream, chunk, Z_NO_FLUSH, (piece) => controller.enqueue(piece));
        if (ended && stream.avail_in > 0) throw new TypeError("there is more than the data");
      },
      flush() {
        if (!ended) throw new TypeError("the data is not whole");
      },
    });
  }
  get readable() {
    return this.#transform.readable;
  }
  get writable() {
    return this.#transform.writable;
  }
}

Object.assign(globalThis, { CompressionStream, DecompressionStream });
