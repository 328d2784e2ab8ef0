from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.room import LONG_IDLE_S, Held, Need, may_take, to_end

TENANTS = st.sampled_from(["a", "b", "c", "d"])
HELD = st.lists(
    st.builds(
        Held,
        id=st.uuids().map(str),
        tenant=TENANTS,
        idle_s=st.none() | st.floats(0, 100),
        size=st.integers(0, 1000),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)
NEEDS = st.builds(Need, tenant=TENANTS, size=st.integers(0, 1000)) | st.just(Need())
ROOM = st.integers(1, 6000)


def parts(held, need: Need, room: int) -> tuple[Counter, float]:
    has: Counter = Counter()
    for one in held:
        has[one.tenant] += one.size
    return has, room / max(1, len({*has, need.tenant} - {""}))


@given(HELD, NEEDS, ROOM, st.integers(0, 2000), st.booleans())
def test_what_ends_is_enough_and_no_more(held, need, room, unseen, may_end_busy):
    used = sum(one.size for one in held) + unseen
    chosen = to_end(held, need, used=used, room=room, may_end_busy=may_end_busy)
    if chosen is None:
        return
    assert len(set(chosen)) == len(chosen)
    sizes = {one.id: one.size for one in held}
    freed = [sizes[one] for one in chosen]
    assert used + need.size - sum(freed) <= room
    if chosen:
        assert used + need.size - sum(freed[:-1]) > room


@given(HELD, NEEDS, ROOM, st.integers(0, 2000), st.booleans())
def test_nothing_busy_ends_for_one_above_its_part_nor_of_one_within(
    held, need, room, unseen, may_end_busy
):
    used = sum(one.size for one in held) + unseen
    chosen = to_end(held, need, used=used, room=room, may_end_busy=may_end_busy) or []
    has, part = parts(held, need, room)
    modest = not need.tenant or has[need.tenant] + need.size <= part
    for one in held:
        if one.id not in chosen:
            continue
        if one.idle_s is None:
            assert may_end_busy and modest and has[one.tenant] > part
        elif not modest and one.tenant != need.tenant and has[one.tenant] <= part:
            assert one.idle_s >= LONG_IDLE_S


@given(HELD, ROOM)
def test_one_within_its_part_gets_room_if_the_guests_are_all_there_is(held, room):
    """What is in use is what the guests hold: then someone is above, and gives way."""
    held = [one for one in held if one.tenant != "d"]
    used = sum(one.size for one in held)
    _, part = parts(held, Need("d", 1), room)
    need = Need("d", int(part))
    chosen = to_end(held, need, used=used, room=room, may_end_busy=True)
    idle_only = to_end(held, need, used=used, room=room, may_end_busy=False)
    assert chosen is not None
    if idle_only is not None:
        assert chosen == idle_only  # nothing busy ends where idle ones are enough


@given(HELD, ROOM)
def test_with_one_tenant_the_least_recently_used_end_first(held, room):
    held = [Held(one.id, "a", one.idle_s, one.size) for one in held]
    used = sum(one.size for one in held)
    chosen = to_end(held, Need("a", 10), used=used, room=room, may_end_busy=True)
    idle = {one.id: one.idle_s for one in held if one.idle_s is not None}
    if chosen is None:
        assert used + 10 - sum(one.size for one in held if one.id in idle) > room
        return
    ended = [idle[one] for one in chosen if one in idle]
    assert ended == sorted(ended, reverse=True)
    kept = [idle_s for one, idle_s in idle.items() if one not in chosen]
    assert all(idle_s <= ended[-1] for idle_s in kept if ended)


def test_one_tenant_never_has_all_places():
    taken = 0
    while may_take(taken, taken, 900):
        taken += 1
    assert taken == 800
    assert may_take(0, taken, 900)
    assert not may_take(0, 900, 900)
