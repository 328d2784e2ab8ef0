"""How the process that connects shuts itself in: it needs the network, and next to no file.

What somebody who took it over would find: connections to anywhere (so does every process of the
node's network, but not as a guest), the routes, and how names are looked up. No program to start,
no other file, no port to listen on, nobody to signal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from isopod.sandbox import kernel, landlock, privileges, seccomp
from isopod.sandbox.features import Features
from isopod.sandbox.landlock import Rule
from isopod.sandbox.worker import Sandbox

# What the C library reads to look a name up (nsswitch.conf(5), resolver(5), gai.conf(5)).
_RESOLVER = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf"),
    *("/etc/services", "/etc/protocols", "/etc/networks", "/etc/hostname"),
)
# Its plug-ins (libnss_...), which are mapped when they are first used.
_LIBRARIES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"),
    *("/run/systemd/resolve", "/run/systemd/machines"),
)
_MAY = frozenset({"socket", "connect", "bind"})  # bind: of the resolver's netlink socket
_MAY_NOT = frozenset({"listen", "accept", "accept4"})


class EgressSandbox(Sandbox):
    def shut(self, routes: Path, features: Features) -> None:
        time.tzset()
        self._put_on("empty environment", privileges.wipe_environment)
        self._put_on("no core dumps", privileges.no_traces)
        privileges.limit_file_size(0)
        if features.no_new_privs:
            self._put_on("no new privileges", privileges.no_new_privileges)
        if abi := features.landlock_abi:
            paths = list(rules(routes))
            self._put_on(f"landlock {abi}", lambda: landlock.restrict(abi, paths, connect=True))
        last = features.last_capability
        self._put_on("no capabilities", lambda: kernel.drop_capabilities(last))

    def forbid(self) -> None:
        """The last step. What is on no list stays allowed: resolvers differ too much."""
        if (library := self._filters) is not None:
            forbidden = (seccomp.FORBIDDEN - _MAY) | _MAY_NOT
            self._put_on("seccomp", lambda: seccomp.forbid(library, forbidden))


def shut_in(routes: Path, *, features: Features) -> EgressSandbox:
    """This process, for good. `routes`: the folder of routes.db."""
    privileges.check_alone()
    sandbox = EgressSandbox(features)
    sandbox.shut(routes, features)
    return sandbox


def rules(routes: Path) -> Iterable[Rule]:
    yield Rule(routes, landlock.READ)
    yield from (Rule(Path(path), landlock.READ) for path in (*_RESOLVER, *_LIBRARIES))
    yield from (Rule(Path(path), landlock.READ) for path in privileges.code_folders())
    yield Rule(Path("/dev/null"), landlock.USE)
    yield Rule(Path("/dev/urandom"), landlock.READ)


def resolver_files() -> list[tuple[int, int]]:
    """Which files these are now. One that is replaced is another file."""
    found = []
    for path in _RESOLVER:
        try:
            there = Path(path).stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((there.st_dev, there.st_ino))
    return found
