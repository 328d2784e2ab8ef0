import socket

import pytest

from isopod.errors import PortInUse, UsageError
from isopod.server.sockets import bind_listener


def test_port_zero_takes_a_free_port():
    with bind_listener("127.0.0.1", 0, option="--port") as listener:
        assert listener.getsockname()[1] > 0
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_named_with_the_option_that_chooses_another(shared):
    with socket.socket() as other:
        if shared:  # even if the other one would share it
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)) as caught:
            bind_listener("127.0.0.1", port, option="--control-port")
        assert "--control-port" in caught.value.hint


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_this_machines_is_refused(host):
    with pytest.raises(UsageError, match=host):
        bind_listener(host, 0, option="--port")


def test_a_port_whose_holder_is_ending_is_waited_for():
    import threading

    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    port = other.getsockname()[1]
    # Closed by another thread while bind_listener tries again and again.
    threading.Timer(0.1, other.close).start()
    bind_listener("127.0.0.1", port, option="--port", patience_s=30).close()
