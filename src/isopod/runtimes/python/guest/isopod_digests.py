"""hashlib.pbkdf2_hmac and scrypt by the host's OpenSSL: in Python they take seconds."""

import base64
import json

from isopod_frames import call


def _derive(**asked):
    answer = call(b"K" + json.dumps(asked).encode())
    if answer[0]:
        raise ValueError(answer[1:].decode())
    return answer[1:]


def _text(data):
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    return base64.b64encode(memoryview(data).tobytes()).decode()


def _sizes():
    import hashlib

    return lambda name: hashlib.new(name).digest_size


def pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
    if not isinstance(hash_name, str):
        raise TypeError("hash_name must be a str")
    name = hash_name.lower().replace("-", "")
    if iterations < 1:
        raise ValueError("iteration value must be greater than 0.")
    if dklen is None:
        dklen = _sizes()(name)
    elif dklen < 1:
        raise ValueError("key length must be greater than 0.")
    return _derive(
        kind="pbkdf2",
        hash=name,
        password=_text(password),
        salt=_text(salt),
        iterations=iterations,
        length=dklen,
    )


def scrypt(password, *, salt=None, n=None, r=None, p=None, maxmem=0, dklen=64):
    if salt is None or n is None or r is None or p is None:
        raise TypeError("salt, n, r and p are required")
    if maxmem and 128 * n * r + 128 * r * p > maxmem:
        raise ValueError("memory limit exceeded")
    return _derive(
        kind="scrypt", password=_text(password), salt=_text(salt), n=n, r=r, p=p, length=dklen
    )


def complete(hashlib):
    for function in (pbkdf2_hmac, scrypt):
        if not hasattr(hashlib, function.__name__):
            setattr(hashlib, function.__name__, function)
            function.__module__ = "hashlib"
