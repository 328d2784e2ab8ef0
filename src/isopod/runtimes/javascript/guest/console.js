// console: lines of the app's log. Objects are shown as a person would write them, not deeper than
// a few levels.

import { encodeInto } from "./encoding.js";
import { sayWith } from "./wire.js";

const DEPTH = 3;
const ITEMS = 100;

export function log(stream, text) {
  const line = text + "\n";
  let from = 0;
  while (from < line.length) {
    sayWith("L", stream, (array, at, room) => {
      const [read, written] = encodeInto(line, array, at, at + Math.min(room, 32000), from);
      from += read;
      return written;
    });
  }
}

export function describe(error) {
  if (!(error instanceof Error)) return show(error);
  const head = `${error.name}: ${error.message}`;
  // What of the stack is the prelude's tells an author nothing.
  const frames = String(error.stack ?? "").split("\n").filter((frame) => !/\bprelude\.js:\d/.test(frame));
  const stack = frames.join("\n").trimEnd();
  let text = stack === "" ? head : stack.startsWith(head) ? stack : `${head}\n${stack}`;
  if (error.cause !== undefined) text += `\n  caused by ${describe(error.cause)}`;
  return text;
}

function show(value, depth = 0, seen = []) {
  if (typeof value === "string") return depth === 0 ? value : JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return `[function ${value.name || "(anonymous)"}]`;
  if (typeof value !== "object" || value === null) return String(value);
  if (value instanceof Error) return describe(value);
  if (seen.includes(value)) return "[circular]";
  const inside = [...seen, value];
  const part = (one) => show(one, depth + 1, inside);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? String(value) : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (depth > DEPTH) return Array.isArray(value) ? "[array]" : "[object]";
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    const shown = Array.from(value).slice(0, ITEMS).map(part);
    if (value.length > ITEMS) shown.push(`... ${value.length - ITEMS} more`);
    const name = Array.isArray(value) ? "" : `${value.constructor.name} `;
    return `${name}[${shown.join(", ")}]`;
  }
  if (value instanceof Map) {
    return `Map {${[...value].slice(0, ITEMS).map(([k, v]) => `${part(k)} => ${part(v)}`).join(", ")}}`;
  }
  if (value instanceof Set) return `Set {${[...value].slice(0, ITEMS).map(part).join(", ")}}`;
  const name = value.constructor?.name ?? "";
  const parts = Object.entries(value).slice(0, ITEMS).map(([k, v]) => `${k}: ${part(v)}`);
  return `${name && name !== "Object" ? `${name} ` : ""}{${parts.join(", ")}}`;
}

function line(given) {
  if (typeof given[0] !== "string" || !given[0].includes("%")) return given.map((one) => show(one)).join(" ");
  const rest = given.slice(1);
  const text = given[0].replace(/%([sdifoOj%])/g, (found, kind) => {
    if (kind === "%") return "%";
    if (rest.length === 0) return found;
    const value = rest.shift();
    if (kind === "d" || kind === "f") return String(Number(value));
    if (kind === "i") return String(Math.trunc(Number(value)));
    return show(value, kind === "s" ? 0 : 1);
  });
  return [text, ...rest.map((one) => show(one))].join(" ");
}

const OUT = 1;
const ERR = 2;
const to = (stream) => (...given) => log(stream, line(given));
const times = new Map();
const counts = new Map();

globalThis.console = {
  log: to(OUT),
  info: to(OUT),
  debug: to(OUT),
  dir: (value) => log(OUT, show(value, 1)),
  table: to(OUT),
  group: to(OUT),
  groupCollapsed: to(OUT),
  groupEnd() {},
  warn: to(ERR),
  error: to(ERR),
  trace: (...given) => log(ERR, `Trace: ${line(given)}\n${new Error().stack}`),
  assert(condition, ...given) {
    if (!condition) log(ERR, `Assertion failed${given.length ? `: ${line(given)}` : ""}`);
  },
  time: (label = "default") => void times.set(label, performance.now()),
  timeEnd(label = "default") {
    if (times.has(label)) log(OUT, `${label}: ${(performance.now() - times.get(label)).toFixed(1)} ms`);
    times.delete(label);
  },
  count(label = "default") {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    log(OUT, `${label}: ${counts.get(label)}`);
  },
  countReset: (label = "default") => void counts.delete(label),
};
