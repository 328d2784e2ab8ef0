import socket

from isopod.server.sockets import bind_listener


def test_connections_do_not_wait_for_acknowledgements():
    with bind_listener("127.0.0.1", 0, option="--port") as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
