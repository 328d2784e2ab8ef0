// Randomness of each instance's own: the host's, whatever a snapshot holds. `Math.random` is
// xoshiro128** (Blackman and Vigna 2018), seeded by the host when the instance starts.

import { ask, LARGEST } from "./wire.js";

const state = new Uint32Array(4);
let drawn = false; // since the instance started, or was told to begin anew

export function reseed() {
  state.set(new Uint32Array(bytes(16).buffer));
  if (!(state[0] | state[1] | state[2] | state[3])) state[0] = 1;
  drawn = false;
}

export function wasDrawn() {
  return drawn;
}

// Of a key that the host made: an image must not be shared with it in it.
export function markDrawn() {
  drawn = true;
}

function bytes(count) {
  drawn = true;
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, count, true);
  return ask("r", size);
}

function next() {
  const product = Math.imul(state[1], 5);
  const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
  const shifted = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= shifted;
  state[3] = (state[3] << 11) | (state[3] >>> 21);
  return result;
}

Math.random = function random() {
  drawn = true;
  return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
};

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const MOST = 65536; // Web Cryptography, getRandomValues

export function drawBytes(count) {
  return crypto.getRandomValues(new Uint8Array(count));
}

export const crypto = {
  getRandomValues(array) {
    if (!ArrayBuffer.isView(array) || array instanceof DataView || /Float/.test(array[Symbol.toStringTag])) {
      throw new DOMException("it takes an array of integers", "TypeMismatchError");
    }
    if (array.byteLength > MOST) {
      throw new DOMException(`it gives at most ${MOST} bytes at once`, "QuotaExceededError");
    }
    const into = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let at = 0; at < into.length; at += LARGEST) {
      into.set(bytes(Math.min(LARGEST, into.length - at)), at);
    }
    return array;
  },
  randomUUID() {
    const b = bytes(16);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    const hex = (from, to) => {
      let text = "";
      for (let at = from; at < to; at++) text += HEX[b[at]];
      return text;
    };
    return `${hex(0, 4)}-${hex(4, 6)}-${hex(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`;
  },
};

Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true, writable: true });
