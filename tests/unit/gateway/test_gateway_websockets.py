"""Who may open a WebSocket, when an instance may go, and what a client is told."""

import pytest

from isopod.errors import GuestFailed, NodeBusy, NodeDraining, Overloaded, QuotaExceeded, WorkerGone
from isopod.gateway.websocket import close_code
from isopod.gateway.websockets import may_hibernate, may_open


def test_one_tenant_never_has_all_places():
    open_now = 0
    while may_open(open_now, open_now, 900):
        open_now += 1
    assert open_now == 800
    assert may_open(0, open_now, 900)
    assert not may_open(0, 900, 900)


def test_an_instance_goes_only_when_all_that_it_has_rests():
    assert may_hibernate([5.0, 9.0], 2, keep_s=5.0)
    assert not may_hibernate([5.0, 4.9], 2, keep_s=5.0)
    assert not may_hibernate([5.0, None], 2, keep_s=5.0)
    assert not may_hibernate([5.0], 2, keep_s=5.0)  # a request, too


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuestFailed("x"), 1011),
        (NodeDraining("x"), 1012),
        (WorkerGone("x"), 1012),
        (Overloaded("x"), 1013),
        (NodeBusy("x"), 1013),
        (QuotaExceeded("x"), 1013),
    ],
)
def test_clients_are_told_whether_to_come_again(error, code: int):
    assert close_code(error) == code
