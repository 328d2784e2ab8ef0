"""Real database servers of one's own for the tests and the benches: loopback, free ports, nothing
left. They are Debian's packages (`tools/debian.sh`); what needs one that is missing skips itself.

They refuse to run as root, or should not: there they run as the account their package made.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "correct horse"
_START_S = 60.0


class Missing(Exception):
    """A server that is not installed here."""


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, *folders: str) -> str:
    """Raises Missing."""
    found = shutil.which(name, path=os.pathsep.join([*folders, os.environ["PATH"], "/usr/sbin"]))
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def postgres_program(name: str) -> str:
    """Of the newest PostgreSQL: Debian keeps each version's in a folder of its own."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    return program(name, *map(str, reversed(versions)))


@contextlib.contextmanager
def postgres(
    *, certificate: Path | None = None, port: int | None = None, options: Sequence[str] = ()
) -> Iterator[Server]:
    """The superuser is `app`, the database too; passwords by SCRAM. `certificate`: PEM with key."""
    with _Place("postgres") as place:
        (place.folder / "password").write_text(PASSWORD)
        data = place.folder / "data"
        place.own()
        place.run(
            postgres_program("initdb"),
            *("--pgdata", str(data), "--username", "app", "--auth", "scram-sha-256"),
            *("--pwfile", str(place.folder / "password"), "--encoding", "UTF8", "--no-locale"),
            "--no-sync",
        )
        port = port or free_port()
        words = [postgres_program("postgres"), "-D", str(data), "-p", str(port)]
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(place.folder)}
        settings |= {"fsync": "off"}  # nothing in it outlives the test
        if certificate is not None:
            pem = place.keep(certificate)
            settings |= {"ssl": "on", "ssl_cert_file": pem, "ssl_key_file": pem}
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        words += options
        ready = [postgres_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        with place.started(port, words, signal.SIGQUIT, lambda: place.works(ready)) as server:
            place.run(
                *(program("psql"), "-qc", "create database app", "-h", "127.0.0.1"),
                *("-p", str(port), "-U", "app", "postgres"),
                PGPASSWORD=PASSWORD,
            )
            yield server


@contextlib.contextmanager
def mariadb(*, certificate: Path | None = None) -> Iterator[Server]:
    """User and database `app`."""
    with _Place("mysql") as place:
        data, line = place.folder / "data", place.folder / "socket"
        (place.folder / "first.sql").write_text(
            "create database app character set utf8mb4;\n"
            f"create user app identified by '{PASSWORD}';\n"
            "grant all on app.* to app;\n"
        )
        place.own()
        account = [f"--user={place.account}"] if place.account else []
        place.run(
            program("mariadb-install-db"),
            *("--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=socket"),
            *("--skip-test-db", *account),
        )
        port = free_port()
        words = [
            *(program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={line}"),
            *(f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={data}/pid"),
            *(f"--init-file={place.folder}/first.sql", "--innodb-flush-log-at-trx-commit=0"),
            *("--skip-name-resolve", *account),
        ]
        if certificate is not None:
            pem = place.keep(certificate)
            words += [f"--ssl-cert={pem}", f"--ssl-key={pem}"]
        with place.started(port, words, signal.SIGKILL, lambda: _answers(port)) as server:
            yield server


@contextlib.contextmanager
def redis(*, certificate: Path | None = None) -> Iterator[Server]:
    """With a password. With `certificate` it speaks TLS and nothing else."""
    with _Place("redis") as place:
        port = free_port()
        words = [program("redis-server"), "--bind", "127.0.0.1", "--save", "", "--dir"]
        words += [str(place.folder), "--requirepass", PASSWORD]
        if certificate is None:
            words += ["--port", str(port)]
        else:
            pem = place.keep(certificate)
            words += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
            words += ["--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", pem]
        place.own()
        with place.started(port, words, signal.SIGKILL, lambda: _answers(port)) as server:
            yield server


@contextlib.contextmanager
def pgbouncer(database: Server, *, connections: int, clients: int = 2000) -> Iterator[Server]:
    """Before `database`: at most so many connections to it, however many clients there are."""
    with _Place("postgres") as place:
        port = free_port()
        (place.folder / "users").write_text(f'"app" "{PASSWORD}"\n')
        (place.folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={database.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {place.folder}/users\n"
            "pool_mode = transaction\n"
            f"max_client_conn = {clients}\ndefault_pool_size = {connections}\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        place.own()
        words = [program("pgbouncer"), str(place.folder / "pgbouncer.ini")]
        with place.started(port, words, signal.SIGTERM, lambda: _answers(port)) as server:
            yield server


class _Place:
    """A folder that belongs to the account which the server runs as."""

    def __init__(self, account: str) -> None:
        self.account = account if os.geteuid() == 0 else ""
        self._as: dict[str, Any] = {}
        if self.account:
            try:
                group = pwd.getpwnam(account).pw_gid
            except KeyError:
                raise Missing(f"there is no account {account!r} to run it as") from None
            self._as = {"user": account, "group": group, "extra_groups": []}

    def __enter__(self) -> _Place:
        # Not below pytest's own folder, which no other account may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="isopod-database-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def own(self) -> None:
        if self.account:
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, self.account)

    def keep(self, certificate: Path) -> str:
        """A copy that the server may read, and nobody else: PostgreSQL insists."""
        copy = self.folder / "certificate.pem"
        copy.write_bytes(certificate.read_bytes())
        copy.chmod(0o600)
        self.own()
        return str(copy)

    def run(self, *words: str, **env: str) -> None:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=os.environ | env,
            **self._as,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with status {done.returncode}: {done.stdout}")

    def works(self, words: Sequence[str]) -> bool:
        return not subprocess.run(words, cwd=self.folder, check=False).returncode

    @contextlib.contextmanager
    def started(
        self, port: int, words: Sequence[str], end: signal.Signals, ready: Callable[[], bool]
    ) -> Iterator[Server]:
        with (self.folder / "said").open("wb") as said:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                **self._as,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        server = Server(port, self.folder, process)
        try:
            until = time.monotonic() + _START_S
            while not ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{words[0]} did not start: {server.said[-2000:]}")
                time.sleep(0.05)
            yield server
        finally:
            process.send_signal(end)
            process.wait()


def _answers(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
