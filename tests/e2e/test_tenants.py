"""Two tenants on one node, by the real command line and over HTTP, each with its own token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.nodes import get, hello, text, up

from tools.node import Node, command, environment


class Member:
    """Somebody who uses the node from elsewhere: by its address and a token, nothing else."""

    def __init__(self, node: Node, tenant: str, token: str) -> None:
        self.tenant, self.token = tenant, token
        env = environment(node.data_dir)
        del env["ISOPOD_DATA_DIR"]
        url = f"http://127.0.0.1:{node.control_port}"
        own = {"HOME": env["TMPDIR"], "XDG_CONFIG_HOME": env["TMPDIR"]}  # where a login is kept
        self._env = env | own | {"ISOPOD_URL": url, "ISOPOD_TOKEN": token}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(), *arguments],
            env=self._env,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def cli(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """The code of the error that a command must end with."""
        done = self.run(*arguments)
        assert done.returncode, done.stdout
        return done.stderr.partition("code: ")[2].split()[0]


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("tenants") / "data", workers=1) as node:
        yield node


def joined(node: Node, tenant: str, *scopes: str) -> Member:
    """A new tenant's first member, as the operator makes one."""
    node.cli("tenants", "create", tenant)
    node.cli("members", "add", "alice", "--tenant", tenant)
    asked = [word for scope in scopes for word in ("--scope", scope)]
    token = node.cli("tokens", "create", "--member", "alice", *asked, "--tenant", tenant).strip()
    assert token.startswith("ip_")
    return Member(node, tenant, token)


@pytest.fixture(scope="module")
def acme(own_node: Node) -> Member:
    return joined(own_node, "acme", "deploy", "read", "usage", "admin")


@pytest.fixture(scope="module")
def globex(own_node: Node) -> Member:
    return joined(own_node, "globex", "deploy", "read", "usage", "admin")


@pytest.fixture(scope="module")
def shops(own_node: Node, acme: Member, globex: Member, tmp_path_factory) -> None:
    """An app called shop of each of the two."""
    for member in (acme, globex):
        folder = hello(tmp_path_factory.mktemp(member.tenant) / "shop", f"of {member.tenant}")
        url = f"http://shop--{member.tenant}.localhost:{own_node.gateway_port}/\n"
        assert member.cli("deploy", str(folder), "--name", "shop") == url


def test_each_answers_at_its_own_address_and_the_first_at_the_plain_one_too(own_node, shops):
    assert text(own_node, "shop--acme") == text(own_node, "shop") == "of acme"
    assert text(own_node, "shop--globex") == "of globex"
    for nobody in ("shop--default", "shop--nobody", "shop--acme--acme"):
        assert get(own_node, nobody).status == 404


def test_each_sees_its_own_and_the_operator_chooses(own_node, acme, globex, shops):
    for member in (acme, globex):
        (app,) = json.loads(member.cli("apps", "--json"))
        assert (app["name"], app["tenant"]) == ("shop", member.tenant)
        assert text(own_node, f"shop--{member.tenant}") == f"of {member.tenant}"
        status = json.loads(member.cli("status", "--json"))
        assert {one["app"] for one in status["instance_list"]} <= {"shop"}
        assert len(status["apps"]) == 1
        shown = member.cli("status")
        assert f"tenant     {member.tenant}" in shown
        assert str(own_node.data_dir) not in shown
    assert own_node.json("apps") == []  # of the default tenant
    assert [app["tenant"] for app in own_node.json("apps", "--tenant", "globex")] == ["globex"]
    assert len(own_node.json("status")["apps"]) == 2


def test_what_is_anothers_is_told_like_what_is_nowhere(own_node, acme, globex, shops, tmp_path):
    acme.cli("deploy", str(hello(tmp_path / "plan", "secret")), "--name", "plan")
    for command_line in (("app",), ("logs",), ("sleep",), ("rollback",), ("delete", "--yes")):
        verb, *options = command_line
        said = [globex.run(verb, name, *options).stderr for name in ("plan", "none")]
        assert said[0].replace("plan", "none") == said[1], verb
        assert "app_not_found" in said[0]
    assert globex.refused("apps", "--tenant", "acme") == "tenant_not_found"
    assert globex.refused("tenants") == "forbidden"
    assert text(own_node, "plan") == "secret"


def test_a_token_does_what_its_scopes_say_until_it_is_revoked(own_node, acme, shops, tmp_path):
    made = json.loads(
        acme.cli("tokens", "create", "--member", "alice", "--scope", "read", "--json")
    )
    reader = Member(own_node, "acme", made["token"])
    said = reader.cli("login", f"http://127.0.0.1:{own_node.control_port}")
    assert "alice of tenant acme: read" in said
    assert "shop" in reader.cli("apps")
    assert reader.refused("deploy", str(hello(tmp_path / "app")), "--name", "x") == "forbidden"
    assert reader.refused("tokens") == "forbidden"
    assert made["id"] in acme.cli("tokens")
    acme.cli("tokens", "revoke", made["id"])
    assert reader.refused("apps") == "unauthorized"
    assert acme.refused("tokens", "revoke", made["token"]) == "usage"
    short = acme.cli("tokens", "create", "--member", "alice", "--scope", "read", "--expires", "1h")
    assert Member(own_node, "acme", short.strip()).cli("apps", "--json")


def test_a_member_who_leaves_takes_no_token_along(own_node, globex, shops):
    globex.cli("members", "add", "bob")
    token = globex.cli("tokens", "create", "--member", "bob", "--scope", "read").strip()
    bob = Member(own_node, "globex", token)
    assert "shop" in bob.cli("apps")
    assert "bob" in globex.cli("members")
    globex.cli("members", "remove", "bob")
    assert bob.refused("apps") == "unauthorized"


def test_the_audit_log_says_who_did_what_and_each_sees_its_own(own_node, acme, globex, shops):
    found = json.loads(globex.cli("audit", "--json"))
    assert {entry["tenant"] for entry in found} == {"globex"}
    deploy = next(entry for entry in found if entry["action"] == "app.deploy")
    assert (deploy["actor"], deploy["target"], deploy["outcome"]) == ("alice", "shop", "ok")
    assert deploy["address"] == "127.0.0.1"
    assert "app.deploy" in globex.cli("audit", "--since", "1h", "--limit", "50")
    assert globex.refused("audit", "--all-tenants") == "forbidden"
    everybody = own_node.json("audit", "--all-tenants")
    assert {"acme", "globex"} <= {entry["tenant"] for entry in everybody}


def test_the_operator_sets_suspends_and_ends_a_tenant(own_node, tmp_path):
    member = joined(own_node, "brief", "deploy", "read")
    member.cli("deploy", str(hello(tmp_path / "app", "of brief")), "--name", "brief-app")
    shown = own_node.json("tenants", "set", "brief", "--quota", "apps=1", "--cordon", "shared")
    assert shown["quota"]["apps"] == 1
    assert member.refused("deploy", str(hello(tmp_path / "two")), "--name", "two") == (
        "quota_exceeded"
    )
    own_node.cli("tenants", "suspend", "brief")
    assert member.refused("sleep", "brief-app") == "tenant_suspended"
    assert "brief-app" in member.cli("apps")
    own_node.cli("tenants", "resume", "brief")
    assert text(own_node, "brief-app") == "of brief"
    refused = own_node.run("tenants", "delete", "brief", "--yes")
    assert "tenant_in_use" in refused.stderr
    own_node.cli("tenants", "delete", "brief", "--yes", "--force")
    assert member.refused("apps") == "unauthorized"
    assert get(own_node, "brief-app").status == 404
    assert "name_taken" in own_node.run("tenants", "create", "brief").stderr
    assert "brief" not in [one["name"] for one in own_node.json("tenants")]
