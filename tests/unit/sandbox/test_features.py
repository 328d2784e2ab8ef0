import json
from dataclasses import replace

from isopod.sandbox.features import NAMESPACES, Features, probe


def test_what_the_kernel_offers_survives_json():
    found = probe()
    assert Features.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert set(found.namespaces) == set(NAMESPACES)


def test_asking_changes_nothing():
    assert probe() == probe()


def test_a_kernel_that_has_everything_lacks_nothing(everything):
    assert everything.missing() == []


def test_each_thing_that_is_missing_is_named_with_its_reason_and_its_effect(everything):
    poor = replace(
        everything,
        seccomp=False,
        landlock_abi=0,
        landlock_why="it was disabled at boot (lsm=)",
        no_new_privs=False,
        namespaces=dict.fromkeys(NAMESPACES, "operation not permitted"),
    )
    missing = poor.missing()
    names = [f"{name} namespace" for name in NAMESPACES]
    assert [one.what for one in missing] == ["seccomp", "landlock", "no_new_privs", *names]
    assert all(one.why and one.effect for one in missing)
    assert "disabled at boot" in str(missing[1])


def test_a_missing_library_is_told_apart_from_a_missing_kernel_feature(everything):
    (missing,) = replace(everything, libseccomp="").missing()
    assert missing.what == "libseccomp"
    assert "install" in missing.why


def test_an_old_landlock_lacks_what_later_versions_brought(everything):
    missing = [one.what for one in replace(everything, landlock_abi=3).missing()]
    assert missing == [
        "landlock: TCP bind and connect",
        "landlock: device ioctls",
        "landlock: signals and abstract sockets",
    ]
    assert replace(everything, landlock_abi=6).missing() == []
