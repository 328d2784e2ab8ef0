"""The targets by name."""

from __future__ import annotations

from tools.fuzz import framing, gateway, host_calls, manifest, package

TARGETS = {
    target.name: target
    for target in (
        host_calls.TARGET,
        manifest.TARGET,
        package.TARGET,
        framing.TARGET,
        gateway.TARGET,
    )
}
