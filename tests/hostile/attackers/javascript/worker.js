// Attacks its node from inside, one way for each path. What a path does is the same in all languages:
// see tests/hostile/test_every_language.py.

const kept = [];
let box; // the mailbox that the node reads, once it was seen
const set = DataView.prototype.setUint32;
DataView.prototype.setUint32 = function (at, value, little) {
  if (at > 0 && this.byteLength === 262144) box = this;
  return set.call(this, at, value, little);
};

// An item as the prelude would write it, but whatever the attacker likes.
function forge(operation, exchange, bytes, size = bytes.length) {
  const at = 4 + box.getUint32(0, true);
  box.setUint8(at, operation.charCodeAt(0));
  set.call(box, at + 1, exchange, true);
  set.call(box, at + 5, size, true);
  bytes.forEach((byte, index) => box.setUint8(at + 9 + index, byte));
  set.call(box, 0, at + 9 + bytes.length - 4, true);
}

const text = (said) => [...said].map((letter) => letter.charCodeAt(0));
const head = (said) => [said.length, 0, 0, 0, ...text(said)];
const forgeries = {
  twice: () => { for (let n = 0; n < 3; n++) for (let e = 0; e < 200; e++) forge("S", e, head("200\nx:forged")); },
  splitting: () => { for (let e = 0; e < 200; e++) forge("S", e, head("200\nx:a\r\nset-cookie: evil=1")); },
  ready: () => forge("Q", 0, []),
  refused: () => forge("R", 0, text("app\nforged")),
  image: () => forge("I", 0, text("{}")),
  unknown: () => forge("\xff", 7, []),
  huge: () => forge("D", 1, [], 0xffffffff),
  half: () => set.call(box, 0, 5, true),
  beyond: () => set.call(box, 0, 0xfffffff0, true),
  asks: () => { for (let n = 0; n < 1000; n++) forge("r", 0, [255, 255, 255, 255]); },
};

const headers = {
  split: () => ({ x: "a\r\nSet-Cookie: evil=1" }),
  name: () => ({ "x\r\nSet-Cookie": "evil=1" }),
  nul: () => ({ x: "a\0b" }),
  lengths: () => [["content-length", "1"], ["content-length", "2"]],
  negative: () => ({ "content-length": "-1" }),
  long: () => ({ "content-length": "9".repeat(30) }),
  many: () => Object.fromEntries([...Array(300).keys()].map((n) => [`x-${n}`, "y"])),
  large: () => ({ x: "y".repeat(70000) }),
};

const attacks = {
  loop() { for (;;); },
  never: () => new Promise(() => {}),
  memory() { for (;;) kept.push(new Uint8Array(1 << 20).fill(1)); },
  recurse() { const f = () => f() + 1; return new Response(f()); },
  flood() { for (;;) console.log("flood", "x".repeat(1000)); },
  vanish() { throw new Error("gone"); },
  log(_request, _env, _ctx, rest) {
    console.log(decodeURIComponent(rest));
    return Response.json(1);
  },
  headers: (_request, _env, _ctx, rest) => new Response("x", { headers: headers[rest]() }),
  longer: () => new Response("x".repeat(1000), { headers: { "content-length": "5" } }),
  shorter: () => new Response("x".repeat(5), { headers: { "content-length": "1000" } }),
  endless: () => new Response(new ReadableStream({
    pull(controller) { controller.enqueue(new Uint8Array(50000)); },
  })),
  later(_request, _env, ctx) {
    ctx.waitUntil(new Promise((done) => setTimeout(done, 1)).then(() => { for (;;); }));
    return new Response("now");
  },
  connection: () => new Response("5\r\nhello", { headers: {
    "transfer-encoding": "chunked", connection: "x-mine", "x-mine": "1", "x-request-id": "forged" } }),
  env: (_request, env) => Response.json({ ...env }),
  async connect(_request, _env, _ctx, port) {
    const said = [];
    for (const to of [`http://127.0.0.1:${port}/`, "http://169.254.169.254/", "file:///etc/passwd"]) {
      try { said.push((await fetch(to)).status); } catch (error) { said.push(error.constructor.name); }
    }
    return Response.json(said);
  },
  clock() {
    const seen = new Set();
    for (const ends = performance.now() + 200; performance.now() < ends; ) {
      seen.add(performance.now() % 1);
      seen.add(Date.now() % 1);
    }
    return Response.json([...seen]);
  },
  fresh: (_request, env) => Response.json({
    random: [Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(8))]],
    now_ms: Date.now(), setting: env.SETTING ?? "" }),
  async forge(_request, _env, _ctx, rest) {
    if (box) forgeries[rest]();
    return new Response(box ? "forged" : "no box");
  },
};

export default {
  fetch(request, env, ctx) {
    const [, attack, ...rest] = new URL(request.url).pathname.split("/");
    return attack ? attacks[attack](request, env, ctx, rest.join("/")) : new Response("fine");
  },
};
