// What Hono's tests import of vitest, in a guest: suites of its own, vitest's own expect and spies.

import { chai, customMatchers, GLOBAL_EXPECT, JestAsymmetricMatchers, JestChaiExpect, JestExtend, setState, getState, ASYMMETRIC_MATCHERS_OBJECT } from "@vitest/expect";
import * as spy from "@vitest/spy";

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

export const expect = (value, message) => {
  setState({ assertionCalls: getState(expect).assertionCalls + 1 }, expect);
  return chai.expect(value, message);
};
Object.assign(expect, chai.expect, globalThis[ASYMMETRIC_MATCHERS_OBJECT]);
expect.getState = () => getState(expect);
expect.setState = (state) => setState(state, expect);
globalThis[GLOBAL_EXPECT] = expect;
setState({ assertionCalls: 0, isExpectingAssertions: false, expectedAssertionsNumber: null }, expect);
expect.extend = (matchers) => chai.expect.extend(expect, matchers);
expect.extend(customMatchers);
expect.unreachable = (text) => chai.assert.fail(text ?? "this place is not to be reached");
expect.assertions = () => {};
expect.hasAssertions = () => {};

const suite = (name, parent) => ({ name, parent, parts: [], before: [], after: [], beforeEach: [], afterEach: [] });
const root = suite("", null);
let current = root;

function eachOf(register) {
  return (table, ...values) => {
    const rows = Array.isArray(table) && !("raw" in table) ? table : rowsOf(table, values);
    return (name, body) => {
      rows.forEach((row, at) => {
        const given = Array.isArray(row) ? row : [row];
        register(titled(name, given, at), () => body(...given));
      });
    };
  };
}

function rowsOf(strings, values) {
  const names = strings[0].trim().split("|").map((one) => one.trim());
  const rows = [];
  for (let at = 0; at + names.length <= values.length; at += names.length) {
    rows.push(Object.fromEntries(names.map((name, index) => [name, values[at + index]])));
  }
  return rows;
}

function titled(name, given, at) {
  let next = 0;
  const text = String(name).replace(/%[sdifjoO#%]/g, (mark) => (mark === "%#" ? at : mark === "%%" ? "%" : String(given[next++])));
  return text.replace(/\$(\w+)/g, (mark, key) => String(given[0]?.[key] ?? mark));
}

export function describe(name, options, body = options) {
  const made = suite(String(name?.name ?? name), current);
  current.parts.push(made);
  current = made;
  try {
    body();
  } finally {
    current = made.parent;
  }
}
describe.each = eachOf(describe);
describe.skip = () => {};
describe.todo = () => {};
describe.skipIf = (is) => (is ? describe.skip : describe);
describe.runIf = (is) => (is ? describe : describe.skip);
describe.only = describe.concurrent = describe.sequential = describe;

export function it(name, options, body = options) {
  if (typeof body !== "function") body = options;
  current.parts.push({ name: String(name), body });
}
const skipped = (name) => current.parts.push({ name: String(name), skipped: true });
it.each = eachOf(it);
it.skip = it.todo = skipped;
it.skip.each = it.todo.each = () => skipped;
it.skipIf = (is) => (is ? skipped : it);
it.runIf = (is) => (is ? it : skipped);
it.only = it.concurrent = it.sequential = it;
it.fails = (name, body) =>
  it(name, async () => {
    let failed = false;
    await Promise.resolve().then(body).catch(() => (failed = true));
    if (!failed) throw new Error("it was expected to fail");
  });
export { it as test, describe as suite };

export const beforeAll = (act) => current.before.push(act);
export const afterAll = (act) => current.after.push(act);
export const beforeEach = (act) => current.beforeEach.push(act);
export const afterEach = (act) => current.afterEach.push(act);

// Types are not looked at: any chain of calls is right.
const anything = new Proxy(() => anything, { get: () => anything });
export const expectTypeOf = anything;
export const assertType = () => {};

const stubbed = new Map();
const none = (what) => () => {
  throw new Error(`vi.${what} is not there`);
};
export const vi = {
  fn: spy.fn,
  spyOn: spy.spyOn,
  mocked: (value) => value,
  isMockFunction: spy.isMockFunction,
  clearAllMocks: () => spy.clearAllMocks?.(),
  resetAllMocks: () => spy.resetAllMocks?.(),
  restoreAllMocks: () => spy.restoreAllMocks?.(),
  stubGlobal(name, value) {
    if (!stubbed.has(name)) stubbed.set(name, Object.getOwnPropertyDescriptor(globalThis, name));
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  },
  unstubAllGlobals() {
    for (const [name, was] of stubbed) {
      if (was === undefined) delete globalThis[name];
      else Object.defineProperty(globalThis, name, was);
    }
    stubbed.clear();
  },
  async waitFor(act) {
    for (let tries = 0; ; tries++) {
      try {
        return await act();
      } catch (error) {
        if (tries >= 20) throw error;
        await new Promise((done) => setTimeout(done, 50));
      }
    }
  },
  useRealTimers: () => {},
};
for (const name of ["mock", "doMock", "hoisted", "useFakeTimers", "setSystemTime", "advanceTimersByTime", "importActual", "resetModules"]) {
  vi[name] = none(name);
}
// Some tests say `global` for the global object, since vitest runs in Node.
Object.assign(globalThis, { global: globalThis, describe, it, test: it, expect, beforeAll, afterAll, beforeEach, afterEach, vi, expectTypeOf, assertType });

const LIMIT_MS = 5000;
const limited = (made) => {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("it did not end")), LIMIT_MS)));
  return Promise.race([made, late]).finally(() => clearTimeout(timer));
};

// What a test's `skip()` throws.
const SKIPPED = new Error("skipped");

// What tests and their hooks are given: https://vitest.dev/guide/test-context
function contextOf(test, chain) {
  const inner = chain.slice(1).reduce((outer, one) => ({ name: one.name, suite: outer }), undefined);
  return { expect, task: { name: test.name, suite: inner }, skip: () => { throw SKIPPED; } };
}

async function runTest(test, path, chain) {
  if (test.skipped) return { name: path, skipped: true };
  const context = contextOf(test, chain);
  try {
    for (const one of chain) for (const act of one.beforeEach) await limited(act(context));
    try {
      await limited(Promise.resolve().then(() => test.body(context)));
    } finally {
      for (const one of [...chain].reverse()) for (const act of one.afterEach) await limited(act(context));
    }
    return { name: path };
  } catch (error) {
    if (error === SKIPPED) return { name: path, skipped: true };
    return { name: path, error: String(error?.stack ? `${error.message}\n${error.stack}` : error).slice(0, 2000) };
  }
}

async function runSuite(one, path, chain, out) {
  const all = [...chain, one];
  try {
    for (const act of one.before) await limited(act());
  } catch (error) {
    out.push({ name: `${path} beforeAll`, error: String(error) });
    return;
  }
  for (const part of one.parts) {
    const name = path === "" ? part.name : `${path} > ${part.name}`;
    if (part.parts) await runSuite(part, name, all, out);
    else out.push(await runTest(part, name, all));
  }
  for (const act of one.after) await limited(Promise.resolve().then(act)).catch(() => {});
}

export async function runAll() {
  const out = [];
  await runSuite(root, "", [], out);
  return out;
}
