"""The request protocol, guest side: bytes in, bytes out, over one host call.

Guest to host, first byte: Q ready for the first request | B read the request body (u32 at most)
| H response head and first bytes, more follow | D more bytes | E end | S head and whole body
| X the app failed (traceback) | L a line of output | R why it could not start, or a report
| C the settings of a restored instance | I addresses of objects that live for ever
| N a socket's operation | T one of TLS | K a key derivation (see isopod_socket, _ssl, _digests).
The reply to Q, E, S and X is the next request; an empty one means: end.

A guest that serves many exchanges at once (ASGI) says everything about them in one call, W: u32
milliseconds to wait at most (0xffffffff: for ever), u16 count of the sockets that it waits for,
those (u32 number, u8 mask: 1 to read, 2 to write), then items. Its answer is items too, none when
the time is over. An item is a byte, u32 exchange, u32 length, and so many bytes:

From the guest: S H D E X as above | F the exchange is over: the app has done everything for it
| B wants a piece of the body (u32 at most), or the next message of its WebSocket
| A takes the WebSocket (latin-1 lines: subprotocol, then name:value) | T a text message, in UTF-8
| M a binary message | Z closes (u16 code, reason in UTF-8); before A it refuses with 403, as a
response does with what that says | P attaches to the WebSocket what its next instance is given
(at most ATTACHMENT bytes).

From the host: r a request | w a WebSocket (a request frame; a last line that begins with a colon
says that it was open before, and holds what was attached to it, in hex) | b a piece of the body
| e its end | t so many bytes of what was sent were taken (u32) | g the client is gone | c end it:
nobody wants it | m a text message | y a binary message | q its WebSocket was closed (u16 code,
reason in UTF-8)
| s a socket (its number in the exchange's place) is ready (u8 mask) | z no more requests: end.

At most WINDOW bytes of D, T and M may be on their way and not taken, but for the last of them. Its
output says whose it is: L, then O or E, then u32 exchange, then text. The first W says that it is
ready. A guest without exchanges is not run: its answer waits for the next one.

The host trusts nothing that comes from here; these checks only make mistakes easy to find.
"""

import _host

call = _host.call
CHUNK = 256 * 1024
WINDOW = 256 * 1024
ATTACHMENT = 2048
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
