// TextEncoder, TextDecoder (UTF-8, UTF-16, windows-1252) of the Encoding standard.

import { dictionary } from "./idl.js";

const { fromCharCode } = String;
const { toString } = Object.prototype;

// UTF-8 of text[from...] into `into`; gives [characters read, bytes written].
export function encodeInto(text, into, offset, end, from = 0) {
  let at = offset;
  let index = from;
  const length = text.length;
  for (; index < length; index++) {
    let code = text.charCodeAt(index);
    if (code < 0x80) {
      if (at >= end) break;
      into[at++] = code;
      continue;
    }
    let pair = 0;
    if (code >= 0xd800 && code < 0xe000) {
      const next = code < 0xdc00 ? text.charCodeAt(index + 1) : 0;
      if (next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (next - 0xdc00);
        pair = 1;
      } else code = 0xfffd;
    }
    const size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (at + size > end) break;
    if (size === 2) into[at++] = 0xc0 | (code >> 6);
    else {
      if (size === 3) into[at++] = 0xe0 | (code >> 12);
      else {
        into[at++] = 0xf0 | (code >> 18);
        into[at++] = 0x80 | ((code >> 12) & 63);
      }
      into[at++] = 0x80 | ((code >> 6) & 63);
    }
    into[at++] = 0x80 | (code & 63);
    index += pair;
  }
  return [index - from, at - offset];
}

export function encode(text) {
  // Most texts are ASCII: a first try that fits them, then the rest.
  let into = new Uint8Array(text.length);
  let [read, written] = encodeInto(text, into, 0, into.length);
  if (read === text.length) return written === into.length ? into : into.slice(0, written);
  const larger = new Uint8Array(written + (text.length - read) * 3);
  larger.set(into.subarray(0, written));
  const rest = encodeInto(text, larger, written, larger.length, read);
  return larger.slice(0, written + rest[1]);
}

export function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += fromCharCode.apply(null, bytes.subarray(at, at + 4096));
  }
  return text;
}

function isAscii(bytes) {
  for (let at = 0; at < bytes.length; at++) if (bytes[at] > 127) return false;
  return true;
}

// Gives [text, bytes that begin a character which is not whole]. Malformed ones become U+FFFD, or
// a TypeError if `fatal` (Encoding standard, UTF-8 decoder).
function utf8(bytes, fatal, last) {
  if (isAscii(bytes)) return [latin1(bytes), 0];
  const units = [];
  let text = "";
  const bad = () => {
    if (fatal) throw new TypeError("the data is not valid UTF-8");
    units.push(0xfffd);
  };
  let at = 0;
  while (at < bytes.length) {
    const first = bytes[at];
    if (units.length > 4000) text += fromCharCode.apply(null, units.splice(0));
    if (first < 0x80) {
      units.push(first);
      at++;
      continue;
    }
    let more = 0;
    let lower = 0x80;
    let upper = 0xbf;
    let code = 0;
    if (first >= 0xc2 && first <= 0xdf) [more, code] = [1, first & 31];
    else if (first >= 0xe0 && first <= 0xef) {
      [more, code] = [2, first & 15];
      if (first === 0xe0) lower = 0xa0;
      if (first === 0xed) upper = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
      [more, code] = [3, first & 7];
      if (first === 0xf0) lower = 0x90;
      if (first === 0xf4) upper = 0x8f;
    } else {
      bad();
      at++;
      continue;
    }
    let next = at + 1;
    let whole = true;
    for (; more > 0; more--, next++) {
      if (next >= bytes.length) {
        if (!last) return [text + fromCharCode.apply(null, units), bytes.length - at];
        whole = false;
        break;
      }
      const byte = bytes[next];
      if (byte < lower || byte > upper) {
        whole = false;
        break;
      }
      [lower, upper] = [0x80, 0xbf];
      code = (code << 6) | (byte & 63);
    }
    at = next;
    if (!whole) bad();
    else if (code < 0x10000) units.push(code);
    else units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
  }
  return [text + fromCharCode.apply(null, units), 0];
}

// As `utf8`. `low` and `high`: where in its two bytes a unit has them.
function utf16(bytes, [low, high], fatal, last) {
  let text = "";
  let at = 0;
  for (; at + 1 < bytes.length; at += 2) {
    text += fromCharCode(bytes[at + low] | (bytes[at + high] << 8));
  }
  let left = bytes.length - at;
  const half = text.charCodeAt(text.length - 1);
  if (!last && half >= 0xd800 && half < 0xdc00) {
    text = text.slice(0, -1); // its other half may follow
    left += 2;
  } else if (last && left > 0) {
    text += "\ud800"; // what is not whole is as wrong as half a pair
    left = 0;
  }
  if (fatal && !text.isWellFormed()) throw new TypeError("the data is not valid UTF-16");
  return [text.toWellFormed(), left];
}

export function decode(bytes) {
  return utf8(bytes, false, true)[0];
}

// As a text is read of a body: without the mark at its beginning.
export function textOf(bytes) {
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return decode(marked ? bytes.subarray(3) : bytes);
}

export function bytesOf(data) {
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  return new Uint8Array(data);
}

export function join(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

class TextEncoder {
  get encoding() {
    return "utf-8";
  }
  encode(text = "") {
    return encode(String(text));
  }
  encodeInto(text, into) {
    if (!(into instanceof Uint8Array)) throw new TypeError("it is encoded into a Uint8Array");
    const [read, written] = encodeInto(String(text), into, 0, into.length);
    return { read, written };
  }
}

// The Encoding standard's names of those that are here.
const NAMES = {
  "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
  "utf-16be": "unicodefffe utf-16be",
  "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
  "windows-1252":
    "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 " +
    "iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
};
const LABELS = new Map(
  Object.entries(NAMES).flatMap(([name, labels]) => labels.split(" ").map((one) => [one, name])),
);
// 0x80 to 0x9f, where windows-1252 is not latin-1.
const C1 =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

class TextDecoder {
  #kept = new Uint8Array(0);
  #begun = false;
  constructor(label = "utf-8", options) {
    const { fatal = false, ignoreBOM = false } = dictionary(options, "what is said of a decoder");
    const name = `${label}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase();
    const encoding = LABELS.get(name);
    if (!encoding) throw new RangeError(`there is no decoder for ${label}`);
    Object.defineProperties(this, {
      encoding: { value: encoding, enumerable: true },
      fatal: { value: Boolean(fatal), enumerable: true },
      ignoreBOM: { value: Boolean(ignoreBOM), enumerable: true },
    });
  }
  decode(data = new Uint8Array(0), options) {
    const { stream = false } = dictionary(options, "what is said of a piece");
    if (!ArrayBuffer.isView(data) && !/ArrayBuffer\]$/.test(toString.call(data))) {
      throw new TypeError("bytes are decoded");
    }
    let bytes = bytesOf(data);
    const [kept, begun] = [this.#kept, this.#begun];
    this.#kept = new Uint8Array(0); // also when this throws
    this.#begun = false;
    if (kept.length > 0) {
      const joined = new Uint8Array(kept.length + bytes.length);
      joined.set(kept);
      joined.set(bytes, kept.length);
      bytes = joined;
    }
    const [text, left] = this.#text(bytes, !stream);
    if (left > 0) this.#kept = bytes.slice(bytes.length - left);
    const drop = !begun && !this.ignoreBOM && text.charCodeAt(0) === 0xfeff;
    this.#begun = Boolean(stream) && (begun || text !== "");
    return drop ? text.slice(1) : text;
  }
  #text(bytes, last) {
    if (this.encoding === "utf-8") return utf8(bytes, this.fatal, last);
    if (this.encoding === "windows-1252") {
      return [latin1(bytes).replace(/[\x80-\x9f]/g, (one) => C1[one.charCodeAt(0) - 0x80]), 0];
    }
    return utf16(bytes, this.encoding === "utf-16be" ? [1, 0] : [0, 1], this.fatal, last);
  }
}

Object.assign(globalThis, { TextEncoder, TextDecoder });
