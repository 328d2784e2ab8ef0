// TextEncoderStream and TextDecoderStream of the Encoding standard.

import { TransformStream } from "web-streams-polyfill";

class TextEncoderStream {
  constructor() {
    let high = ""; // the first half of a pair that is in two pieces
    const encoder = new TextEncoder();
    const transform = new TransformStream({
      transform(chunk, controller) {
        let text = high + String(chunk);
        const last = text.charCodeAt(text.length - 1);
        high = last >= 0xd800 && last < 0xdc00 ? text.slice(-1) : "";
        if (high !== "") text = text.slice(0, -1);
        if (text !== "") controller.enqueue(encoder.encode(text));
      },
      flush(controller) {
        if (high !== "") controller.enqueue(encoder.encode(high));
      },
    });
    this.encoding = "utf-8";
    this.readable = transform.readable;
    this.writable = transform.writable;
  }
}

class TextDecoderStream {
  constructor(label, options) {
    const decoder = new TextDecoder(label, options);
    const give = (text, controller) => {
      if (text !== "") controller.enqueue(text);
    };
    const transform = new TransformStream({
      transform: (chunk, controller) => give(decoder.decode(chunk, { stream: true }), controller),
      flush: (controller) => give(decoder.decode(), controller),
    });
    this.encoding = decoder.encoding;
    this.fatal = decoder.fatal;
    this.ignoreBOM = decoder.ignoreBOM;
    this.readable = transform.readable;
    this.writable = transform.writable;
  }
}

Object.assign(globalThis, { TextEncoderStream, TextDecoderStream });
