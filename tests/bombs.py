"""Small modules that are much work for a compiler."""

from isopod.engine.sections import encode


def many_functions(count: int) -> bytes:
    """3 bytes of code each; 900,000 take a core some ten seconds."""

    def section(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + encode(len(body)) + body

    functions = section(3, encode(count) + bytes(count))
    code = section(10, encode(count) + b"\2\0\x0b" * count)
    return b"\0asm\1\0\0\0" + section(1, b"\1\x60\0\0") + functions + code


def one_long_function(number: int) -> bytes:
    """One function of 7 MB, which no second core helps with: ten seconds. Each `number` is
    another module."""

    def section(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + encode(len(body)) + body

    step = b"\x20\x00\x41" + encode(number % 64) + b"\x6c\x20\x00\x28\x02\x00\x6a\x21\x00"
    body = b"\x01\x01\x7f" + step * (7_600_000 // len(step)) + b"\x0b"
    code = section(10, encode(1) + encode(len(body)) + body)
    memory = section(5, b"\x01\x00\x01")
    return b"\0asm\1\0\0\0" + section(1, b"\1\x60\0\0") + section(3, b"\x01\x00") + memory + code
