// What Web IDL says of every interface: dictionaries, calls with too few values, and iterators that
// see what changes while they run.

export function dictionary(value, what) {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object" && typeof value !== "function") {
    throw new TypeError(`${what} is an object`);
  }
  return value;
}

export function required(given, count) {
  if (given.length < count) {
    throw new TypeError(`${count} arguments are needed, and there are ${given.length}`);
  }
}

// A USVString: halves of pairs become U+FFFD. A template, since String() takes symbols.
export function text(value) {
  return `${value}`.toWellFormed();
}

const PARENT = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));

// Gives `type` entries, keys, values, forEach and the iterator. `pairsOf(self)` is its list as it is
// now: an iterator asks for it at each step, and knows only how far it is.
export function iterable(type, pairsOf) {
  class Iterator {
    #self;
    #pick;
    #at = 0;
    constructor(self, pick) {
      pairsOf(self); // a TypeError for what is no such object
      this.#self = self;
      this.#pick = pick;
    }
    next() {
      const pair = pairsOf(this.#self)[this.#at];
      if (pair === undefined) return { value: undefined, done: true };
      this.#at++;
      return { value: this.#pick(pair), done: false };
    }
  }
  const { prototype } = Iterator;
  Object.setPrototypeOf(prototype, PARENT);
  delete prototype.constructor;
  Object.defineProperty(prototype, "next", { enumerable: true });
  Object.defineProperty(prototype, Symbol.toStringTag, {
    value: `${type.name} Iterator`,
    configurable: true,
  });
  const methods = {
    entries() {
      return new Iterator(this, ([name, value]) => [name, value]);
    },
    keys() {
      return new Iterator(this, ([name]) => name);
    },
    values() {
      return new Iterator(this, ([, value]) => value);
    },
    forEach(callback, self) {
      required(arguments, 1);
      if (typeof callback !== "function") throw new TypeError("the callback is no function");
      for (let at = 0; at < pairsOf(this).length; at++) {
        const [name, value] = pairsOf(this)[at];
        callback.call(self, value, name, this);
      }
    },
  };
  for (const [name, value] of Object.entries(methods)) {
    Object.defineProperty(type.prototype, name, {
      value,
      configurable: true,
      enumerable: true,
      writable: true,
    });
  }
  Object.defineProperty(type.prototype, Symbol.iterator, {
    value: methods.entries,
    configurable: true,
    writable: true,
  });
}
