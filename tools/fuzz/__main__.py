"""`python -m tools.fuzz --minutes 10 TARGET...`: exit status 1 when something was found."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tools.fuzz import campaign
from tools.fuzz.targets import TARGETS


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description=__doc__,
        epilog="Example: python -m tools.fuzz --minutes 0.1 manifest package",
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when none"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target (10)")
    parser.add_argument("--seed", default="", help="the same seed gives the same inputs")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that hurt"
    )
    parser.add_argument("--replay", type=Path, help="run one kept input against TARGET")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; there are: {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in given.targets or TARGETS]
    if given.replay is not None:
        with (
            tempfile.TemporaryDirectory(prefix="isopod-fuzz-") as work,
            chosen[0].open(Path(work)) as run_one,
        ):
            run_one(given.replay.read_bytes())
        print("it does no harm")
        return 0
    found = False
    for target in chosen:
        seed = given.seed or secrets.token_hex(4)
        result = campaign.run(target, seconds=given.minutes * 60, seed=seed, keep=given.keep)
        print(result.text(), flush=True)
        found = found or bool(result.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
