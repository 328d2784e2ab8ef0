"""The client against something that is no node: whoever mistook the address is told so."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from isopod.client import Client, NodeAddress
from isopod.errors import NodeUnreachable


@pytest.fixture
def stranger():
    """Another program's server: `answer` is its status and body, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = server.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        (404, b'{"error": "not found"}'),
        (404, b'{"error": ["not", "found"]}'),
        (502, b"<html>Bad Gateway</html>"),
        (200, b"<html>Welcome</html>"),
        (200, b'["a", "list"]'),
        (200, b"7"),
        (200, b"null"),
    ],
)
def test_an_answer_that_no_node_gives_is_told_with_its_address(stranger, answer):
    stranger.answer = answer
    url = f"http://127.0.0.1:{stranger.server_port}"
    with Client(NodeAddress(url, "t", "a test")) as client:
        for ask in (
            client.apps,
            client.whoami,
            lambda: list(client.logs("hello", since=0, limit=1, follow=False)),
        ):
            with pytest.raises(NodeUnreachable, match=f"'{url}/v1/.*no isopod node") as told:
                ask()
            assert told.value.hint


def test_an_object_without_what_was_asked_for_is_no_list(stranger):
    stranger.answer = (200, b'{"status": "ok"}')
    url = f"http://127.0.0.1:{stranger.server_port}"
    with (
        Client(NodeAddress(url, "t", "a test")) as client,
        pytest.raises(NodeUnreachable, match="no isopod node"),
    ):
        client.apps()
