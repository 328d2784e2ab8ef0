import subprocess
import sys
from itertools import pairwise

import pytest

from isopod.sandbox.landlock import CHANGE, READ, RUN, USE, handled_files

CODE = """
import sys
from pathlib import Path
from isopod.sandbox import privileges
from isopod.sandbox.landlock import CHANGE, READ, Rule, restrict
base = Path(sys.argv[1])
privileges.no_new_privileges()
# Opened before: stays usable.
before = (base / "secret").open()
restrict(int(sys.argv[2]), [Rule(base / "read", READ), Rule(base / "gone", READ),
                            Rule(base / "change", CHANGE)], connect=False)
assert (base / "read" / "x").read_text() == "x"
(base / "change" / "new").write_text("x")
(base / "change" / "new").rename(base / "change" / "newer")
assert before.read() == "a secret"
for denied in (lambda: (base / "secret").read_text(), lambda: (base / "read" / "x").write_text(""),
               lambda: (base / "read" / "x").rename(base / "change" / "x")):
    try:
        denied()
    except OSError:
        continue
    raise SystemExit("it worked")
"""


@pytest.mark.parametrize("abi", range(1, 8))
def test_what_no_rule_names_is_denied_in_every_version(tmp_path, abi):
    for name in ("read", "change"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "read" / "x").write_text("x")
    # A newer kernel takes an older version's rules.
    command = [sys.executable, "-c", CODE, str(tmp_path), str(abi)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_later_versions_deny_more_and_never_less():
    handled = [handled_files(abi) for abi in range(1, 9)]
    assert all(old & new == old for old, new in pairwise(handled))


def test_only_programs_run_and_only_devices_are_neither_read_nor_changed_alone():
    newest = handled_files(8)
    assert CHANGE & newest == CHANGE and RUN & newest == RUN
    assert READ & CHANGE == READ
    assert not CHANGE & (RUN ^ READ)  # what may be written is not run
    assert not USE & (CHANGE ^ READ ^ 2)
