"""The API's client, and how the command line finds its node.

Everything the command line does goes through here; an error of the server is raised as the same
class on this side. Answers are JSON objects as /v1/openapi.json describes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from isopod.errors import Forbidden, IsopodError, NodeNotRunning, NodeUnreachable, UsageError
from isopod.settings import ClientSettings

Json = dict[str, Any]
Params = Mapping[str, str | float | bool]
_CHUNK_BYTES = 256 * 1024
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_COPY_TIMEOUT = httpx.Timeout(None, connect=5.0)  # as long as the app needs to make a pause
_STREAM_TIMEOUT = httpx.Timeout(None, connect=5.0)  # a build says nothing for minutes


@dataclass(frozen=True)
class NodeAddress:
    """Where a node's API is. `found` says, for people, how we came to it."""

    url: str
    token: str = field(repr=False)
    found: str
    data_dir: Path | None = None


def find_node(settings: ClientSettings) -> NodeAddress:
    """--data-dir, else ISOPOD_URL, else ISOPOD_DATA_DIR, else the login, else the default folder.

    NodeNotRunning when a folder says that no node runs on it.
    """
    if settings.data_dir is not None:
        return _of_data_dir(settings.data_dir)
    if settings.url:
        return NodeAddress(checked_url(settings.url), settings.token, "ISOPOD_URL")
    if settings.env_data_dir is not None:
        return _of_data_dir(settings.env_data_dir)
    login = read_login(settings.login_path)
    if login is not None:
        return login
    return _of_data_dir(settings.default_data_dir)


def read_login(path: Path) -> NodeAddress | None:
    """What `isopod login` wrote, if anything."""
    try:
        body = json.loads(path.read_text())
        return NodeAddress(str(body["url"]), str(body["token"]), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise UsageError(
            f"cannot read the login in {str(path)!r}", hint="run `isopod login URL` again"
        ) from bad


def write_login(path: Path, url: str, token: str) -> None:
    """For the owner's eyes only; whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"url": checked_url(url), "token": token}, file)
    temporary.replace(path)


def _of_data_dir(path: Path) -> NodeAddress:
    nobody = NodeNotRunning(f"no node runs on {str(path)!r}")
    try:
        node = json.loads((path / "node.json").read_text())
        token = (path / "token").read_text().strip()
        port, pid = int(node["control_port"]), int(node["pid"])
        host = str(node.get("control_host") or "127.0.0.1")
    except FileNotFoundError:
        raise nobody from None
    except PermissionError as bad:
        raise UsageError(
            f"may not read {bad.filename!r}", hint="the node belongs to another user: use `login`"
        ) from bad
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise NodeNotRunning(f"cannot understand {str(path / 'node.json')!r}") from bad
    if not Path(f"/proc/{pid}").exists():  # killed: its port may be another's, tell it no token
        raise nobody
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return NodeAddress(f"http://{shown}:{port}", token, str(path), data_dir=path)


def checked_url(url: str) -> str:
    """A node's address, without a final slash; http when it names no scheme."""
    url = url if "://" in url else f"http://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not the URL of a node", hint="e.g. http://127.0.0.1:8081")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


class Client:
    """One connection to one node. Close it, or use it in `with`."""

    def __init__(self, node: NodeAddress, *, tenant: str = "") -> None:
        """`tenant`: whom the operator acts for; "" for the token's own."""
        self.node = node
        local = urlsplit(node.url).hostname in ("127.0.0.1", "localhost", "::1")
        headers = {"Authorization": f"Bearer {node.token}"} if node.token else {}
        if tenant:
            headers["X-Isopod-Tenant"] = _header(tenant)
        self._http = httpx.Client(
            base_url=node.url,
            headers=headers,
            timeout=_TIMEOUT,
            trust_env=not local,  # a proxy cannot reach our loopback
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def health(self) -> Json:
        return self._json("GET", "/v1/health")

    def whoami(self) -> Json:
        return self._json("GET", "/v1/whoami")

    def status(self) -> Json:
        return self._json("GET", "/v1/status")

    def apps(self) -> list[Json]:
        return self._list("/v1/apps", "apps")

    def app(self, name: str) -> Json:
        return self._json("GET", f"/v1/apps/{_part(name)}")

    def delete(self, name: str) -> Json:
        return self._json("DELETE", f"/v1/apps/{_part(name)}")

    def rollback(self, name: str, version: int | None) -> Json:
        return self._json("POST", f"/v1/apps/{_part(name)}/rollback", body={"version": version})

    def sleep(self, name: str) -> Json:
        return self._json("POST", f"/v1/apps/{_part(name)}/sleep")

    def logs(
        self,
        name: str,
        *,
        since: float,
        limit: int,
        follow: bool,
        level: str = "",
        request_id: str = "",
    ) -> Iterator[Json]:
        """Each line has "at", "level", "stream", "message", "version", "instance", "request_id"."""
        params: Json = {"since": since, "limit": limit, "follow": follow}
        params |= {"level": level} if level else {}
        params |= {"request_id": request_id} if request_id else {}
        return self._lines("GET", f"/v1/apps/{_part(name)}/logs", params=params)

    def jobs(self, app: str | None) -> list[Json]:
        """Of an app, or of all."""
        return self._list("/v1/jobs" if app is None else f"/v1/apps/{_part(app)}/jobs", "jobs")

    def job_runs(self, app: str, *, job: str, limit: int) -> list[Json]:
        """Newest first; `job` "" is all of them."""
        params: Json = {"job": job, "limit": limit}
        found = self._json("GET", f"/v1/apps/{_part(app)}/job-runs", params=params)
        return [dict(one) for one in found["runs"]]

    def job_run(self, app: str, number: int) -> Json:
        return self._json("GET", f"/v1/apps/{_part(app)}/job-runs/{number}")

    def run_job(self, app: str, job: str) -> Json:
        return self._json("POST", f"/v1/apps/{_part(app)}/jobs/{_part(job)}/run")

    def runtimes(self) -> list[Json]:
        return self._list("/v1/runtimes", "runtimes")

    def prepare_runtime(self, name: str) -> Iterator[Json]:
        """Lines {"progress": 0.0 to 1.0, "text"}."""
        return self._lines("POST", f"/v1/runtimes/{_part(name)}/prepare")

    def usage(self, *, tenant: str, app: str, since: str, until: str, by: str) -> Json:
        """The bill of a period; "" is the node's default."""
        params = {"tenant": tenant, "app": app, "from": since, "to": until, "by": by}
        return self._json("GET", "/v1/usage", params=params)

    def usage_statement(self, *, tenant: str, month: str) -> Json:
        params = {"tenant": tenant, "month": month}
        return self._json("GET", "/v1/usage/statement", params=params)

    def usage_key(self) -> Json:
        return self._json("GET", "/v1/usage/key")

    def has_package(self, digest: str) -> bool:
        with self._talking():
            response = self._http.head(f"/v1/packages/{digest}")
        if response.status_code in (204, 404):
            return response.status_code == 204
        # HEAD has no body to say why: requests that have one find the same.
        if "deploy" not in (scopes := self.whoami()["scopes"]):
            raise Forbidden(
                "the token has no scope 'deploy'", details={"scope": "deploy", "scopes": scopes}
            )
        raise _unexpected(str(response.url), response.status_code)

    def upload(
        self, digest: str, path: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """`progress` is called with (bytes sent, bytes in all)."""
        size = path.stat().st_size

        def chunks() -> Iterator[bytes]:
            sent = 0
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, size)

        with self._talking():
            response = self._http.put(
                f"/v1/packages/{digest}",
                content=chunks(),
                headers={"Content-Length": str(size)},
                timeout=httpx.Timeout(120.0, connect=5.0),
            )
        _raise_for(response)

    def deploy(
        self,
        *,
        package: str,
        name: str | None,
        folder_name: str,
        source: str,
        env: Mapping[str, str],
        strict: bool = False,
        expected_name: str | None = None,
        allow_new: bool = False,
    ) -> Iterator[Json]:
        """Lines {"step": ...}, and {"result": ...} as the last; an error is raised."""
        body = {
            "package": package,
            "name": name,
            "folder_name": folder_name,
            "source": source,
            "env": dict(env),
            "strict": strict,
            "expected_name": expected_name,
            "allow_new": allow_new,
        }
        return self._lines("POST", "/v1/deploys", body=body)

    def secrets(self, app: str) -> list[Json]:
        return self._list(f"/v1/apps/{_part(app)}/secrets", "secrets")

    def change_secrets(self, app: str, *, values: Mapping[str, str], unset: list[str]) -> Json:
        body = {"set": dict(values), "unset": unset}
        return self._json("PATCH", f"/v1/apps/{_part(app)}/secrets", body=body)

    def begin_learning(self, app: str, *, for_s: float) -> Json:
        """`allow` in the answers is the list that lets the app do what it did since."""
        return self._json("POST", f"/v1/apps/{_part(app)}/learning", body={"for_s": for_s})

    def learning(self, app: str) -> Json:
        return self._json("GET", f"/v1/apps/{_part(app)}/learning")

    def end_learning(self, app: str) -> Json:
        return self._json("DELETE", f"/v1/apps/{_part(app)}/learning")

    def volumes(self) -> list[Json]:
        return self._list("/v1/volumes", "volumes")

    def create_volume(self, name: str, size_mib: int) -> Json:
        return self._json("POST", "/v1/volumes", body={"name": name, "size_mib": size_mib})

    def resize_volume(self, name: str, size_mib: int) -> Json:
        return self._json("PATCH", f"/v1/volumes/{_part(name)}", body={"size_mib": size_mib})

    def delete_volume(self, name: str) -> Json:
        path = f"/v1/volumes/{_part(name)}"
        return self._json("DELETE", path, timeout=_COPY_TIMEOUT)

    def read_volume(self, name: str, path: str, out: IO[bytes]) -> Json:
        """A tar archive of what is at `path`, into `out`; the node's summary of it."""
        with (
            self._talking(),
            self._http.stream(
                "GET",
                f"/v1/volumes/{_part(name)}/archive",
                params={"path": path},
                timeout=_COPY_TIMEOUT,
            ) as response,
        ):
            if response.is_error:
                response.read()
            _raise_for(response)
            for chunk in response.iter_bytes():
                out.write(chunk)
            said = json.loads(response.headers.get("x-isopod-copied", "null"))
        if not isinstance(said, dict):
            raise _unexpected(str(response.url), response.status_code)
        return said

    def fill_volume(
        self, name: str, archive: IO[bytes], *, path: str = "", replace: bool = False
    ) -> Json:
        """`archive`, a tar, in the place of all that it holds, or into its folder `path`."""
        return self._json(
            "PUT" if replace else "POST",
            f"/v1/volumes/{_part(name)}/archive",
            params={} if replace else {"path": path},
            content=iter(lambda: archive.read(_CHUNK_BYTES), b""),
            timeout=_COPY_TIMEOUT,
        )

    def tenants(self) -> list[Json]:
        return self._list("/v1/tenants", "tenants")

    def tenant(self, name: str) -> Json:
        return self._json("GET", f"/v1/tenants/{_part(name)}")

    def create_tenant(
        self,
        name: str,
        *,
        quota: Mapping[str, int],
        cordon: str | None,
        egress: list[str] | None = None,
    ) -> Json:
        body = {"name": name, "quota": dict(quota), "cordon": cordon, "egress": egress}
        return self._json("POST", "/v1/tenants", body=body)

    def change_tenant(
        self,
        name: str,
        *,
        quota: Mapping[str, int] | None = None,
        cordon: str | None = None,
        suspended: bool | None = None,
        egress: list[str] | None = None,
    ) -> Json:
        """None: as it is."""
        body = {
            "quota": dict(quota or {}),
            "cordon": cordon,
            "suspended": suspended,
            "egress": egress,
        }
        return self._json("PATCH", f"/v1/tenants/{_part(name)}", body=body)

    def delete_tenant(self, name: str, *, force: bool) -> Json:
        return self._json("DELETE", f"/v1/tenants/{_part(name)}", params={"force": force})

    def members(self) -> list[Json]:
        return self._list("/v1/members", "members")

    def add_member(self, name: str) -> Json:
        return self._json("POST", "/v1/members", body={"name": name})

    def remove_member(self, name: str) -> Json:
        return self._json("DELETE", f"/v1/members/{_part(name)}")

    def tokens(self) -> list[Json]:
        return self._list("/v1/tokens", "tokens")

    def create_token(self, *, member: str, scopes: list[str], expires_in_s: float | None) -> Json:
        """`token` in the answer is the only time it can be read."""
        body = {"member": member, "scopes": scopes, "expires_in_s": expires_in_s}
        return self._json("POST", "/v1/tokens", body=body)

    def revoke_token(self, token_id: str) -> Json:
        return self._json("DELETE", f"/v1/tokens/{_part(token_id)}")

    def audit(self, *, since: float, limit: int, all_tenants: bool) -> list[Json]:
        params = {"since": since, "limit": limit, "all_tenants": all_tenants}
        return self._list("/v1/audit", "entries", params=params)

    def _list(self, path: str, key: str, *, params: Params | None = None) -> list[Json]:
        found = self._json("GET", path, params=params).get(key)
        if not isinstance(found, list):
            raise _unexpected(f"{self.node.url}{path}", 200)
        return found

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Params | None = None,
        content: Iterator[bytes] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> Json:
        with self._talking():
            response = self._http.request(
                method, path, json=body, params=params, content=content, timeout=timeout
            )
        _raise_for(response)
        try:
            answer = response.json()
        except ValueError:
            raise _unexpected(str(response.url), response.status_code) from None
        if not isinstance(answer, dict):
            raise _unexpected(str(response.url), response.status_code)
        return answer

    def _lines(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Params | None = None,
    ) -> Iterator[Json]:
        with (
            self._talking(),
            self._http.stream(
                method, path, json=body, params=params, timeout=_STREAM_TIMEOUT
            ) as response,
        ):
            if response.is_error:
                response.read()
            _raise_for(response)
            for line in response.iter_lines():
                try:
                    item = json.loads(line)
                except ValueError:
                    item = None
                if not isinstance(item, dict):
                    raise _unexpected(str(response.url), response.status_code)
                if isinstance(item.get("error"), dict):
                    raise IsopodError.from_wire(item["error"])
                yield item

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as bad:
            if self.node.data_dir is not None:
                raise NodeNotRunning(
                    f"the node on {str(self.node.data_dir)!r} does not answer at {self.node.url}"
                ) from bad
            raise NodeUnreachable(
                f"cannot reach a node at {self.node.url!r}",
                hint=f"is it up, and is its address right? it came from {self.node.found}",
            ) from bad
        except httpx.TimeoutException as bad:
            raise NodeUnreachable(
                f"the node at {self.node.url!r} did not answer in time", hint="try again"
            ) from bad
        except httpx.TransportError as bad:
            raise NodeUnreachable(
                f"the connection to {self.node.url!r} was lost",
                hint="what was not acknowledged may not have happened: look, then try again",
            ) from bad
        except httpx.InvalidURL as bad:
            raise UsageError(f"{self.node.url!r} is not the URL of a node") from bad


def _header(tenant: str) -> str:
    if not tenant.isascii() or not tenant.isprintable():
        raise UsageError(f"{tenant[:80]!r} is not the name of a tenant")
    return tenant


def _part(text: str) -> str:
    """One path segment; what it means is the server's to check."""
    from urllib.parse import quote

    return quote(text, safe="") or "%20"


def _raise_for(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        error = response.json()["error"]
        raise IsopodError.from_wire(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unexpected(str(response.url), response.status_code) from None


def _unexpected(url: str, status: int) -> IsopodError:
    return NodeUnreachable(
        f"{url!r} answered {status} in a way no isopod node does",
        hint="is this the control API's address?",
    )
