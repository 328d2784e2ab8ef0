"""Small modules that are much work for a compiler."""

from isopod.engine.sections import encode


def many_functions(count: int) -> bytes:
    """3 bytes of code each; 900,000 take a core some ten seconds."""

    def section(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + encode(len(body)) + body

    functions = section(3, encode(count) + bytes(count))
    code = section(10, encode(count) + b"\2\0\x0b" * count)
    return b"\0asm\1\0\0\0" + section(1, b"\1\x60\0\0") + functions + code
