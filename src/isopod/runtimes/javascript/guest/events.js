// Events: event-target-shim's, and what is made of them.

import { Event, EventTarget, getEventAttributeValue, setEventAttributeValue } from "event-target-shim";
import { later } from "./timers.js";

class CustomEvent extends Event {
  constructor(type, init = {}) {
    super(type, init);
    Object.defineProperty(this, "detail", { value: init.detail ?? null, enumerable: true });
  }
}

const KEY = Symbol("AbortSignal");

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  constructor(key) {
    if (key !== KEY) throw new TypeError("Illegal constructor");
    super();
  }
  get aborted() {
    return this.#aborted;
  }
  get reason() {
    return this.#reason;
  }
  // In its turn among the listeners, as they were added.
  get onabort() {
    return getEventAttributeValue(this, "abort");
  }
  set onabort(act) {
    setEventAttributeValue(this, "abort", act);
  }
  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
  static _abort(signal, reason) {
    if (signal.#aborted) return;
    signal.#aborted = true;
    signal.#reason =
      reason === undefined
        ? new DOMException("This operation was aborted", "AbortError")
        : reason;
    signal.dispatchEvent(new Event("abort"));
  }
  static abort(reason) {
    const signal = new AbortSignal(KEY);
    abort(signal, reason);
    return signal;
  }
  static timeout(ms) {
    const signal = new AbortSignal(KEY);
    later(() => abort(signal, new DOMException("The operation timed out", "TimeoutError")), ms);
    return signal;
  }
  static any(signals) {
    const made = new AbortSignal(KEY);
    for (const signal of signals) {
      if (signal.aborted) {
        abort(made, signal.reason);
        return made;
      }
    }
    for (const signal of signals) {
      signal.addEventListener("abort", () => abort(made, signal.reason), { once: true });
    }
    return made;
  }
}

const { addEventListener } = EventTarget.prototype;
EventTarget.prototype.addEventListener = {
  addEventListener(type, listener, options) {
    // The shim takes null for no signal.
    if (typeof options === "object" && options?.signal === null) {
      throw new TypeError("signal is an AbortSignal");
    }
    return addEventListener.call(this, type, listener, options);
  },
}.addEventListener;

const abort = AbortSignal._abort;
delete AbortSignal._abort;

class AbortController {
  #signal = new AbortSignal(KEY);
  get signal() {
    return this.#signal;
  }
  abort(reason) {
    abort(this.#signal, reason);
  }
}

Object.assign(globalThis, { Event, EventTarget, CustomEvent, AbortSignal, AbortController });
