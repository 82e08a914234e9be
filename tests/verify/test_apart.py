"""Computing in a process of its own: results and errors as here, files stay with their owner, nothing lingers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from publish.errors import GateError, ProcessError, SourceError
from publish.interrupt import Interrupted
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.files import CheckpointFile, CheckpointFiles, Checksum
from publish.verify.apart import Apart, here
from publish.verify.gates import first_gates
from publish.verify.hf_model import Models, strict_load
from publish.verify.logits import logits
from tests.conftest import shared
from tests.convert.rawmodel import NEOX, Case, config_of, raw_of
from tests.verify.faults import evidence_of, raw_case
from tests.verify.test_forward import CASES


@pytest.fixture(scope="module")
def compute() -> Iterator[Apart]:
    apart = Apart()
    yield apart
    apart.close()


@dataclass(frozen=True)
class Watched:
    """The files of a checkpoint, of which every read is counted, and the ``fails_at``-th raises ``error``."""

    files: CheckpointFiles
    reads: list[str]
    wants: list[str]
    fails_at: int = 0
    error: Exception | None = None

    @property
    def where(self) -> str:
        return self.files.where

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.files.sizes

    @property
    def bytes_read(self) -> int:
        return self.files.bytes_read

    def open(self, name: str) -> CheckpointFile:
        self.reads.append(name)
        if self.error is not None and len(self.reads) >= self.fails_at:
            raise self.error
        return self.files.open(name)

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        self.wants.append(name)

    def digest(self, name: str) -> str | None:
        return f"git:{name}"

    def close(self) -> None:
        self.files.close()


def watched(raw: RawCheckpoint, fails_at: int = 0, error: Exception | None = None) -> tuple[RawCheckpoint, Watched]:
    files = Watched(raw.files, [], [], fails_at, error)
    return replace(raw, files=files), files


def told(raw: RawCheckpoint) -> tuple[str | None, int, bytes]:
    """Everything else that one can ask of lent files."""
    name = next(iter(raw.files.sizes))
    raw.files.prefetch(name, [(0, 4)], (Checksum(0, 4, 1),))
    start = raw.files.open(name).read(0, 4)
    raw.files.close()
    return raw.files.digest(name), raw.files.bytes_read, bytes(start)


@pytest.mark.parametrize("case", CASES)
def test_every_gate_says_the_same_there(case: str, tmp_path: Path, compute: Apart) -> None:
    evidence = evidence_of(*raw_case(shared(f"neox/{case}") / "global_step16"), tmp_path / "out")
    compute.share(os.cpu_count() or 1)
    mine, theirs = (first_gates(replace(evidence, models=Models(each))) for each in (here, compute))
    assert [each.outcome for each in mine] == [each.outcome for each in theirs]
    assert [each.name for each in mine] == [each.name for each in theirs]
    assert mine[5] == theirs[5]


def test_files_are_read_by_their_owner(tmp_path: Path, compute: Apart) -> None:
    evidence = evidence_of(raw_of(Case(NEOX))[1], config_of(Case(NEOX)), tmp_path / "out")
    raw, files = watched(evidence.checkpoint)
    assert compute(logits, raw, evidence.plan, evidence.folder).outcome == "passed"
    assert len(files.reads) > 20
    digest, read, start = compute(told, raw)
    name = next(iter(raw.files.sizes))
    assert (digest, read, files.wants) == (f"git:{name}", raw.files.bytes_read, [name])
    assert start == bytes(raw.files.open(name).read(0, 4))


@pytest.mark.parametrize(
    "error", [SourceError("the disk is gone", "/data", "look for it"), Interrupted("interrupted", "here", "go on")]
)
def test_an_error_of_the_files_comes_back_as_it_was(error: SourceError, tmp_path: Path, compute: Apart) -> None:
    evidence = evidence_of(raw_of(Case(NEOX))[1], config_of(Case(NEOX)), tmp_path / "out")
    raw, files = watched(evidence.checkpoint, 5, error)
    with pytest.raises(type(error)) as caught:
        compute(logits, raw, evidence.plan, evidence.folder)
    assert str(caught.value) == str(error)
    assert len(files.reads) == 5


def process_id() -> int:
    return os.getpid()


def spin() -> None:
    while True:
        pass


def refuse(what: str) -> None:
    raise GateError(what, "there", "mend it")


def stumble() -> None:
    sys.stdout.write("to nobody\n")
    raise KeyError("a bug of ours")


def test_what_goes_wrong_there_is_told_here_and_the_process_lives_on(compute: Apart) -> None:
    before = compute(process_id)
    assert before != os.getpid()
    with pytest.raises(GateError, match="not this one") as caught:
        compute(refuse, "not this one")
    assert caught.value.exit_code == 1
    with pytest.raises(RuntimeError, match=r"(?s)in stumble.*KeyError: .a bug of ours"):
        compute(stumble)
    assert compute(process_id) == before


def test_what_cannot_be_sent_is_told_too(compute: Apart) -> None:
    with pytest.raises(Exception, match="lambda"):
        compute(lambda: 1)
    with pytest.raises(RuntimeError, match="pickle"):
        compute(threading.Lock)
    assert compute(process_id) > 0


def test_a_process_that_is_killed_is_named_and_replaced() -> None:
    compute = Apart()
    first = compute(process_id)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(compute, time.sleep, 60)
        time.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ProcessError, match="ended: signal 9") as caught:
            waiting.result(timeout=10)
    assert "memory" in caught.value.fix
    second = compute(process_id)
    assert second != first
    os.kill(second, signal.SIGKILL)  # while nobody asks it anything: then nobody is told
    os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
    assert compute(process_id) not in (first, second)
    compute.close()


def test_no_more_processes_than_threads_and_one_where_one_is_enough() -> None:
    compute = Apart()
    compute.share(2)
    assert len({compute(process_id) for _ in range(3)}) == 1
    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(lambda _: (compute(time.sleep, 0.2), compute(process_id))[1], range(12)))
    assert 1 <= len(ids) <= 2
    compute.close()
    assert not [each for each in ids if Path(f"/proc/{each}").exists()]


def test_one_skeleton_is_computed_for_all_threads(tmp_path: Path) -> None:
    evidence = evidence_of(raw_of(Case(NEOX))[1], config_of(Case(NEOX)), tmp_path / "out")
    asked = []

    def counted(function: object, /, *arguments: object) -> object:
        asked.append(function)
        return here(function, *arguments)  # type: ignore[arg-type]

    models = Models(counted)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: strict_load(evidence.folder, models), range(32)))
    assert {each.outcome for each in results} == {"passed"}
    assert len(asked) == 1


ORPHAN = """
import threading, time
from publish.verify.apart import apart
from tests.verify.test_apart import process_id, spin
print(apart(process_id), flush=True)
apart({work})
"""


@pytest.mark.parametrize("work", ["time.sleep, 600", "spin"])
def test_it_ends_with_a_parent_that_is_killed(work: str) -> None:
    code = ORPHAN.format(work=work)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
