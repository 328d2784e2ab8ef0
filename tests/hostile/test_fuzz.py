"""A few seconds of each fuzz target; `make fuzz` runs them for ten minutes each."""

import pytest
from tests.hostile import bad_targets

from tools.fuzz import campaign
from tools.fuzz.__main__ import main
from tools.fuzz.targets import TARGETS

attack = pytest.mark.attack
SECONDS = 2.0


@pytest.mark.parametrize("name", TARGETS)
@attack(
    "random and damaged inputs: host calls, manifests, packages, frames, raw HTTP (`tools.fuzz`)",
    "no finding",
)
def test_a_short_campaign_finds_nothing(name, tmp_path, seen):
    result = campaign.run(TARGETS[name], seconds=SECONDS, seed="tests", keep=tmp_path)
    seen(f"{name} {result.inputs:,} inputs")
    assert result.inputs > 5  # on a machine that does much else
    assert not result.findings, result.text()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (bad_targets.RAISES, "Finding: ouch"),
        (bad_targets.DIES, "died"),
        (bad_targets.HANGS, "long"),
    ],
    ids=["raises", "dies", "hangs"],
)
def test_an_input_that_hurts_is_kept_and_can_be_run_again(target, text, tmp_path):
    result = campaign.run(target, seconds=300, seed="x", keep=tmp_path, most_findings=1)
    assert text in result.findings[0]
    (kept,) = result.kept
    assert kept.read_bytes()[0] % 7 == 3
    assert text in kept.with_suffix(".txt").read_text()


def test_the_same_seed_gives_the_same_inputs():
    for target in TARGETS.values():
        first = [campaign.make_input(target, "seed", number) for number in range(20)]
        assert first == [campaign.make_input(target, "seed", number) for number in range(20)]
        assert len(set(first)) > 10
        assert first[0] != campaign.make_input(target, "other", 0)


def test_an_unknown_target_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as status:
        main(["nonsense"])
    assert status.value.code == 2
    assert "host-calls" in capsys.readouterr().err
