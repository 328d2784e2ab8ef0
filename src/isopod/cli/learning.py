"""`isopod deploy --learn`: lets the app connect for a while, and says which list it needs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isopod.cli import output

if TYPE_CHECKING:
    from isopod.client import Client, Json

_LOOK_S = 0.5


def learn(client: Client, app: str, for_s: float) -> Json:
    """Until then, or Ctrl-C. What it learned."""
    end = time.monotonic() + for_s
    client.begin_learning(app, for_s=for_s)
    try:
        output.note(
            f"learning for {for_s:g} s what the app connects to: use it now; Ctrl-C ends it earlier"
        )
        shown: set[str] = set()
        with suppress(KeyboardInterrupt):
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _LOOK_S))
                found = client.learning(app)
                for text in [*found["allow"], *found["refused"]]:
                    if text not in shown:
                        shown.add(text)
                        output.note(f"  {text}" + " (refused)" * (text in found["refused"]))
    finally:
        found = client.end_learning(app)
    return found


def show(found: Json) -> None:
    """The section to write, on standard output."""
    for text, why in found["refused"].items():
        output.note(f"refused all the same: {text}: {why.removeprefix('isopod: ')}")
    for text in found["unused"]:
        output.note(f"listed, and not needed meanwhile: {text}")
    if not found["allow"]:
        output.note("the app connected to nothing: it needs no [network] section for that")
        return
    entries = "".join(f'    "{text}",\n' for text in found["allow"])
    output.note("in isopod.toml:")
    output.say(f"[network]\nallow = [\n{entries}]")
