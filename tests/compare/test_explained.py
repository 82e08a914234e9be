"""A comparison of two initialisations can say which random states they are, by recomputing both."""

from __future__ import annotations

import json

from click.testing import CliRunner

from publish.cli.compare import command
from tests.conftest import shared


def reasons(*arguments: str) -> list[str]:
    runs = [str(shared(f"suite/pythia-tiny-seed{seed}")) for seed in (1234, 1)]
    done = CliRunner().invoke(command, [*runs, "--step", "0", "--json", *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["reasons"]


def test_stored_states_reveal_the_seeds_without_reading_more() -> None:
    found = reasons()
    assert found[-1] == "the seeds differ: 1234 and 1"
    assert not any("bit for bit" in reason for reason in found)


def test_both_are_recomputed_when_asked() -> None:
    found = reasons("--explain")
    assert sum("14,336 of 14,336 values bit for bit" in reason for reason in found) == 2
    assert [reason for reason in found if "differ" in reason] == ["the seeds differ: 1234 and 1"]
