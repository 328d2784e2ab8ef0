import socket
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway import connections as module
from isopod.gateway.connections import (
    HASTY_S,
    QUIET_S,
    SILENT_S,
    Connection,
    ConnectionWatch,
    to_close,
)

CONNECTIONS = st.lists(
    st.builds(
        Connection,
        fd=st.integers(0, 10**6),
        address=st.sampled_from(["1.1.1.1", "2.2.2.2", "::1"]),
        received_bytes=st.sampled_from([0, 10, 24, 1000]),
        quiet_s=st.floats(0, 40),
    ),
    max_size=40,
    unique_by=lambda one: one.fd,
)


@given(CONNECTIONS, st.integers(1, 60), st.sampled_from([(), ("1.1.1.1",)]))
def test_only_what_is_silent_or_in_the_way_is_closed(connections, most, trusted):
    closed = to_close(connections, most=most, trusted=trusted)
    assert len(set(closed)) == len(closed)
    too_long = [one for one in connections if one.silent and one.quiet_s >= SILENT_S]
    assert set(too_long) <= set(closed)
    # No more than half of the places are freed by force.
    assert len(connections) - len(closed) >= min(most // 2, len(connections) - len(too_long))
    has = Counter(one.address for one in connections)
    for one in set(closed) - set(too_long):
        if one.silent:
            assert one.quiet_s >= HASTY_S
        else:
            assert one.quiet_s >= QUIET_S
            assert one.address not in trusted
            assert has[one.address] > most / 2 / len(has)


@given(CONNECTIONS, st.integers(1, 60))
def test_silent_ones_never_keep_others_out(connections, most):
    connections = [one for one in connections if one.silent and one.quiet_s >= HASTY_S]
    closed = to_close(connections, most=most, trusted=("1.1.1.1", "2.2.2.2", "::1"))
    assert len(connections) - len(closed) <= most // 2


@pytest.fixture
def listener():
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def test_the_kernel_tells_the_silent_from_the_others(listener, monkeypatch):
    """Real sockets of this process; both ends are in it, and only the accepted ones are ours."""
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    port = listener.getsockname()[1]
    watch = ConnectionWatch(port=port, most=4096, trusted=(), but=())
    with ExitStack() as held:
        clients = [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in "abc"]
        ours = [held.enter_context(listener.accept()[0]) for _ in clients]
        clients[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        clients[1].sendall(b"PRI * HTTP/2.0")
        assert ours[0].recv(100) and ours[1].recv(100)
        watch.look()
        assert (watch.open, watch.closed) == (1, 2)
        assert clients[1].recv(1) == clients[2].recv(1) == b""
        ours[0].sendall(b"still here")
        assert clients[0].recv(100) == b"still here"
        watch.look()
        assert watch.closed <= 4  # the same two, until their owner has closed them


def test_a_number_that_is_anothers_by_now_is_left_alone(listener):
    port = listener.getsockname()[1]
    with ExitStack() as held:
        client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
        ours = held.enter_context(listener.accept()[0])
        seen = Connection(ours.fileno(), "127.0.0.1", 0, 0.0)
        client.sendall(b"x" * 100)
        assert ours.recv(100)
        assert not module._close(seen, port)  # it has spoken since
        with Path("/dev/null").open() as other:
            assert not module._close(Connection(other.fileno(), "127.0.0.1", 0, 0.0), port)
        assert not module._close(Connection(10**6, "127.0.0.1", 0, 0.0), port)
        ours.sendall(b"y")
        assert client.recv(1) == b"y"
