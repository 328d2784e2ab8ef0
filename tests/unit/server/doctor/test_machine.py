import os
import resource
import shutil
import time

import pytest

from isopod.sandbox.features import Features, probe
from isopod.server.doctor.check import worst
from isopod.server.doctor.examine import check_kernel, examine
from isopod.server.doctor.machine import check_limits, check_machine, open_files
from isopod.settings import NodeSettings

FILES = (1_000_000, 1_000_000)


@pytest.fixture
def proc(tmp_path):
    """As much of /proc as is looked at, with nothing to complain of."""
    values = {
        "sys/vm/max_map_count": "262144",
        "sys/vm/overcommit_memory": "0",
        "sys/kernel/core_pattern": "core",
        "swaps": "Filename Type Size Used Priority",
    }
    for name, text in values.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path / "proc"


@pytest.fixture
def settings(tmp_path):
    return NodeSettings.load(
        data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", memory_budget_mib=1024
    )


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_sound_machine_has_nothing_to_complain_of(proc):
    assert worst(check_limits(proc=proc, files=FILES)) == "ok"


@pytest.mark.parametrize(
    ("name", "file", "text", "status", "said"),
    [
        ("max_map_count", "sys/vm/max_map_count", "1000", "warning", "250 instances"),
        ("overcommit", "sys/vm/overcommit_memory", "2", "warning", "reserve"),
        ("core dumps", "sys/kernel/core_pattern", "|/usr/bin/keep %p", "warning", "program"),
        ("core dumps", "sys/kernel/core_pattern", "/var/crash/%p", "ok", "limit of 0"),
    ],
)
def test_each_limit_of_the_kernel_is_judged(proc, name, file, text, status, said):
    (proc / file).write_text(text)
    check = by_name(check_limits(proc=proc, files=FILES))[name]
    assert check.status == status and said in check.text
    assert bool(check.advice) == (status != "ok")


@pytest.mark.parametrize("name", ["max_map_count", "overcommit_memory"])
def test_what_cannot_be_read_is_a_warning_and_no_crash(proc, name):
    (proc / "sys/vm" / name).unlink()
    assert worst(check_limits(proc=proc, files=FILES)) == "warning"


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ((1024, 512), "problem"),
        ((1024, 4096), "warning"),
        ((1024, 1 << 20), "ok"),
        ((1024, resource.RLIM_INFINITY), "ok"),
    ],
)
def test_few_open_files_are_told(proc, limits, status):
    assert by_name(check_limits(proc=proc, files=limits))["open files"].status == status


def test_swap_could_hold_guests_memory(proc, settings, tmp_path):
    (proc / "swaps").write_text("Filename Type Size\n/dev/sda2 partition 8388604\n")
    check = by_name(check_machine(settings, proc=proc, cgroup=tmp_path, now=time.time()))["swap"]
    assert check.status == "warning" and "/dev/sda2" in check.text


def test_a_budget_above_the_control_groups_memory_is_a_problem(proc, settings, tmp_path):
    def memory(limit: str):
        (tmp_path / "memory.max").write_text(limit)
        checks = check_machine(settings, proc=proc, cgroup=tmp_path, now=time.time())
        return by_name(checks)["memory"].status

    assert memory(str(512 << 20)) == "problem"
    assert memory(str(4096 << 20)) == memory("max\n") == "ok"


def test_a_clock_that_was_set_back_is_a_problem(proc, settings, tmp_path):
    settings.data_dir.mkdir()
    settings.state_path.touch()

    def clock(now: float):
        return by_name(check_machine(settings, proc=proc, cgroup=tmp_path, now=now))["clock"]

    assert clock(time.time() - 3600).status == "problem"
    assert clock(time.time()).status != "problem"


def test_free_space_is_told_of_the_next_folder_that_exists(proc, settings, tmp_path):
    checks = by_name(check_machine(settings, proc=proc, cgroup=tmp_path, now=time.time()))
    free = shutil.disk_usage(tmp_path).free
    assert checks["disk (data)"].status == checks["disk (cache)"].status
    assert checks["disk (data)"].status != "problem" or free < 1 << 30
    assert f"at {tmp_path}" in checks["disk (data)"].text


def test_a_poor_kernel_is_a_problem_and_a_rich_one_is_not():
    ours = probe()
    rich = Features(
        kernel="9.9",
        no_new_privs=True,
        seccomp=True,
        libseccomp="2.5.5",
        landlock_abi=7,
        landlock_why="",
        namespaces=dict.fromkeys(ours.namespaces, ""),
        last_capability=40,
        capabilities_held=0,
    )
    assert worst(check_kernel(rich)) == "ok"
    poor = Features.from_json(
        rich.to_json() | {"landlock_abi": 0, "landlock_why": "this kernel was built without it"}
    )
    found = by_name(check_kernel(poor))
    assert found["landlock"].status == "problem" and "built without" in found["landlock"].text
    lonely = Features.from_json(rich.to_json() | {"namespaces": {"user": "not permitted"}})
    assert by_name(check_kernel(lonely))["user namespace"].status == "warning"


def test_this_machine_is_examined(settings, prepared_cache):
    checks = examine(settings)
    assert [check.area for check in checks] == sorted(
        (check.area for check in checks),
        key=["versions", "advisories", "kernel", "files", "limits", "machine"].index,
    )
    assert {"installed", "table", "sandbox", "open files", "clock"} <= set(by_name(checks))
    assert all(check.text for check in checks)
    assert all(check.advice for check in checks if check.status == "problem")
    assert open_files()[0] > 0 and os.geteuid() >= 0
    assert not settings.data_dir.exists()  # it only looks
