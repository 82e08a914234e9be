"""No code in a checkpoint ever runs, and a broken file is named, not guessed at."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publish.errors import CheckpointError, PublishError
from publish.formats.unpickler import unpickle
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.files import LocalFiles
from tests.conftest import SHARED
from tests.convert.rawfiles import write
from tests.convert.rawmodel import LLAMA, NEOX, Case
from tests.formats import hostile

NAME = "mp_rank_00_model_states.pt"


def opened(folder: Path, data: bytes) -> RawCheckpoint:
    (folder / NAME).write_bytes(data)
    return RawCheckpoint.open(LocalFiles(folder))


def test_a_pickle_that_calls_os_system_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(CheckpointError):
        opened(tmp_path, hostile.archive(hostile.calls_system(marker)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x05\x06" + bytes(18), id="empty zip"),
        pytest.param(hostile.archive(b"\x80\x02N."), id="not a dict"),
        pytest.param(hostile.archive(b"\x80\x02}."), id="no module"),
        pytest.param(hostile.archive(b"\x80\x02}." * 4, compress=True), id="compressed"),
        pytest.param(hostile.geometry(1, (4,), (1,)), id="offset past the storage"),
        pytest.param(hostile.geometry(0, (2, 4), (1, 2)), id="stride past the storage"),
        pytest.param(hostile.geometry(0, (2,), (-1,)), id="negative stride"),
        pytest.param(hostile.geometry(-1, (2,), (1,)), id="negative offset"),
        pytest.param(hostile.geometry(0, (2**40, 2**40), (0, 0)), id="endless by stride 0"),
        pytest.param(hostile.geometry(0, (4,), (1, 1)), id="shape and stride of different rank"),
        pytest.param(hostile.geometry(0, (4,), (1,), key="../0"), id="storage key with a path"),
        pytest.param(hostile.geometry(0, (4,), (1,), count=5), id="storage of another size"),
        pytest.param(hostile.geometry(0, (4,), (1,), key="7"), id="absent storage"),
        pytest.param(hostile.archive(b"\x80\x02X\xff\xff\xff\x7f."), id="huge length"),
        pytest.param(hostile.archive(b"\x80\x02cos\nsystem\n(X\x01\x00\x00\x00xtR."), id="reduce as root"),
        pytest.param(hostile.archive(b"\x80\x02" + b"(" * 100_000 + b"."), id="marks only"),
        pytest.param(hostile.archive(b"\x80\x02]q\x00h\x00a."), id="recursive list"),
    ],
)
def test_broken_and_hostile_files_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PublishError) as caught:
        opened(tmp_path, data)
    assert NAME in caught.value.where or str(tmp_path) in caught.value.where


def test_every_truncation_of_a_real_file_is_refused(tmp_path: Path, samples: Path) -> None:
    whole = (samples / "global_step0" / NAME).read_bytes()
    for length in range(0, len(whole), 997):
        with pytest.raises(PublishError):
            opened(tmp_path, whole[:length])


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_and_import_nothing(data: bytes) -> None:
    before = set(sys.modules)
    with contextlib.suppress(CheckpointError):
        unpickle(b"\x80\x02" + data, "here")
    assert set(sys.modules) == before


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_one_wrong_byte_in_a_real_file_is_no_crash(tmp_path: Path, samples: Path, place: int, value: int) -> None:
    data = bytearray((samples / "global_step1" / NAME).read_bytes())
    data[place % len(data)] = value
    with contextlib.suppress(PublishError):
        opened(tmp_path, bytes(data))


def watched(module: str, *arguments: object) -> dict[str, object]:
    """What a module of the tests printed as JSON, run in a process of its own: the audit hook stays for its life."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_small_files_that_ask_for_endless_work_are_refused_at_once() -> None:
    found = watched("tests.formats.bombs")
    assert found["audit"] == []
    bombs = found["bombs"]
    assert isinstance(bombs, dict)
    assert set(bombs) == set(hostile.BOMBS)
    for name, bomb in bombs.items():
        assert bomb["refused"], name
        assert bomb["seconds"] < 2, (name, bomb)
        assert bomb["mb"] < 200, (name, bomb)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_checkpoints(count: int, tmp_path: Path, samples: Path) -> None:
    """No crash, no hang, bounded memory, nothing imported, opened or executed."""
    write(tmp_path / "pipeline", Case(NEOX, tensor_parallel=2), stages=1)
    write(tmp_path / "sequential", Case(LLAMA, attention_biases=False), stages=0)
    real = sorted((SHARED / "neox").glob("*/global_step16"))
    folders = [samples / "global_step1", tmp_path / "pipeline", tmp_path / "sequential", *real]
    found = watched("tests.formats.fuzz", count, 20261124, *folders)
    assert found["audit"] == []
    assert found["slowest_seconds"] < 2
    assert found["peak_mb"] < 300
    assert found["read"] > count // 100  # the mutations are not all of one, trivial kind
    assert found["refused"] > count // 2
