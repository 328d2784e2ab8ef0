"""What a worker that was taken over puts in its folder leads control nowhere."""

import json
import os
from types import SimpleNamespace

import pytest

from isopod.control.log_files import log_paths, open_log
from isopod.control.log_keeping import forget_old_lines
from isopod.control.log_writing import say
from isopod.control.logs import Tail
from isopod.model.ids import AppName
from isopod.model.tenant import TenantName
from isopod.settings import NodeSettings

ACME, ZOO, APP = TenantName("acme"), TenantName("zoo"), AppName("a")


@pytest.fixture
def settings(tmp_path):
    settings = NodeSettings(data_dir=tmp_path)
    settings.logs_dir.mkdir()
    (settings.cordons_dir / ZOO / "logs").mkdir(parents=True)
    return settings


def test_a_link_in_place_of_a_log_is_neither_read_nor_written(settings, tmp_path):
    other = tmp_path / "others.jsonl"
    other.write_text(json.dumps({"at": 1.0, "message": "theirs"}) + "\n")
    _, log = log_paths(settings, ACME, APP)
    log.symlink_to(other)
    tail = Tail(log)
    assert list(tail.more()) == []
    say(SimpleNamespace(settings=settings, clock=lambda: 2.0), ACME, APP, "$(id)", version=1)
    assert other.read_text().count("\n") == 1
    log.unlink()
    log.write_text(json.dumps({"at": 1.0, "message": "ours"}) + "\n")
    assert [line["message"] for line in tail.more()] == ["ours"]
    log.unlink()
    log.symlink_to(log)
    assert list(tail.more()) == []
    tail.close()


def test_what_is_no_file_is_no_log_and_keeps_nobody_waiting(settings):
    _, log = log_paths(settings, ACME, APP)
    os.mkfifo(log)
    for append in (False, True):
        with pytest.raises(OSError, match=r"No such device|plain file"):
            open_log(log, append=append)
    assert list(Tail(log).more()) == []
    forget_old_lines(settings.logs_dir, 1.0, 0.0)


def test_a_tenants_own_worker_names_no_other_tenants_logs(settings):
    theirs = settings.cordons_dir / ZOO / "logs" / "a.jsonl"
    theirs.write_text("forged\n")
    assert log_paths(settings, ACME, APP)[1] == settings.logs_dir / "a.jsonl"
    assert log_paths(settings, ZOO, APP)[1] == theirs


def test_a_line_without_an_end_is_not_kept(settings):
    _, log = log_paths(settings, ACME, APP)
    with log.open("wb") as file:
        file.truncate(8 << 20)
    tail = Tail(log)
    assert list(tail.more()) == []
    assert len(tail._half) < 2 << 20
    with log.open("ab") as file:
        file.write(b"\n" + json.dumps({"message": "next"}).encode() + b"\n")
    assert [line["message"] for line in tail.more()] == ["next"]
    tail.close()


def test_what_control_says_of_an_app_that_never_prints_is_bounded_too(settings):
    older, log = log_paths(settings, ACME, APP)
    node = SimpleNamespace(settings=settings, clock=lambda: 2.0)
    say(node, ACME, APP, "first", version=1)
    with log.open("ab") as file:
        file.truncate(settings.log_mib << 20)
    say(node, ACME, APP, "second", version=1)
    say(node, ACME, APP, "third", version=1)
    assert older.stat().st_size == settings.log_mib << 20
    tail = Tail(log)
    assert [line["message"] for line in tail.more()] == ["second", "third"]
    tail.close()
