// What a test of the Web Platform Tests finds of testharness.js, in a guest: the functions it calls,
// and a list of what came of each test.

const tests = [];
const cleanups = [];
let whole = Promise.resolve(); // promise_test: one after the other
let finished = null; // explicit_done
const LIMIT_MS = 5000;

class AssertionError extends Error {
  name = "AssertionError";
}

function fail(what, why) {
  throw new AssertionError(why ? `${why}: ${what}` : what);
}

export function format_value(value) {
  if (typeof value === "string") return JSON.stringify(value);
  if (Object.is(value, -0)) return "-0";
  try {
    if (Array.isArray(value)) return `[${value.map(format_value).join(", ")}]`;
    return String(value);
  } catch {
    return typeof value;
  }
}

const check = (is, what, why) => {
  if (!is) fail(what, why);
};
const shown = format_value;

const asserts = {
  assert_true: (value, why) => check(value === true, `expected true, got ${shown(value)}`, why),
  assert_false: (value, why) => check(value === false, `expected false, got ${shown(value)}`, why),
  assert_equals: (got, wanted, why) =>
    check(Object.is(got, wanted), `expected ${shown(wanted)}, got ${shown(got)}`, why),
  assert_not_equals: (got, other, why) => check(!Object.is(got, other), `got ${shown(got)}`, why),
  assert_in_array: (got, list, why) => check(list.includes(got), `${shown(got)} is not in ${shown(list)}`, why),
  assert_array_equals(got, wanted, why) {
    check(typeof got === "object" && got !== null && "length" in got, `${shown(got)} is no array`, why);
    check(got.length === wanted.length, `expected length ${wanted.length}, got ${got.length}`, why);
    for (let at = 0; at < wanted.length; at++) {
      check(Object.is(got[at], wanted[at]), `at ${at}: expected ${shown(wanted[at])}, got ${shown(got[at])}`, why);
    }
  },
  assert_object_equals(got, wanted, why) {
    check(typeof got === "object" && got !== null, `${shown(got)} is no object`, why);
    for (const key of Object.keys(got)) {
      check(Object.hasOwn(wanted, key), `the property ${key} was not expected`, why);
      if (typeof got[key] === "object" && got[key] !== null) {
        asserts.assert_object_equals(got[key], wanted[key], why);
      } else asserts.assert_equals(got[key], wanted[key], why);
    }
    for (const key of Object.keys(wanted)) check(Object.hasOwn(got, key), `there is no ${key}`, why);
  },
  assert_approx_equals: (got, wanted, within, why) =>
    check(Math.abs(got - wanted) <= within, `expected about ${wanted}, got ${got}`, why),
  assert_less_than: (got, than, why) => check(got < than, `${got} is not less than ${than}`, why),
  assert_greater_than: (got, than, why) => check(got > than, `${got} is not greater than ${than}`, why),
  assert_less_than_equal: (got, than, why) => check(got <= than, `${got} is greater than ${than}`, why),
  assert_greater_than_equal: (got, than, why) => check(got >= than, `${got} is less than ${than}`, why),
  assert_between_inclusive: (got, low, high, why) => check(got >= low && got <= high, `${got}`, why),
  assert_regexp_match: (got, like, why) => check(like.test(got), `${shown(got)} is not like ${like}`, why),
  assert_class_string: (value, name, why) =>
    asserts.assert_equals(Object.prototype.toString.call(value), `[object ${name}]`, why),
  assert_own_property: (value, name, why) => check(Object.hasOwn(value, name), `no own ${String(name)}`, why),
  assert_not_own_property: (value, name, why) => check(!Object.hasOwn(value, name), `own ${String(name)}`, why),
  assert_inherits: (value, name, why) =>
    check(!Object.hasOwn(value, name) && name in value, `${name} is not inherited`, why),
  assert_idl_attribute: (value, name, why) => check(name in value, `there is no ${name}`, why),
  assert_readonly(value, name, why) {
    const was = value[name];
    try {
      value[name] = `${was}a`;
    } catch {}
    asserts.assert_equals(value[name], was, why);
  },
  assert_unreached: (why) => fail("this place is not to be reached", why),
  assert_implements: (is, why) => check(is, "it is not there", why),
  assert_implements_optional(is, why) {
    if (!is) throw new Skipped(why);
  },
  assert_throws_js(type, act, why) {
    threw(act, (error) => checkError(type, error, why), why);
  },
  // Tests of before 2020 have this one for both: an error like it, or a DOMException's name.
  assert_throws(like, act, why) {
    if (typeof like === "string") asserts.assert_throws_dom(like, act, why);
    else threw(act, (error) => asserts.assert_equals(error?.name, like.name, why), why);
  },
  assert_throws_dom(name, type, act, why) {
    if (typeof act !== "function") [type, act, why] = [DOMException, type, act];
    threw(act, (error) => checkDom(name, type, error, why), why);
  },
  assert_throws_exactly(wanted, act, why) {
    threw(act, (error) => asserts.assert_equals(error, wanted, why), why);
  },
  async promise_rejects_js(test, type, promise, why) {
    checkError(type, await rejected(promise, why), why);
  },
  async promise_rejects_dom(test, name, type, promise, why) {
    if (typeof type?.then === "function") [type, promise, why] = [DOMException, type, promise];
    checkDom(name, type, await rejected(promise, why), why);
  },
  async promise_rejects_exactly(test, wanted, promise, why) {
    asserts.assert_equals(await rejected(promise, why), wanted, why);
  },
};

class Skipped extends Error {}

function threw(act, look, why) {
  try {
    act();
  } catch (error) {
    look(error);
    return;
  }
  fail("it did not throw", why);
}

function checkError(type, error, why) {
  check(error?.constructor === type, `expected ${type.name}, got ${shown(error)}`, why);
}

const CODES = {
  INDEX_SIZE_ERR: "IndexSizeError",
  INVALID_CHARACTER_ERR: "InvalidCharacterError",
  NOT_SUPPORTED_ERR: "NotSupportedError",
  INVALID_STATE_ERR: "InvalidStateError",
  SYNTAX_ERR: "SyntaxError",
  ABORT_ERR: "AbortError",
  DATA_CLONE_ERR: "DataCloneError",
};

function checkDom(name, type, error, why) {
  check(error instanceof type, `expected a DOMException, got ${shown(error)}`, why);
  if (typeof name === "number") asserts.assert_equals(error.code, name, why);
  else asserts.assert_equals(error.name, CODES[name] ?? name, why);
}

async function rejected(promise, why) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  return fail(`it was fulfilled with ${shown(value)}`, why);
}

// The object that a test is given: what it does in steps, and whether it is done.
class Test {
  constructor(name) {
    this.name = name;
    this.cleanups = [];
    this.made = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.made.catch(() => {});
  }
  step(act, self = this, ...given) {
    try {
      return act.call(self, ...given);
    } catch (error) {
      this.reject(error);
    }
  }
  step_func(act, self = this) {
    return (...given) => this.step(act, self, ...given);
  }
  step_func_done(act = () => {}, self = this) {
    return (...given) => {
      this.step(act, self, ...given);
      this.done();
    };
  }
  unreached_func(why) {
    return this.step_func(() => fail("this place is not to be reached", why));
  }
  step_timeout(act, ms, ...given) {
    return setTimeout(() => this.step(act, this, ...given), ms);
  }
  step_wait(until, why, ms = 3000) {
    return waited(until, why, ms);
  }
  add_cleanup(act) {
    this.cleanups.push(act);
  }
  done() {
    this.resolve();
  }
}

async function waited(until, why, ms) {
  for (let left = ms; left > 0; left -= 20) {
    if (await until()) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  fail("it did not happen", why);
}

function limited(made) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it did not end")), LIMIT_MS);
  });
  return Promise.race([made, late]).finally(() => clearTimeout(timer));
}

async function ended(test, made) {
  const found = { name: test.name };
  try {
    await limited(made);
  } catch (error) {
    if (error instanceof Skipped) found.skipped = true;
    else found.error = String(error?.name === "AssertionError" ? error.message : error).slice(0, 500);
  }
  for (const act of test.cleanups.reverse()) await Promise.resolve().then(act).catch(() => {});
  return found;
}

let unnamed = 0;
const named = (name) => String(name ?? `unnamed ${++unnamed}`);

function test(act, name) {
  const one = new Test(named(name));
  try {
    act.call(one, one);
    one.done();
  } catch (error) {
    one.reject(error);
  }
  tests.push(ended(one, one.made));
}

function async_test(act, name) {
  if (typeof act !== "function") [act, name] = [() => {}, act];
  const one = new Test(named(name));
  tests.push(ended(one, one.made));
  one.step(act, one, one);
  return one;
}

function promise_test(act, name) {
  const one = new Test(named(name));
  const found = whole.then(() => ended(one, Promise.resolve().then(() => act.call(one, one))));
  whole = found;
  tests.push(found);
}

function setup(act, options = act) {
  if (typeof act === "function") act();
  if (options?.explicit_done) finished = Promise.withResolvers();
}

const noted = { step_timeout: setTimeout.bind(globalThis), step_wait: (until, why) => waited(until, why, 3000) };
Object.assign(globalThis, asserts, noted, {
  ...{ test, async_test, promise_test, setup, format_value, AssertionError },
  promise_setup: (act) => void (whole = whole.then(act)),
  done: () => finished?.resolve(),
  add_completion_callback: () => {},
  generate_tests: (act, all) => all.forEach(([name, ...given]) => test(() => act(...given), name)),
  fetch_json: null,
  subsetTest: (run, ...given) => run(...given),
  subsetTestByKey: (key, run, ...given) => run(...given),
});
globalThis.self ??= globalThis;
globalThis.GLOBAL = {
  isWindow: () => false,
  isWorker: () => true,
  isShadowRealm: () => false,
};
globalThis.location ??= new URL("https://web-platform.test/");

// `source`: the test and the scripts it names, as one script; `files`: what it may fetch.
export async function run(source, files) {
  const real = globalThis.fetch;
  globalThis.fetch = async (what, init) => {
    const text = files[String(what)];
    return text === undefined ? real(what, init) : new Response(text);
  };
  (0, eval)(source);
  if (finished) await limited(finished.promise);
  // Tests may be made while others run.
  const all = [];
  for (let at = 0; at < tests.length; at++) all.push(await tests[at]);
  return all;
}
