"""A part of the fault campaign: every fault, every call of the protocol, over a whole release.

All of it, every fault at every call, is ``python -m tests.release.campaign``; its table is in docs/faults.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.campaign import FAULTS, RESUMED, RIGHT, Campaign, campaign

SEED = 20261124
LIE = "200 other JSON"  # it says that something was done which was not: only a later call may find that out
BY_DEFAULT = ("504 after", "429 Retry-After", "reset after", "truncated")  # the others are slow
READS = ("resolve", "cdn", "tree", "refs")


@pytest.fixture(scope="module")
def from_folder(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(samples, tmp_path_factory.mktemp("folder"), on_hub=False) as made:
        yield made


@pytest.fixture(scope="module")
def from_hub(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(samples, tmp_path_factory.mktemp("hub"), on_hub=True) as made:
        yield made


@pytest.fixture(autouse=True)
def _without_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_what_a_release_asks_for(from_folder: Campaign, from_hub: Campaign) -> None:
    once = {"commit": 4, "create-branch": 3, "preupload": 4, "lfs-verify": 2, "whoami": 1, "validate-yaml": 1}
    assert once.items() <= from_folder.calls.items()
    assert sum(from_folder.calls.values()) <= 3 * 8 + 18
    assert "cdn" in from_hub.calls.keys() - from_folder.calls.keys()
    assert from_hub.calls["resolve"] > from_folder.calls.get("resolve", 0)


@pytest.mark.parametrize(
    "fault", [fault if fault in BY_DEFAULT else pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS]
)
def test_a_fault_at_one_call(fault: str, from_folder: Campaign) -> None:
    calls = list(from_folder.every_call())
    random.Random(f"{SEED} {fault}").shuffle(calls)
    for route, nth in calls[:2]:
        became = from_folder.play(fault, route, nth)
        assert became == RIGHT or (became == RESUMED and fault == LIE), f"{route} {nth}: {became}"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_one_read_of_a_source_on_the_hub(fault: str, from_hub: Campaign) -> None:
    calls = [(route, nth) for route, nth in from_hub.every_call() if route in READS]
    route, nth = random.Random(f"{SEED} {fault}").choice(calls)
    became = from_hub.play(fault, route, nth)
    assert became == RIGHT or (became == RESUMED and fault == LIE), f"{route} {nth}: {became}"


@pytest.mark.slow
def test_a_fault_that_stays(from_folder: Campaign) -> None:
    routes = list(from_folder.calls)
    for number, fault in enumerate(FAULTS):
        route = routes[number % len(routes)]
        assert from_folder.play(fault, route, None) in (RIGHT, RESUMED), (fault, route)
