"""Whose turn it is to have a module compiled."""

from isopod.server.fair_places import FairPlaces


def taken(places: FairPlaces[str]) -> list[str]:
    found = []
    while (one := places.take()) is not None:
        found.append(one[0])
    return found


def test_one_tenant_has_half_of_the_places_however_much_it_wants():
    places: FairPlaces[str] = FairPlaces(4)
    for number in range(10):
        assert places.add("hog", str(number))
    assert taken(places) == ["hog", "hog"]
    places.add("other", "x")
    assert places.take() == ("other", "x")


def test_the_last_free_place_is_for_who_has_none():
    places: FairPlaces[str] = FairPlaces(4)
    for _ in range(4):
        for owner in ("a", "b"):
            places.add(owner, "")
    assert taken(places) == ["a", "b", "a"]
    places.add("c", "")
    assert taken(places) == ["c"]


def test_who_has_fewer_goes_first_and_of_equals_who_waits_for_longest():
    places: FairPlaces[str] = FairPlaces(1)
    for _ in range(3):
        for owner in ("a", "b", "c"):
            places.add(owner, "")
    order = []
    while (one := places.take()) is not None:
        order.append(one[0])
        places.done(one[0])
    assert order == ["a", "b", "c"] * 3


def test_who_asks_for_too_much_is_refused_and_nobody_else():
    places: FairPlaces[str] = FairPlaces(1)
    assert [places.add("hog", "") for _ in range(65)].count(False) == 1
    assert places.add("other", "")
