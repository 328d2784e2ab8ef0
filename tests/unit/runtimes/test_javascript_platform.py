"""The Web platform of a guest: what a script sees is what Node shows it, which passes the Web
Platform Tests of most of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtimes.workers import Workshop, worker

# Each line gives a value; what throws gives the error's name.
CASES = r"""
new URL("../a?b=1#c", "https://x.test:8080/d/e/f").href
new URL("HTTP://USER:pw@EXÄMPLE.test:80/%7Efoo/../bar baz?q=a b&c=ü#frag ment").href
new URL("https://1.2.3/").hostname
new URL("https://[::1]:443/").host
new URL("//other/path", "https://x.test").href
new URL("not a url")
URL.canParse("nope") || URL.canParse("a:b")
(() => { const u = new URL("https://x.test/a"); u.searchParams.append("k", "v w"); u.hash = "z"; u.port = "99999"; u.pathname = "ü"; return u.href })()
[...new URLSearchParams("a=1&b=2&a=3&=x&c&d=%zz&e=+%20")]
(() => { const p = new URLSearchParams([["b", "2"], ["a", "ä"], ["b", "1"]]); p.sort(); p.delete("a"); return [String(p), p.getAll("b"), p.has("b", "3"), p.size] })()
[...new Headers({ "X-B": " padded ", a: "1" })]
(() => { const h = new Headers([["a", "1"], ["A", "2"], ["set-cookie", "x=1"], ["set-cookie", "y=2"]]); return [h.get("a"), h.getSetCookie(), [...h], h.has("A")] })()
new Headers({ "bad name": "x" })
new Headers({ a: "x\ny" })
new Headers([["one"]])
new Headers(null)
[...new Headers({ a: "" }).keys()]
(() => { const r = new Response("text"); return [r.status, r.statusText, r.ok, r.headers.get("content-type"), r.bodyUsed, r.type, r.redirected, r.url] })()
new Response("x", { status: 99 })
new Response("x", { status: 204 })
new Response(null, { status: 204 }).body
await new Response(new Uint8Array([104, 195, 164])).text()
(async () => { const r = new Response("x"); await r.text(); return [r.bodyUsed, await r.text()] })()
(async () => { const r = new Response("x"); const c = r.clone(); return [await r.text(), await c.text()] })()
await new Response('{"a":[1,null]}').json()
new Response("{bad").json()
new Response(new Blob(["a", "b"], { type: "Text/Plain" })).headers.get("content-type")
new Response(new URLSearchParams("a=ä")).headers.get("content-type")
await new Response(new URLSearchParams("a=ä b")).text()
Response.json({ a: 1 }, { status: 201 }).headers.get("content-type")
Response.json(undefined)
Response.redirect("https://x.test/", 307).headers.get("location")
Response.redirect("https://x.test/", 200)
Response.error().type
[...(await new Response(new URLSearchParams("a=1&a=2&b=%20")).formData())]
(async () => { const f = new FormData(); f.append("a", "1\r\n2"); f.append("f", new Blob(["ä"]), "ü.txt"); const got = await new Response(f).formData(); const file = got.get("f"); return [got.get("a"), file.name, file.type, file.size, await file.text()] })()
(() => { const f = new FormData(); f.append("a", "1"); f.append("b", "2"); f.append("a", "3"); f.set("a", "4"); f.delete("b"); return [[...f], f.getAll("a"), f.has("b"), f.get("c")] })()
(() => { const r = new Request("https://x.test/a#b", { method: "post", body: "x", headers: { a: "b" } }); return [r.method, r.url, r.headers.get("content-type"), r.redirect, r.signal.aborted] })()
new Request("https://x.test", { body: "x" })
new Request("https://x.test", { method: "TRACE" })
new Request("https://x.test", { method: "b d" })
new Request("/relative")
new Request(new Request("https://x.test", { method: "PATCH", body: "z" }), { headers: { q: "1" } }).headers.get("q")
(async () => { const r = new Request("https://x.test", { method: "PUT", body: "z" }); const s = new Request(r); return [r.bodyUsed, await s.text()] })()
new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 65, 0xff, 0xe2, 0x82, 0xf0, 0x9f, 0x92, 0xa9, 0xed, 0xa0, 0x80]))
new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xc0, 0x80]))
new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf, 65])).length
(() => { const d = new TextDecoder(); return [0xe2, 0x82, 0xac].map((b) => d.decode(new Uint8Array([b]), { stream: true })).join("|") + d.decode() })()
new TextDecoder("utf-16le").decode(new Uint8Array([65, 0, 0x3d, 0xd8, 0xa9, 0xdc]))
new TextDecoder("nope")
new TextDecoder("latin1").encoding
[...new TextEncoder().encode("aä€💩\ud800")]
new TextEncoder().encodeInto("ä€x", new Uint8Array(4))
btoa("\x00ÿabc")
btoa("€")
atob(" YW Jj\n")
atob("a")
atob("ab=c")
structuredClone(new Map([["a", new Set([1, new Date(0)])]])).get("a").size
structuredClone({ a: [1, { b: undefined }], c: /x/gi, d: new Error("e"), n: 10n }).c.flags
structuredClone(() => 1)
(() => { const a = { b: 1 }; a.self = a; const c = structuredClone(a); return c.self === c && c !== a })()
(async () => { const { readable, writable } = new TransformStream({ transform: (c, t) => t.enqueue(c * 2) }); const w = writable.getWriter(); w.write(1); w.write(2); w.close(); const out = []; for await (const x of readable) out.push(x); return out })()
(async () => { const [a, b] = new Response("tee").body.tee(); return [await new Response(a).text(), await new Response(b).text()] })()
(async () => { const s = new ReadableStream({ start(c) { c.enqueue("a"); c.error(new RangeError("no")) } }); return await s.getReader().read().then(() => "read", (e) => e.name) })()
(async () => { const r = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(2)); c.close() } }).getReader(); const one = await r.read(); return [one.done, one.value.length, (await r.read()).done] })()
(async () => { const parts = []; await new ReadableStream({ start(c) { c.enqueue("x"); c.close() } }).pipeTo(new WritableStream({ write: (x) => void parts.push(x), close: () => void parts.push("end") })); return parts })()
(async () => { const out = []; for await (const x of new Response("ä€").body.pipeThrough(new TextDecoderStream())) out.push(x); return out.join("") })()
(async () => new Uint8Array(await new Response(new ReadableStream({ type: "bytes", pull(c) { c.enqueue(new Uint8Array([7])); c.close() } })).arrayBuffer())[0])()
ReadableStream.from([1, 2]).getReader().read()
new CountQueuingStrategy({ highWaterMark: 3 }).size()
(() => { const c = new AbortController(); const seen = []; c.signal.addEventListener("abort", () => seen.push(c.signal.reason.name)); c.abort(); c.abort(); return [seen, c.signal.aborted] })()
AbortSignal.abort("why").reason
(() => { const c = new AbortController(); const s = AbortSignal.any([c.signal, new AbortController().signal]); c.abort(5); return [s.aborted, s.reason] })()
AbortSignal.abort().throwIfAborted()
(async () => { const s = AbortSignal.timeout(1); await new Promise((d) => s.addEventListener("abort", d)); return s.reason.name })()
(() => { const t = new EventTarget(); const seen = []; const f = (e) => seen.push([e.type, e.detail]); t.addEventListener("a", f, { once: true }); t.addEventListener("a", f); t.dispatchEvent(new CustomEvent("a", { detail: 3 })); t.dispatchEvent(new Event("a")); return seen })()
(() => { const e = new Event("x", { cancelable: true }); const t = new EventTarget(); t.addEventListener("x", (e) => e.preventDefault()); return [t.dispatchEvent(e), e.defaultPrevented, e.bubbles] })()
(async () => { const b = new Blob(["abc", new Uint8Array([100]), new Blob(["e"])]); return [b.size, await b.slice(1, 3).text(), await b.slice(-2, undefined, "X/Y").text(), b.slice(0, 1, "X/Y").type] })()
new File(["x"], "n.txt", { type: "a/b", lastModified: 5 }).lastModified
new Blob("text")
new DOMException("m", "AbortError").code
new DOMException("m") instanceof Error
[typeof performance.now(), performance.timeOrigin > 0]
(async () => { const out = []; setTimeout(() => out.push("t"), 0); queueMicrotask(() => out.push("m")); Promise.resolve().then(() => out.push("p")); out.push("s"); await new Promise((d) => setTimeout(d, 5)); return out })()
(async () => { const out = []; const i = setInterval((x) => { out.push(x); if (out.length === 3) clearInterval(i) }, 1, "i"); await new Promise((d) => setTimeout(d, 60)); return out })()
crypto.getRandomValues(new Uint8Array(65537))
crypto.getRandomValues(new Float32Array(1))
/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())
[3, 1, 2].toSorted()
"a-b-c".replaceAll("-", "+")
[..."a1b2".matchAll(/\d/g)].map((m) => m[0])
[1, [2, [3]]].flat(Infinity)
new Intl.DateTimeFormat("en").constructor.name
[...new Headers([["a", undefined], ["b", null]])]
new Headers([["a", "1", "2"]])
new Headers(["ab"])
new Headers().append("a")
new Headers().forEach(1)
(() => { const h = new Proxy(new Headers({ b: "1", a: "2" }), { get: (t, k) => { const v = Reflect.get(t, k); return typeof v === "function" ? v.bind(t) : v } }); return [...new Headers(h)] })()
(() => { const h = new Headers({ b: "1", d: "2" }); const seen = []; for (const [name] of h) { seen.push(name); if (name === "b") h.append("c", "3") } return seen })()
[String(new Headers().keys()), String(new FormData().entries()), Object.getOwnPropertyDescriptor(Object.getPrototypeOf(new Headers().keys()), "next").enumerable]
new Response("x", { statusText: "a\nb" })
new Response("x", 1)
new Response("x", null).status
await new Response(new Uint8Array([0xef, 0xbb, 0xbf, 65])).text()
await new Response("\ufeffa\ud800b").text()
await new Blob(["\ufeff1"]).text()
(async () => { const r = new Response(); return [await r.text(), await r.text(), r.bodyUsed] })()
(() => { const f = new File(["x"], "n"); return [Object.keys(f), f.name, typeof f.lastModified] })()
new File(["x"])
new Blob(["a\r\nb"], { endings: "native" }).size
new Blob([], 1)
new Blob(["a"], null).size
new FormData().append("a", "b", "c")
new FormData().append("a")
(async () => { const f = new FormData(); f.append("a\nb", "1\n2\r3"); return [...(await new Response(f).formData())] })()
new TextDecoder("utf-16be").decode(new Uint8Array([0, 65, 0xd8, 0x3d, 0xdc, 0xa9]))
new TextDecoder("utf-16le").decode(new Uint8Array([0x3d, 0xd8, 65, 0, 7]))
new TextDecoder("utf-16le", { fatal: true }).decode(new Uint8Array([0x3d, 0xd8]))
(() => { const d = new TextDecoder("utf-16"); return [0x3d, 0xd8, 0xa9, 0xdc].map((b) => d.decode(new Uint8Array([b]), { stream: true })).join("|") + d.decode() })()
(() => { const d = new TextDecoder("utf-8", { fatal: true }); try { d.decode(new Uint8Array([0xc3, 0x28])) } catch {} return d.decode(new Uint8Array([65])) })()
new TextDecoder(" Latin1\n").encoding
new TextDecoder().decode(5)
new TextEncoder().encodeInto("", new Uint16Array(1))
(() => { const c = new AbortController(); const seen = []; c.signal.addEventListener("abort", () => seen.push(1)); c.signal.onabort = (e) => seen.push(e.target === c.signal); c.signal.addEventListener("abort", () => seen.push(2)); c.abort(); return seen })()
new EventTarget().addEventListener("a", () => {}, { signal: null })
new Request("https://u:p@x.test/")
(async () => { const r = new Request("https://x.test", { method: "POST", body: "..." }); const reader = r.body.getReader(); await reader.read(); reader.releaseLock(); return new Request(r) })()
(async () => { const s = new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(1)) }); const reader = s.getReader(); await reader.read(); reader.releaseLock(); return new Response(s) })()
(async () => { const r = new Response("x"); const reader = r.body.getReader(); await reader.read(); reader.releaseLock(); return await r.text() })()
await pipe(await pipe("ä".repeat(40000), new CompressionStream("gzip")), new DecompressionStream("gzip"), "length")
await pipe(await pipe("deflated", new CompressionStream("deflate")), new DecompressionStream("deflate"), "text")
await pipe(await pipe("raw", new CompressionStream("deflate-raw")), new DecompressionStream("deflate-raw"), "text")
(async () => [...(await pipe("", new CompressionStream("gzip"))).slice(0, 4)])()
new CompressionStream("br")
[Object.prototype.toString.call(new Headers()), Object.prototype.toString.call(new Response()), String(new FormData())]
""".strip().splitlines()  # noqa: E501  JavaScript

# What is no such data, by the Compression standard: Node says Error, or nothing.
NOT_COMPRESSED = r"""
pipe("no gzip", new DecompressionStream("gzip"))
(async () => pipe((await pipe("cut off", new CompressionStream("gzip"))).slice(0, -3), new DecompressionStream("gzip")))()
(async () => { const b = await pipe("changed", new CompressionStream("gzip")); b[b.length - 6] ^= 1; return pipe(b, new DecompressionStream("gzip")) })()
(async () => { const b = await pipe("and more", new CompressionStream("deflate")); return pipe(new Uint8Array([...b, 1]), new DecompressionStream("deflate")) })()
(async () => { const c = new CompressionStream("gzip"); c.readable.getReader().read().catch(() => {}); await c.writable.getWriter().write("text") })()
""".strip().splitlines()  # noqa: E501  JavaScript

# What differs and stays so.
KNOWN = ("new Intl.",)  # there is no Intl

ASK = """
async function pipe(from, through, what) {
  const piped = new Response(new Response(from).body.pipeThrough(through));
  const made = new Uint8Array(await piped.arrayBuffer());
  const text = () => new TextDecoder().decode(made);
  return what === "length" ? text().length : what === "text" ? text() : made;
}
async function all(cases) {
  const out = [];
  for (const make of cases) {
    try { out.push((await make()) ?? null) } catch (error) { out.push(`! ${error.name}`) }
  }
  return out;
}
"""


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("platform")) as made:
        yield made


def test_a_guest_shows_a_script_what_node_does(shop, tmp_path):
    node = shutil.which("node")
    assert node is not None  # npm is there
    cases = ",\n".join(f"async () => ({line})" for line in CASES)
    script = tmp_path / "cases.mjs"
    script.write_text(f"{ASK}\nconsole.log(JSON.stringify(await all([{cases}])))")
    theirs = subprocess.run([node, script], check=True, capture_output=True, timeout=300).stdout
    app = shop.start(worker(f"return Response.json(await all([{cases}]))", ASK))
    answers = zip(CASES, json.loads(app.text()), json.loads(theirs), strict=True)
    differ = [(case, mine, other) for case, mine, other in answers if mine != other]
    assert [one for one in differ if not one[0].startswith(KNOWN)] == []


def test_what_is_not_compressed_right_is_a_type_error(shop):
    cases = ",\n".join(f"async () => ({line})" for line in NOT_COMPRESSED)
    app = shop.start(worker(f"return Response.json(await all([{cases}]))", ASK))
    assert json.loads(app.text()) == ["! TypeError"] * len(NOT_COMPRESSED)
