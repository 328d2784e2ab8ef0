// setTimeout and its kin, over the host's one timer: it is told when the next one is due, and takes
// a turn then. While no request is open nothing runs: timers wait for the next one.

import { sayNumber } from "./wire.js";

const MOST_MS = 2 ** 31 - 1;
const timers = new Map();
let count = 0;
let told = Infinity;

function now() {
  return performance.now();
}

export function later(callback, ms, repeat = false) {
  const id = ++count;
  // No timer is due in the turn that made it.
  const wait = Math.min(Math.max(Number(ms) || 0, repeat ? 1 : 0), MOST_MS);
  const due = now() + wait;
  timers.set(id, { callback, due, wait, repeat });
  if (due < told) tell(due);
  return id;
}

function tell(due) {
  told = due;
  sayNumber("T", 0, Math.max(0, Math.ceil(due - now())));
}

export function clear(id) {
  timers.delete(Number(id));
}

// Run those that are due, in their order; each in a microtask of its own, as in a browser its jobs
// come before the next timer's. Then tell the host of the next.
export function runDue() {
  told = Infinity;
  if (timers.size === 0) return;
  const time = now();
  const due = [...timers].filter(([, timer]) => timer.due <= time);
  due.sort(([, a], [, b]) => a.due - b.due);
  let turn = Promise.resolve();
  for (const [id, timer] of due) {
    if (timer.repeat) timer.due = time + timer.wait;
    turn = turn.then(() => {
      if (timers.get(id) !== timer) return;
      if (!timer.repeat) timers.delete(id);
      timer.callback();
    });
    // What it throws is a rejection that nobody handles, and told as one.
    turn = turn.catch((error) => {
      Promise.reject(error);
    });
  }
  turn.then(() => {
    let next = Infinity;
    for (const { due } of timers.values()) if (due < next) next = due;
    if (next < told) tell(next);
  });
}

const start = (repeat) =>
  function (callback, ms, ...given) {
    if (typeof callback !== "function") throw new TypeError("the callback is not a function");
    return later(() => callback(...given), ms, repeat);
  };

Object.assign(globalThis, {
  setTimeout: start(false),
  setInterval: start(true),
  setImmediate: (callback, ...given) => start(false)(callback, 0, ...given),
  clearTimeout: clear,
  clearInterval: clear,
  clearImmediate: clear,
});
globalThis.queueMicrotask ??= (callback) => {
  Promise.resolve().then(callback);
};
