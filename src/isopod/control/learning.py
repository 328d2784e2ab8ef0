"""Learning which list an app needs: for a while it may connect to what its tenant may, and what it
used is what to write down.

Kept by control alone: a node that is started again has forgotten it, and then the list holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from isopod.control.apps import find_app
from isopod.control.audit import audited, entry
from isopod.control.node import Node
from isopod.control.switching import put_route
from isopod.errors import UsageError
from isopod.model.ids import AppName
from isopod.model.network import Target
from isopod.model.principal import Principal
from isopod.state.apps import App

MOST_S = 900.0


@dataclass(frozen=True, slots=True)
class Learned:
    """`allow`: the smallest list that lets the app do what it did. `unused`: entries of its list
    that it did not need. `refused`: what it was refused all the same, and why."""

    until: float  # seconds since the epoch; 0: it is over
    allow: list[str]
    unused: list[str]
    refused: dict[str, str]


def propose(connected: Sequence[str], listed: Sequence[Target]) -> tuple[list[str], list[str]]:
    """The list, and what of `listed` nobody needed."""
    used = []
    for text in connected:
        try:
            used.append(Target.parse(text))
        except ValueError:  # a guest's: a name that cannot be listed
            continue
    unused = [str(one) for one in listed if not any(one.covers(target) for target in used)]
    return sorted({str(target) for target in used}), unused


async def begin_learning(who: Principal, name: AppName, for_s: float, *, node: Node) -> Learned:
    """For `for_s` seconds, or until it is ended. Private addresses, and what the tenant may not
    reach, are refused as ever. AppNotFound, UsageError."""
    async with audited(who, "network.learn", name, node=node):
        who.need("deploy")
        if not 1 <= for_s <= MOST_S:
            raise UsageError(f"an app learns for 1 to {MOST_S:g} seconds, not {for_s:g}")
        app = await find_app(who, name, node=node)
        done = entry(who, "network.learn", name, node.clock(), details={"for_s": for_s})
        await asyncio.to_thread(node.state.of(who.tenant).audit.add, done)
        await node.workers.forget_reached(app.label)
        node.learning[app.label] = node.clock() + for_s
        await _tell_workers(who, app, node=node)
        return await _learned(who, app, node=node)


async def look_at_learning(who: Principal, name: AppName, *, node: Node) -> Learned:
    """AppNotFound."""
    who.need("read")
    return await _learned(who, await find_app(who, name, node=node), node=node)


async def end_learning(who: Principal, name: AppName, *, node: Node) -> Learned:
    """From now on the list holds again. AppNotFound."""
    async with audited(who, "network.learn_end", name, node=node):
        who.need("deploy")
        app = await find_app(who, name, node=node)
        if node.learning.pop(app.label, None) is not None:
            await _tell_workers(who, app, node=node)
        return await _learned(who, app, node=node)


async def _tell_workers(who: Principal, app: App, *, node: Node) -> None:
    await asyncio.shield(asyncio.to_thread(put_route, app, who.tenant, node))
    await node.workers.refresh(app.label)


async def _learned(who: Principal, app: App, *, node: Node) -> Learned:
    connected, refused = await node.workers.reached(app.label)
    versions = node.state.of(who.tenant).versions
    live = await asyncio.to_thread(versions.get, app.label, app.live_version)
    allow, unused = propose(connected, live.spec.network.allow if live else ())
    return Learned(node.learns_until(app.label), allow, unused, refused)
