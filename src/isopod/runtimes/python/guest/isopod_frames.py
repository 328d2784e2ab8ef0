"""The request protocol, guest side: bytes in, bytes out, over one host call.

Guest to host, first byte: Q ready for the first request | B read the request body (u32 at most)
| H response head and first bytes, more follow | D more bytes | E end | S head and whole body
| X the app failed (traceback) | L a line of output | R why it could not start, or a report
| C the settings of a restored instance | I addresses of objects that live for ever
| N a socket's operation | T one of TLS | K a key derivation (see isopod_socket, _ssl, _digests).
The reply to Q, E, S and X is the next request; an empty one means: end.

The host trusts nothing that comes from here; these checks only make mistakes easy to find.
"""

import _host

call = _host.call
CHUNK = 256 * 1024
OUTPUT_CHUNK = 32 * 1024  # the host takes no larger piece of output

# Header name, as on the wire -> its key in a WSGI environ. Bounded: names come from clients.
_keys = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def environ_key(name):
    key = _keys.get(name)
    if key is None:
        key = "HTTP_" + name.upper().replace("-", "_")
        if len(_keys) < 500:
            _keys[name] = key
    return key


def response(op, status, headers, body):
    """A head is latin-1 lines: the status, then name:value."""
    lines = [status]
    for name, value in headers:
        lines.append(name + ":" + value)
    head = "\n".join(lines).encode("latin-1")
    return op + len(head).to_bytes(4, "little") + head + body


def chunks(body, size=CHUNK):
    view = memoryview(body)
    for start in range(0, len(view), size):
        yield bytes(view[start : start + size])


def failure(error):
    """An X or R frame's text: kind, one line of summary, the traceback."""
    import traceback

    kind = "memory" if isinstance(error, MemoryError) else "app"
    try:
        text = "".join(traceback.format_exception(error))
        summary = f"{type(error).__name__}: {error}"
    except MemoryError:
        text = summary = "MemoryError"
    except Exception as other:
        text = summary = f"{type(error).__name__} (and its text failed: {type(other).__name__})"
    summary = " ".join(summary.split())[:500]
    return kind, summary, text


def log(stream, data):
    """One piece of output; stream is b"o" or b"e"."""
    for part in chunks(data, OUTPUT_CHUNK):
        call(b"L" + stream + part)
