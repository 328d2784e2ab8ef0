"""Takes more than it may have, of whatever the path names."""

import time

MIB = 1 << 20


def app(environ, start_response):
    what = environ["PATH_INFO"].strip("/")
    amount = int(environ["QUERY_STRING"] or 0)
    length = [("Content-Length", str(amount * MIB))] if what == "send" else []
    start_response("200 OK", [("Content-Type", "application/octet-stream"), *length])
    if what == "spin":
        end = time.monotonic() + amount / 1000
        while time.monotonic() < end:
            pass
    elif what == "sleep":
        time.sleep(amount / 1000)
    elif what == "stream":
        return (b"x" * (MIB // 4) for _ in range(4 * amount))
    elif what == "send":
        return [b"x" * (amount * MIB)]
    elif what == "flood":
        for number in range(amount):
            print(f"line {number}", "x" * 80)
    return [b"done"]
