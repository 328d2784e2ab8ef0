from dataclasses import replace

import pytest

from isopod.control.renewals import Kind, Ready, Renewals, is_outdated
from isopod.model.app import AppSpec, AppVersion, Build, Limits, Scaling, Startup
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import plain
from isopod.model.tenant import DEFAULT_TENANT, TenantName

T = DEFAULT_TENANT
NOW = {"python": Digest("a" * 64)}
BUILD = Build(Digest("1" * 64), Digest("2" * 64), Digest("3" * 64))
IMAGE = replace(plain(""), verdict="sound", image=Digest("9" * 64), runtime=NOW["python"])
BEFORE = replace(IMAGE, runtime=Digest("b" * 64))
SPEC = AppSpec(AppName("app"), "python", "app:app", {"KEY": "1"})


def version(snapshot=None, **changes) -> AppVersion:
    spec = replace(SPEC, **changes)
    return AppVersion(spec.name, 1, Digest("4" * 64), Digest("5" * 64), BUILD, spec, 1.0, snapshot)


@pytest.mark.parametrize(
    ("made", "outdated"),
    [
        (version(None), True),
        (version(BEFORE), True),
        (version(IMAGE), False),
        (version(plain("it must")), False),
        (version(BEFORE, startup=Startup(snapshot=False)), False),
        (version(BEFORE, runtime="unknown"), False),
    ],
)
def test_what_is_out_of_date(made, outdated):
    assert is_outdated(made, NOW, ()) is outdated


def test_an_image_that_is_lost_is_out_of_date():
    assert is_outdated(version(IMAGE), NOW, {IMAGE.image})


def test_only_names_and_scaling_do_not_matter_to_an_image():
    mine = Kind.of(version(), T)
    assert Kind.of(version(name=AppName("twin"), scaling=Scaling(idle_s=1)), T) == mine
    assert Kind.of(version(env={"KEY": "2"}), T).shape == mine.shape
    for changes in (
        {"env": {"OTHER": "1"}},
        {"entrypoint": "b:app"},
        {"startup": Startup(warmup=())},
        {"limits": Limits(memory_mib=64)},
    ):
        assert Kind.of(version(**changes), T).shape != mine.shape


def test_other_values_get_an_image_only_if_it_holds_none():
    mine, other = Kind.of(version(), T), Kind.of(version(env={"KEY": "2"}), T)
    for snapshot, shared in (
        (IMAGE, True),
        (replace(IMAGE, private=True), False),
        (plain("a value was wrong"), False),
    ):
        ready = Ready()
        ready.add(mine, snapshot)
        assert ready.find(mine) is snapshot
        assert (ready.find(other) is snapshot) is shared


def test_another_tenant_gets_no_image_of_this_one_however_alike_they_are():
    ready = Ready()
    ready.add(Kind.of(version(), T), IMAGE)
    assert ready.find(Kind.of(version(), T)) is IMAGE
    assert ready.find(Kind.of(version(), TenantName("acme"))) is None


def test_only_what_may_be_old_is_looked_at():
    renewals = Renewals(current=dict(NOW))
    renewals.look_at(version(IMAGE), T)
    renewals.doubt([])
    assert not renewals.asked.is_set()
    renewals.look_at(version(BEFORE), T)
    assert renewals.asked.is_set() and renewals.apps == {(T, "app")}
