"""`hashlib.pbkdf2_hmac` and `scrypt` for guests, which have no OpenSSL of their own.

In Python they take seconds. They take long here too, so they run in a thread, one for each tenant
at a time, and their CPU is the guest's. A frame is JSON; bytes in it are base64. See
`guest/isopod_digests.py`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

from isopod.errors import GuestProtocolError

MAX_ITERATIONS = 10_000_000
MAX_SCRYPT_BYTES = 256 << 20
_MAX_KEY = 1 << 10
_MAX_DATA = 1 << 20
_THREADS = 2
_PBKDF2_HASHES = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512", "md5"})


class Digests:
    """A worker's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="digest")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, frame: bytes, *, tenant: str, charge: Callable[[int], None]) -> bytes:
        """\\0 and the key, or \\1 and what is wrong. `charge` gets the CPU in nanoseconds."""
        try:
            derive = _derivation(json.loads(frame))
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
                return f"\1{error}".encode()
            raise GuestProtocolError("the guest sent a derivation that is none") from error

        def timed() -> tuple[bytes, int]:
            began = time.thread_time_ns()
            try:
                answer = b"\0" + derive()
            except (ValueError, OverflowError, MemoryError) as error:
                answer = f"\1{error}".encode()
            return answer, time.thread_time_ns() - began

        turn = self._turns.get(tenant)
        if turn is None:
            turn = self._turns[tenant] = asyncio.Lock()
        await turn.acquire()
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._threads, timed)
        # Also when the guest is ended meanwhile: the thread goes on.
        done.add_done_callback(lambda _: turn.release())
        # Also its CPU.
        done.add_done_callback(lambda one: None if one.cancelled() else charge(one.result()[1]))
        answer, _ = await asyncio.shield(done)
        return answer


def _derivation(body: Any) -> Callable[[], bytes]:
    """Raises ValueError for what the guest's caller may ask and does not get."""
    password, salt = _bytes(body["password"]), _bytes(body["salt"])
    length = int(body["length"])
    if not 1 <= length <= _MAX_KEY:
        raise ValueError(f"isopod: a derived key has 1 to {_MAX_KEY} bytes")
    if body["kind"] == "pbkdf2":
        name, iterations = str(body["hash"]), int(body["iterations"])
        if name not in _PBKDF2_HASHES:
            raise ValueError(f"unsupported hash type {name[:40]}")
        if not 1 <= iterations <= MAX_ITERATIONS:
            raise ValueError(f"isopod: pbkdf2_hmac makes 1 to {MAX_ITERATIONS:,} iterations")
        if -(-length // hashlib.new(name).digest_size) * iterations > MAX_ITERATIONS:
            raise ValueError(f"isopod: pbkdf2_hmac makes {MAX_ITERATIONS:,} iterations in all")
        return lambda: hashlib.pbkdf2_hmac(name, password, salt, iterations, length)
    if body["kind"] != "scrypt":
        raise KeyError("kind")
    n, r, p = int(body["n"]), int(body["r"]), int(body["p"])
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise ValueError("n must be a power of 2, r and p at least 1")
    if 128 * n * r * max(p, 1) > MAX_SCRYPT_BYTES:
        raise ValueError(f"isopod: scrypt works on {MAX_SCRYPT_BYTES >> 20} MiB at most")
    return lambda: hashlib.scrypt(
        password, salt=salt, n=n, r=r, p=p, maxmem=MAX_SCRYPT_BYTES + (4 << 20), dklen=length
    )


def _bytes(text: Any) -> bytes:
    data = base64.b64decode(str(text), validate=True)
    if len(data) > _MAX_DATA:
        raise ValueError(f"isopod: a password or salt has at most {_MAX_DATA >> 20} MiB")
    return data
