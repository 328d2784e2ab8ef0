"""Looks names up and connects for the apps of a node, within what each of them may.

A name is looked up once: what was checked is what is connected to, and what an app got told as the
address of a name is connected to only if it was that (a name that changes its address between the
check and the use gains nothing).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from isopod.host import addresses
from isopod.host.addresses import Address
from isopod.host.datagrams import Relay
from isopod.host.egress import (
    PrivateGrant,
    Refused,
    Wanted,
    check_address,
    check_bound,
    check_listed,
    parse_wanted,
)
from isopod.host.outside import OutsideError
from isopod.host.pace import Pace
from isopod.model.network import EgressPolicy, Target


@dataclass(frozen=True, slots=True)
class AppGrant:
    """What one app may, of its route."""

    tenant: str
    allow: tuple[Target, ...]
    bound: EgressPolicy = None  # the tenant's
    learns_until: float = 0.0  # seconds since the epoch; so long `allow` is not asked

    def check(self, wanted: Wanted) -> None:
        """Raises Refused."""
        if self.learns_until <= time.time():
            check_listed(wanted, self.allow)
        check_bound(wanted, self.bound)


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    connect_s: float = 30.0
    lookup_s: float = 10.0
    lookups_per_s: float = 20.0  # of one app
    lookups_at_once: int = 8  # of one tenant; each is a thread that waits
    connects_at_once: int = 64  # of one app
    relays: int = 64  # of datagrams, of one app; each takes two of our files
    # A tenant has as many apps as it likes, and our files are everybody's.
    of_a_tenant: int = 256  # connections being made, and relays
    # Each takes some 20 us of ours, which are everybody's too.
    datagrams_per_s: float = 5000.0  # of one tenant, both ways


# Gives the addresses of a name, in the order of preference. Blocks; raises OSError.
LookUp = Callable[[str], list[str]]
_PINNED_S = 3600.0
_MAX_PINNED = 20_000  # names, of all apps
_MAX_ADDRESSES = 32
_LOOKUP_THREADS = 128


def look_up(name: str) -> list[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


class Broker:
    """Fulfils `isopod.host.outside.Outside`. Used on one loop."""

    def __init__(
        self,
        *,
        grant_of: Callable[[str], AppGrant | None],
        private: Sequence[PrivateGrant],
        look_up: LookUp = look_up,
        limits: BrokerLimits | None = None,
    ) -> None:
        self._grant_of = grant_of
        self._private = tuple(private)
        self._look_up = look_up
        self._limits = limits or BrokerLimits()
        self._pinned: OrderedDict[tuple[str, str], tuple[float, frozenset[Address]]] = OrderedDict()
        self._lookups: Counter[str] = Counter()
        self._connects: Counter[str] = Counter()
        self._relays: Counter[str] = Counter()
        self._connects_of: Counter[str] = Counter()  # by tenant
        self._relays_of: Counter[str] = Counter()
        self._paces: OrderedDict[str, Pace] = OrderedDict()  # of look-ups, by app
        self._relay_paces: OrderedDict[str, Pace] = OrderedDict()  # by tenant
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="look-up")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def resolve(self, app: str, host: str, port: int) -> list[str]:
        grant = self._grant(app)
        with _refusals():
            wanted = parse_wanted(host, port)
            if wanted.address is not None:
                return [str(wanted.address)]  # nothing is asked; connecting is
            grant.check(wanted)
            usable, refused = [], None
            for address in await self._addresses(app, grant.tenant, wanted.host):
                try:
                    check_address(wanted, address, tenant=grant.tenant, grants=self._private)
                    usable.append(str(address))
                except Refused as error:
                    refused = refused or error
            if refused and not usable:
                raise refused
            return usable

    async def connect(
        self,
        app: str,
        hosts: Sequence[str],
        address: str,
        port: int,
        *,
        datagrams: bool = False,
    ) -> socket.socket:
        grant = self._grant(app)
        with _refusals():
            wanted = _permitted(hosts, port, grant)
            chosen = await self._chosen(app, grant.tenant, wanted, address)
            for one in chosen:
                check_address(wanted, one, tenant=grant.tenant, grants=self._private)
        if datagrams:
            return self._relay(app, grant.tenant, chosen[0], port)
        limit = self._limits.connects_at_once
        if self._connects[app] >= limit:
            raise OutsideError("EAGAIN", f"isopod: {limit} connections of this app are being made")
        limit = self._limits.of_a_tenant
        if self._connects_of[grant.tenant] >= limit:
            raise OutsideError(
                "EAGAIN", f"isopod: {limit} connections of this tenant are being made"
            )
        self._connects[app] += 1
        self._connects_of[grant.tenant] += 1
        try:
            return await self._connect(chosen, port)
        finally:
            _less(self._connects, app)
            _less(self._connects_of, grant.tenant)

    def _grant(self, app: str) -> AppGrant:
        grant = self._grant_of(app)
        if grant is None:
            raise OutsideError("EACCES", "isopod: this app is not live any more")
        return grant

    async def _chosen(self, app: str, tenant: str, wanted: Wanted, address: str) -> list[Address]:
        """Which addresses to try, of those that `wanted` stands for."""
        if wanted.address is not None:
            return [wanted.address]
        asked = addresses.parse(address) if address else None
        until, pinned = self._pinned.get((app, wanted.host), (0.0, frozenset()))
        if asked is not None and asked in pinned and until > time.monotonic():
            return [asked]
        found = await self._addresses(app, tenant, wanted.host)
        if not address:
            return found
        if asked is None or asked not in found:
            raise Refused(f"{address[:80]!r} is no address of {wanted.host!r}")
        return [asked]

    async def _addresses(self, app: str, tenant: str, name: str) -> list[Address]:
        """All of `name`, freshly looked up, and pinned to it."""
        limits = self._limits
        pace = _pace(self._paces, app, limits.lookups_per_s, 5 * limits.lookups_per_s)
        if self._lookups[tenant] >= limits.lookups_at_once or not pace.take():
            raise OutsideError("EAI_AGAIN", "isopod: this app looks up too many names at once")
        self._lookups[tenant] += 1
        loop = asyncio.get_running_loop()
        looking = loop.run_in_executor(self._threads, self._look_up, name)
        # Counted until the thread is free: nobody can end a look-up.
        looking.add_done_callback(lambda _: _less(self._lookups, tenant))
        try:
            texts = await asyncio.wait_for(asyncio.shield(looking), limits.lookup_s)
        except TimeoutError:
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise OutsideError("EAI_AGAIN", f"looking up {name!r} took too long") from None
        except socket.gaierror as error:
            raise OutsideError(_lookup_error(error), error.strerror or str(error)) from None
        except (OSError, UnicodeError) as error:
            raise OutsideError("EAI_FAIL", str(error)) from None
        found = [one for text in texts[:_MAX_ADDRESSES] if (one := addresses.parse(text))]
        if not found:
            raise OutsideError("EAI_NONAME", "Name or service not known")
        self._pinned[(app, name)] = (time.monotonic() + _PINNED_S, frozenset(found))
        self._pinned.move_to_end((app, name))
        if len(self._pinned) > _MAX_PINNED:
            self._pinned.popitem(last=False)
        return found

    async def _connect(self, chosen: list[Address], port: int) -> socket.socket:
        last = OutsideError("EHOSTUNREACH")
        for address in chosen:
            try:
                return await self._connect_to(address, port)
            except TimeoutError:
                last = OutsideError("ETIMEDOUT")
            except OSError as error:
                last = OutsideError(errno.errorcode.get(error.errno or 0, "EIO"))
        raise last

    def _relay(self, app: str, tenant: str, address: Address, port: int) -> socket.socket:
        limit = self._limits.relays
        if self._relays[app] >= limit:
            raise OutsideError("EMFILE", f"isopod: an app may have {limit} UDP sockets open")
        limit = self._limits.of_a_tenant
        if self._relays_of[tenant] >= limit:
            raise OutsideError("EMFILE", f"isopod: a tenant may have {limit} UDP sockets open")
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise OutsideError(errno.errorcode.get(error.errno or 0, "EIO")) from None
        try:
            made.connect((str(address), port))
            inside, handed = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
            )
        except OSError as error:
            made.close()
            raise OutsideError(errno.errorcode.get(error.errno or 0, "EIO")) from None
        self._relays[app] += 1
        self._relays_of[tenant] += 1

        def ended() -> None:
            _less(self._relays, app)
            _less(self._relays_of, tenant)

        per_s = self._limits.datagrams_per_s
        pace = _pace(self._relay_paces, tenant, per_s, per_s / 10)
        Relay(made, inside, pace=pace, ended=ended)
        return handed

    async def _connect_to(self, address: Address, port: int) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(self._limits.connect_s):
                await loop.sock_connect(made, (str(address), port))
        except BaseException:
            made.close()
            raise
        return made


def _pace(paces: OrderedDict[str, Pace], key: str, per_s: float, most: float) -> Pace:
    """The one of that key, also when nobody used it for some time: who asks again gains nothing."""
    pace = paces.get(key)
    if pace is None:
        pace = paces[key] = Pace(per_s, most)
        if len(paces) > _MAX_PINNED:
            paces.popitem(last=False)
    return pace


def _permitted(hosts: Sequence[str], port: int, grant: AppGrant) -> Wanted:
    """The first of `hosts` that the app may connect to."""
    refused = Refused("no host is given")
    for number, host in enumerate(hosts):
        try:
            wanted = parse_wanted(host, port)
            grant.check(wanted)
        except Refused as error:
            refused = error if number == 0 else refused
        else:
            if wanted.port == 0:
                raise Refused("port 0 cannot be connected to")
            return wanted
    raise refused


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise OutsideError("EACCES", f"isopod: {error}") from None


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


_LOOKUP_ERRORS = {
    getattr(socket, name): name
    for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_NODATA", "EAI_NONAME", "EAI_MEMORY", "EAI_SYSTEM")
    if hasattr(socket, name)
}


def _lookup_error(error: socket.gaierror) -> str:
    return _LOOKUP_ERRORS.get(error.errno or 0, "EAI_FAIL")
