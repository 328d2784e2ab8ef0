from isopod.control.refusals import Refusals
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName

ACME, GLOBEX = TenantName("acme"), TenantName("globex")


def member(tenant: TenantName, token_id: str) -> Principal:
    return Principal(name="alice", tenant=tenant, token_id=token_id)


def test_a_token_that_is_always_refused_leaves_one_entry_a_minute_which_counts_the_others():
    now = [0.0]
    refusals, alice = Refusals(clock=lambda: now[0]), member(ACME, "a")
    entered = 0
    for _ in range(86_400):
        now[0] += 1
        entered += refusals.refused(alice, "app.delete", "forbidden") is not None
    assert 1440 <= entered <= 1440 + 20
    now[0] += 60
    assert refusals.refused(alice, "app.sleep", "forbidden") == {"app.delete forbidden": 59}
    now[0] += 60
    assert refusals.refused(alice, "app.sleep", "forbidden") == {}  # told once


def test_what_one_token_floods_with_hides_nothing_of_another():
    refusals = Refusals(clock=lambda: 0.0)
    for _ in range(100):
        refusals.refused(member(ACME, "a"), "app.delete", "forbidden")
    assert refusals.refused(member(ACME, "b"), "app.delete", "forbidden") == {}
    assert refusals.refused(member(GLOBEX, "a"), "app.delete", "forbidden") == {}


def test_what_was_left_out_is_told_to_who_reads_and_to_no_other_tenant():
    now = [0.0]
    refusals, alice = Refusals(clock=lambda: now[0]), member(ACME, "a")
    for _ in range(23):
        refusals.refused(alice, "app.delete", "forbidden")
    assert refusals.due(ACME) == []  # reading writes no more than being refused
    now[0] += 60
    assert refusals.due(GLOBEX) == []
    assert refusals.due(ACME) == [(alice, {"app.delete forbidden": 3})]
    now[0] += 60
    assert refusals.due(None) == []


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("isopod.control.refusals._KEYS", 10)
    refusals = Refusals(clock=lambda: 0.0)
    for number in range(30):
        for _ in range(25):
            refusals.refused(member(ACME, str(number)), "app.delete", "forbidden")
    assert len(refusals._left_out) == 10
