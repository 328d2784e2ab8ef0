"""What the supervisor tells a child on its standard input: the settings and the kernel's features.

Not in its environment: that is shown in /proc, is inherited, and holds what the operator's shell
held. A worker's is nearly empty from the start, and wiped before it runs a guest.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from isopod.sandbox.features import Features
from isopod.settings import NodeSettings
from isopod.settings_file import SettingInvalid


@dataclass(frozen=True, slots=True)
class Handover:
    settings: NodeSettings
    features: Features

    def to_bytes(self) -> bytes:
        body = {"settings": self.settings.to_json(), "features": self.features.to_json()}
        return json.dumps(body).encode()

    @staticmethod
    def take() -> Handover:
        """In the child, once: its standard input is the null device afterwards."""
        try:
            body: dict[str, Any] = json.loads(sys.stdin.buffer.read())
        except ValueError:
            raise SettingInvalid(
                "no settings were handed over: only `isopod up` starts this"
            ) from None
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return Handover(
            NodeSettings.from_json(body["settings"]), Features.from_json(body["features"])
        )
