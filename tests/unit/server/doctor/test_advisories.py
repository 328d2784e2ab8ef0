import tomllib

import pytest
from packaging.version import Version

from isopod.server.doctor.advisories import TABLE, check_versions, load
from isopod.server.doctor.check import worst
from isopod.server.doctor.installed import installed_versions

ENTRY = """
[[advisory]]
id = "TEST-1"
package = "wasmtime"
where = "node"
affected = ["<1.0", ">=2,<2.3"]
fixed = "1.0, 2.3"
severity = "high"
published = "2026-01-01"
title = "an escape"
source = "https://example.org/TEST-1"
reached = "yes"
why = "a guest may try"
"""


@pytest.fixture
def planted(tmp_path):
    """Check versions against a table that holds this."""

    def check(text: str = ENTRY, version: str = "2.1", machine: str = "x86_64"):
        path = tmp_path / "advisories.toml"
        path.write_text(text)
        return check_versions(load(path), {("node", "wasmtime"): version}, machine=machine)

    return check


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        *(("0.9", True), ("1.0", False), ("1.9", False), ("2.0", True), ("2.2.9", True)),
        *(("2.3", False), ("2.1b1", True), ("2.3rc1", False), ("2.1+ours", True)),
    ],
)
def test_a_version_is_held_against_its_ranges(planted, version, affected):
    found = planted(version=version)
    assert [check.name for check in found] == ["table", *(["TEST-1"] if affected else [])]


@pytest.mark.parametrize(
    ("severity", "reached", "status"),
    [
        ("critical", "yes", "problem"),
        ("high", "yes", "problem"),
        ("medium", "yes", "warning"),
        ("low", "yes", "warning"),
        ("critical", "unknown", "warning"),
        ("critical", "no", "ok"),
    ],
)
def test_what_is_grave_and_reached_is_a_problem(planted, severity, reached, status):
    text = ENTRY.replace('"high"', f'"{severity}"').replace('"yes"', f'"{reached}"')
    (_, check) = planted(text)
    assert check.status == status == worst([check])
    assert "an escape" in check.text and "https://example.org/TEST-1" in check.advice


def test_an_advisory_of_another_machine_or_package_is_left_out(planted):
    assert len(planted(ENTRY + 'machine = ["aarch64"]\n')) == 1
    assert len(planted(ENTRY + 'machine = ["aarch64"]\n', machine="aarch64")) == 2
    assert len(planted(ENTRY.replace('"wasmtime"', '"granian"'))) == 1


def test_a_version_that_nobody_can_read_is_told(planted):
    assert len(planted(version="ours")) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('severity = "high"', 'severity = "bad"'),
        ('reached = "yes"', 'reached = "maybe"'),
        ('source = "https://example.org/TEST-1"', 'source = "a friend"'),
        ('affected = ["<1.0", ">=2,<2.3"]', 'affected = ["before 2"]'),
    ],
)
def test_a_table_that_says_something_else_is_refused(planted, old, new):
    with pytest.raises(ValueError):
        planted(ENTRY.replace(old, new))


def test_an_advisory_is_there_once(planted):
    with pytest.raises(ValueError, match="twice"):
        planted(ENTRY + ENTRY)


def test_every_entry_of_our_table_can_be_read_and_its_fixes_are_outside_its_ranges():
    table = load(TABLE)
    assert len(table) == len(tomllib.loads(TABLE.read_text())["advisory"]) > 30
    for one in table:
        assert one.why and one.title and one.published < "2026-11-22", one.id
        for fixed in one.fixed.split(", "):
            if fixed[0].isdigit():
                machine = one.machine[0] if one.machine else "x86_64"
                assert not one.affects(Version(fixed), machine), (one.id, fixed)


def test_what_is_installed_here_is_told(prepared_cache):
    found, checks = installed_versions()
    assert found["node", "wasmtime"] == "49.0.0"
    assert found["runtime", "cpython"].startswith("3.15") and ("runtime", "numpy") in found
    assert [check.status for check in checks] == ["ok"]
    told = {check.name for check in check_versions(load(TABLE), found, machine="x86_64")}
    assert {"GHSA-m9f7-9w4p-gv38", "RUSTSEC-2026-0314"} <= told  # 49.0.0 has them
    assert "RUSTSEC-2026-0269" not in told
