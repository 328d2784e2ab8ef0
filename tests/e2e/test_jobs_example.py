"""The example of an app with jobs, deployed as it is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.nodes import get, messages, until

from tools.node import Node

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flask-jobs"


def test_the_example_checks_itself_and_reports(node: Node) -> None:
    node.cli("deploy", str(EXAMPLE), "--name", "flask-jobs")
    assert "deploy report for team@example.com" in messages(node, "flask-jobs")
    node.cli("jobs", "run", "flask-jobs", "check")
    node.cli("jobs", "run", "flask-jobs", "report")
    report, check = json.loads(node.cli("jobs", "runs", "flask-jobs", "--json"))
    assert (report["outcome"], check["outcome"], check["status"]) == ("ok", "ok", 200)
    assert "checked at 20" in messages(node, "flask-jobs", check["request_id"])
    assert messages(node, "flask-jobs", report["request_id"]).startswith("daily report for team@")
    assert get(node, "flask-jobs", "/jobs/check", X_Isopod_Job="check").status in (404, 405)
    listed = json.loads(node.cli("jobs", "list", "flask-jobs", "--json"))
    assert [one["schedule"] for one in listed] == ["*/5 * * * *", "0 6 * * MON-FRI"]
    until("an instance answers", lambda: get(node, "flask-jobs").status == 200)
