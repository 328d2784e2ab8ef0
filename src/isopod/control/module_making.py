"""An app's own module is compiled for the workers before its version goes live, so that no request
waits for that; and one that cannot be compiled there is an error of the deploy, which leaves the
version before as it is.

One worker is asked, because all that may serve the app share what was compiled. It answers at once
how far it is: one that hangs holds nobody up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from isopod.control.node import Node
from isopod.errors import IsopodError, NodeBusy
from isopod.model.app import AppSpec, Build
from isopod.model.build import Step
from isopod.model.cordon import own_worker_of
from isopod.model.tenant import TenantName

_STEP = "module"
_SHOWN_AFTER_S = 1.0
_WAITS_S = 120.0  # for its turn, beside what compiling may take


async def make_module(
    tenant: TenantName, spec: AppSpec, build: Build, *, node: Node
) -> AsyncGenerator[Step]:
    """Nothing to do for most apps. Without a worker to ask, the first request waits for it.

    Raises ModuleInvalid, ModuleTooCostly, what else keeps it from being compiled, or NodeBusy."""
    own = await asyncio.to_thread(_own, tenant, spec, node)
    within_s = node.settings.build_timeout_s + _WAITS_S
    began = time.monotonic()
    work = asyncio.create_task(_made(tenant, spec, build, own, within_s, node))
    try:
        await asyncio.wait({work}, timeout=_SHOWN_AFTER_S)
        if not work.done():
            yield Step(_STEP, "start", "Compiling the app's module for the workers")
            await work
            yield Step(_STEP, "done", "Compiled", time.monotonic() - began)
        work.result()
    finally:
        work.cancel()


async def _made(
    tenant: TenantName,
    spec: AppSpec,
    build: Build,
    own: TenantName | None,
    within_s: float,
    node: Node,
) -> None:
    question = {
        "op": "make_module",
        "runtime": spec.runtime,
        "tenant": tenant,
        "app_tree": build.app_tree,
        "site_tree": build.site_tree,
        "entrypoint": spec.entrypoint,
    }
    try:
        async with asyncio.timeout(within_s):
            error = await node.workers.make_module(question, own=own)
    except TimeoutError:
        raise NodeBusy(
            f"the app's module was not compiled within {within_s:.0f} s",
            hint="other modules are before it: deploy again in a while; what was live serves on",
        ) from None
    if error is not None:
        raise IsopodError.from_wire(error)


def _own(tenant: TenantName, spec: AppSpec, node: Node) -> TenantName | None:
    return own_worker_of(spec, tenant, node.state.node.tenants.get(tenant))
