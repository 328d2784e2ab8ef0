"""The task that brings usage from the workers' spools into the ledger, about every second.

Also what was left by workers that are gone. A ledger or a disk that fails stops nothing: spools
keep what they have, and the next try takes it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from isopod.control.node import Node
from isopod.metering.collector import Collector
from isopod.metering.ledger import Keep, Ledger
from isopod.metering.node_id import node_id
from isopod.settings import NodeSettings

_log = logging.getLogger(__name__)
EVERY_S = 1.0
_PRUNE_FOR_S = 0.25  # at a time


async def collect_usage(node: Node) -> None:
    """Until it is cancelled. What a last batch brought is then in the ledger or in its spool."""
    collecting: _Collecting | None = None
    said = ""
    try:
        while True:
            try:
                if collecting is None:
                    collecting = await asyncio.to_thread(_Collecting, node.settings)
                await asyncio.to_thread(collecting.run)
                said = ""
            except Exception as bad:  # nobody above could act, and the next try may do better
                if str(bad) != said:
                    _log.error("usage stays in the spools: %s", bad)
                said = str(bad)
            await asyncio.sleep(EVERY_S)
    finally:
        if collecting is not None:
            collecting.close()


class _Collecting:
    def __init__(self, settings: NodeSettings) -> None:
        settings.usage_dir.mkdir(mode=0o700, exist_ok=True)
        keep = Keep(settings.usage_keep_h * 3600.0, settings.usage_max_records)
        node = node_id(settings.node_id_path)
        self._ledger = Ledger(settings.ledger_path, node=node, keep=keep)
        self._ledger.hold_prices(settings.prices)
        self._collector = Collector(settings.spools_dir, ledger=self._ledger)

    def run(self) -> None:
        self._collector.collect()
        end = time.monotonic() + _PRUNE_FOR_S
        while self._ledger.prune() and time.monotonic() < end:
            pass

    def close(self) -> None:
        """After the batch under way."""
        self._ledger.close()
