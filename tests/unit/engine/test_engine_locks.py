"""What an instance remembers of its locks."""

from isopod.engine.locks import MAX_LOCKS, MadeLocks


def test_a_lock_that_was_not_made_here_is_anothers_until_it_is_made():
    locks, one = MadeLocks(), (3, b"db.lock")
    assert locks.is_anothers(one)
    locks.add(one)
    assert not locks.is_anothers(one)
    locks.discard(one)
    assert locks.is_anothers(one)


def test_a_guest_that_makes_locks_without_end_fills_nothing_and_loses_none():
    locks = MadeLocks()
    for number in range(MAX_LOCKS + 10):
        locks.add((3, b"%d.lock" % number))
    assert len(locks) == MAX_LOCKS
    assert not locks.is_anothers((3, b"%d.lock" % (MAX_LOCKS + 5)))
