"""Steps that are begun before the model is known: bounded, never published before their gates, and cleared away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from publish.errors import GateError, ProcessError
from publish.hub.client import Client
from publish.rehearsal.server import RehearsalHub
from publish.release.executors import LocalEngine
from publish.release_file import preflight
from publish.verify.apart import here
from publish.verify.hf_model import skeleton
from publish.verify.logits import logits
from tests.release.processes import start
from tests.release.releases import TARGET, few, run_release

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
WORKERS = 2


class Late:
    """Computes here, but nothing before ``now`` is set."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __call__(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        assert self.now.wait(60)
        return here(function, *arguments)


def begun(folder: Path) -> set[str]:
    return {path.name for path in (folder / "work").glob("steps-*/step*")}


def settled(folder: Path, count: int) -> int:
    """How many steps are begun, once there are ``count`` and time for more."""
    end = time.monotonic() + 30
    while len(begun(folder)) < count and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    return len(begun(folder))


@pytest.mark.parametrize("room", [10**9, 0], ids=["small steps", "large steps"])
def test_steps_wait_for_the_model(
    room: int,
    samples: Path,
    tmp_path: Path,
    hub: RehearsalHub,
    client_of: Callable[[str], Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "_AHEAD", room)
    run, compute = few(samples, tmp_path, STEPS), Late()
    engine = LocalEngine(compute)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(run_release, run, client_of("hf_alice"), tmp_path, workers=WORKERS, engine=engine)
        try:
            due = len(STEPS) if room else WORKERS
            assert settled(tmp_path, due) == due
            assert set(hub.stats().requests) & {"commit", "create-branch", "lfs-batch", "lfs-upload"} == set()
        finally:
            compute.now.set()
        done = outcome.result(60)
    assert (done.published, done.failed, done.main) == (STEPS, (), "published")
    assert done.gates["strict-load passed"] == len(STEPS)
    assert done.gates["logits passed"] == 2
    assert begun(tmp_path) == set()


def test_a_model_that_cannot_be_built_is_every_steps_failure(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: Callable[[str], Client]
) -> None:
    def refusing(function: Callable[..., Any], /, *arguments: object) -> Any:
        if function is skeleton:
            raise GateError("transformers cannot build this model", "config.json", "mend it")
        return here(function, *arguments)

    run = few(samples, tmp_path, STEPS)
    outcome = run_release(run, client_of("hf_alice"), tmp_path, engine=LocalEngine(refusing))
    assert [each.step for each in outcome.failed] == list(STEPS)
    assert {each.kind for each in outcome.failed} == {"gate"}
    assert all("strict-load: transformers cannot build" in each.detail for each in outcome.failed)
    assert [branch.name for branch in HfApi(endpoint=hub.url).list_repo_refs(TARGET).branches] == ["main"]
    assert begun(tmp_path) == set()


def test_a_process_that_ends_fails_its_step_alone(
    samples: Path, tmp_path: Path, client_of: Callable[[str], Client]
) -> None:
    def dying(function: Callable[..., Any], /, *arguments: object) -> Any:
        if function is logits:
            raise ProcessError("the process ended: signal 9", "python", "free memory")
        return here(function, *arguments)

    run, client = few(samples, tmp_path, STEPS), client_of("hf_alice")
    first = run_release(run, client, tmp_path, engine=LocalEngine(dying))
    assert {each.step: each.kind for each in first.failed} == {0: "process", 64: "process"}
    assert first.published == STEPS[1:-1]
    again = run_release(run, client, tmp_path)
    assert (again.published, again.main) == ((0, 64), "published")


NAMED = """
import sys
from publish.cli import main
try:
    main()
finally:
    print(*({"torch", "transformers"} & sys.modules.keys()), file=sys.stderr)
"""


def test_the_process_that_publishes_imports_neither_torch_nor_transformers(
    samples: Path, tmp_path: Path, hub: RehearsalHub
) -> None:
    run = few(samples, tmp_path)
    out, err = start(hub.url, run, tmp_path / "work", "--json", code=NAMED).communicate(timeout=60)
    document = json.loads(out)
    assert err.strip() == ""
    assert document["gates"] == {**dict.fromkeys(document["gates"], 4), "logits passed": 2, "logits skipped": 2}
