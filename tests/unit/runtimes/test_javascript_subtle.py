"""crypto.subtle in real guests: the same answers as Node's, and errors that apps can catch."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import GuestProtocolError
from isopod.runtimes.javascript import items
from isopod.runtimes.javascript.subtle import Subtle

# What has one right answer: run here and by Node.
SAME = r"""
async function same() {
  const { subtle } = crypto;
  const hex = (data) => [...new Uint8Array(data)].map((b) => b.toString(16).padStart(2, "0")).join("");
  const text = (value) => new TextEncoder().encode(value);
  const out = [];
  const tell = (name, value) => out.push([name, value]);
  const fails = async (name, make) => {
    try { await make(); tell(name, "no error"); } catch (error) { tell(name, error.name); }
  };
  const big = new Uint8Array(300_000).map((_, at) => at * 7);
  for (const name of ["SHA-1", "sha-256", { name: "SHA-384" }, "SHA-512"]) {
    for (const data of [new Uint8Array(0), text("abc"), big, big.buffer.slice(5, 70_000), new DataView(big.buffer, 3, 9)]) {
      tell("digest", hex(await subtle.digest(name, data)));
    }
  }
  await fails("md5", () => subtle.digest("MD5", big));
  await fails("no buffer", () => subtle.digest("SHA-1", "text"));

  const hmac = { name: "HMAC", hash: "SHA-256" };
  const secret = await subtle.importKey("raw", text("secret"), hmac, true, ["sign", "verify"]);
  const tag = await subtle.sign("HMAC", secret, big);
  tell("hmac", [hex(tag), secret.type, secret.extractable, secret.usages, secret.algorithm]);
  tell("hmac ok", await subtle.verify("hmac", secret, tag, big));
  tell("hmac bad", await subtle.verify("HMAC", secret, tag, text("other")));
  tell("hmac short", await subtle.verify("HMAC", secret, tag.slice(1), big));
  tell("hmac jwk", await subtle.exportKey("jwk", secret));
  const locked = await subtle.importKey("jwk", { kty: "oct", k: "c2VjcmV0", alg: "HS512" }, { name: "HMAC", hash: "SHA-512" }, false, ["sign"]);
  tell("from jwk", hex(await subtle.sign("HMAC", locked, text("x"))));
  await fails("locked", () => subtle.exportKey("raw", locked));
  await fails("not for it", () => subtle.verify("HMAC", locked, tag, big));
  await fails("another algorithm", () => subtle.sign("Ed25519", secret, big));
  await fails("no usage", () => subtle.importKey("raw", text("x"), hmac, true, []));
  await fails("bad usage", () => subtle.importKey("raw", text("x"), hmac, true, ["encrypt"]));
  await fails("bad jwk", () => subtle.importKey("jwk", { kty: "EC" }, hmac, true, ["sign"]));

  for (const name of ["AES-GCM", "AES-CBC"]) for (const size of [16, 32]) {
    const key = await subtle.importKey("raw", big.slice(1, 1 + size), name, true, ["encrypt", "decrypt"]);
    const how = { name, iv: big.slice(9, name === "AES-GCM" ? 21 : 25) };
    if (name === "AES-GCM") how.additionalData = text("also");
    for (const data of [text(""), text("sixteen bytes, 1"), big]) {
      const sealed = await subtle.encrypt(how, key, data);
      tell("sealed", [sealed.byteLength, hex(await subtle.digest("SHA-1", sealed))]);
      tell("opened", hex(await subtle.digest("SHA-1", await subtle.decrypt(how, key, sealed))));
      if (name === "AES-GCM") {
        const short = await subtle.encrypt({ ...how, tagLength: 96 }, key, data);
        tell("short", hex(short.slice(-12)));
        tell("short", (await subtle.decrypt({ ...how, tagLength: 96 }, key, short)).byteLength);
        new Uint8Array(sealed)[0] ^= 1;
        await fails("changed", () => subtle.decrypt(how, key, sealed));
        await fails("too short", () => subtle.decrypt(how, key, sealed.slice(0, 9)));
        await fails("a tag of 5", () => subtle.encrypt({ ...how, tagLength: 40 }, key, data));
      }
    }
    tell("aes jwk", await subtle.exportKey("jwk", key));
  }
  await fails("aes 15", () => subtle.importKey("raw", big.slice(0, 15), "AES-GCM", true, ["encrypt"]));

  for (const [namedCurve, hash] of [["P-256", "SHA-256"], ["P-384", "SHA-512"], ["P-521", "SHA-384"]]) {
    const how = { name: "ECDSA", namedCurve, hash };
    const pair = await subtle.generateKey(how, true, ["sign", "verify"]);
    const signature = await subtle.sign(how, pair.privateKey, big);
    tell("ecdsa", [signature.byteLength, pair.privateKey.usages, pair.publicKey.usages, pair.publicKey.algorithm]);
    tell("ecdsa ok", await subtle.verify(how, pair.publicKey, signature, big));
    tell("ecdsa bad", await subtle.verify(how, pair.publicKey, signature, text("x")));
    tell("ecdsa half", await subtle.verify(how, pair.publicKey, signature.slice(1), big));
    for (const [format, from] of [["raw", pair.publicKey], ["spki", pair.publicKey], ["jwk", pair.publicKey], ["pkcs8", pair.privateKey], ["jwk", pair.privateKey]]) {
      const data = await subtle.exportKey(format, from);
      const again = await subtle.importKey(format, data, how, true, from.usages);
      tell("again", [format, again.type, data.byteLength ?? Object.keys(data).sort()]);
      const proof = again.type === "private" ? await subtle.sign(how, again, big) : signature;
      tell("again ok", await subtle.verify(how, again.type === "public" ? again : pair.publicKey, proof, big));
    }
    await fails("private as raw", () => subtle.exportKey("raw", pair.privateKey));
    await fails("another curve", async () => subtle.importKey("pkcs8", await subtle.exportKey("pkcs8", pair.privateKey), { name: "ECDSA", namedCurve: namedCurve === "P-256" ? "P-384" : "P-256" }, true, ["sign"]));
  }
  await fails("no point", () => subtle.importKey("raw", big.slice(0, 65), { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"]));
  await fails("no pkcs8", () => subtle.importKey("pkcs8", big, { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]));
  await fails("no curve", () => subtle.generateKey({ name: "ECDSA", namedCurve: "P-1" }, true, ["sign"]));

  // RFC 8032, 7.1, test 2
  const d = "TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs";
  const x = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";
  const key = await subtle.importKey("jwk", { kty: "OKP", crv: "Ed25519", d, x }, "Ed25519", true, ["sign"]);
  const open = await subtle.importKey("jwk", { kty: "OKP", crv: "Ed25519", x }, "Ed25519", true, ["verify"]);
  const signed = await subtle.sign("Ed25519", key, Uint8Array.of(0x72));
  tell("ed25519", hex(signed));
  tell("ed25519 ok", await subtle.verify("Ed25519", open, signed, Uint8Array.of(0x72)));
  tell("ed25519 bad", await subtle.verify("Ed25519", open, signed, big));
  for (const [format, from] of [["raw", open], ["spki", open], ["pkcs8", key], ["jwk", key]]) {
    const data = await subtle.exportKey(format, from);
    delete data.alg; // older Nodes give none
    tell("ed25519 out", data.byteLength ? hex(data) : data);
    tell("ed25519 in", (await subtle.importKey(format, data, "Ed25519", true, from.usages)).type);
  }
  const aes = await subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]);
  tell("generated", [aes.type, aes.algorithm, (await subtle.exportKey("raw", aes)).byteLength]);
  const made = await subtle.generateKey({ name: "HMAC", hash: "SHA-384" }, true, ["sign"]);
  tell("generated", (await subtle.exportKey("raw", made)).byteLength);
  tell("tags", [String(aes), String(subtle), aes instanceof CryptoKey]);
  return out;
}
"""  # noqa: E501  JavaScript


@pytest.fixture(scope="module")
def shop(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("subtle")) as made:
        yield made


def test_it_answers_as_nodes_does(shop, tmp_path):
    node = shutil.which("node")
    assert node is not None  # npm is there
    script = tmp_path / "same.mjs"
    script.write_text(f"{SAME}\nconsole.log(JSON.stringify(await same()))")
    theirs = subprocess.run([node, script], check=True, capture_output=True, timeout=300).stdout
    app = shop.start(worker("return Response.json(await same())", SAME))
    ours = json.loads(app.text())
    assert [name for name, value in ours if value == "no error"] == []
    # Node 20 has a name of its own for it.
    theirs = theirs.replace(b"InvalidAccessException", b"InvalidAccessError")
    both = zip(ours, json.loads(theirs), strict=True)
    assert [(mine, other) for mine, other in both if mine != other] == []


def test_signatures_are_what_others_verify(shop):
    app = shop.start(
        worker(
            """
            const how = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
            const { privateKey, publicKey } = await crypto.subtle.generateKey(how, false, ["sign"]);
            const data = new TextEncoder().encode("signed here");
            const text = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)));
            return Response.json([text(await crypto.subtle.exportKey("raw", publicKey)),
                                  text(await crypto.subtle.sign(how, privateKey, data))]);
            """
        )
    )
    point, signature = (base64.b64decode(one) for one in json.loads(app.text()))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    numbers = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    encoded = utils.encode_dss_signature(*numbers)
    key.verify(encoded, b"signed here", ec.ECDSA(hashes.SHA256()))


def test_a_key_that_is_made_before_a_snapshot_makes_the_image_private(shop):
    made = 'await crypto.subtle.generateKey("Ed25519", true, ["sign"]);'
    assert shop.snapshot(worker("return new Response('x')", made)).private
    digest = 'await crypto.subtle.digest("SHA-256", new Uint8Array(9));'
    assert not shop.snapshot(worker("return new Response('x')", digest)).private


@pytest.mark.parametrize(
    "frame",
    [b"", b"\2", b"\1", b"\1\0", b"\1\1\xff\xff\xff\xff", b"\3\1\3\0\0\0abc", b"\3\11",
     b"\3\1\6\0\0\0digest", b"\3\2\14\0\0\0key-generate\5\0\0\0P-256data"],
    ids=lambda frame: frame.hex()[:20],
)  # fmt: skip
def test_an_operation_that_is_none_ends_the_guest(frame):
    with pytest.raises(GuestProtocolError):
        Subtle().call(frame)


def test_only_the_last_operation_of_a_frame_is_computed(shop):
    app = shop.start(worker("return new Response('x')"))
    kind = b"\3\2\14\0\0\0key-generate\5\0\0\0P-521"
    answers = []
    app.guest._subtle.call = lambda data: answers.append(data) or b""
    app.guest._take(items.pack(b"y", 0, kind) * 1000)
    assert len(answers) == 1
