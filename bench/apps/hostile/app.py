"""What a tenant might do to its neighbours, each by a path."""

MIB = 1 << 20


def cpu(_environ):
    while True:
        pass


def memory(_environ):
    held = []
    try:
        while True:
            held.append(bytearray(b"x") * (8 * MIB))
    except MemoryError:
        while True:  # and keeps it, until its deadline
            pass


def logs(_environ):
    while True:
        print("x" * 200)


def body(environ):
    size = 0
    while piece := environ["wsgi.input"].read(64 << 10):
        size += len(piece)
    return str(size)


def hello(_environ):
    return "hello\n"


PATHS = {"/cpu": cpu, "/memory": memory, "/logs": logs, "/body": body}


def app(environ, start_response):
    answer = PATHS.get(environ["PATH_INFO"], hello)(environ).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
