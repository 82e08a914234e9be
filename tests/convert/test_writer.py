"""One pass over the weights: every byte is read once, and the file is what safetensors itself would write."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xxhash
from safetensors.numpy import save

from publish.convert import folder as folders
from publish.convert.folder import staged_folder, write_folder
from publish.convert.hfconfig import with_overrides
from publish.convert.plan import Recipe, make_plan
from publish.convert.writer import Digest, streams, write_weights
from publish.errors import StorageError
from publish.formats.dtypes import cast, from_float32, to_float32
from publish.interrupt import Interrupted
from publish.neox.checkpoint import RawCheckpoint
from tests.convert.rawmodel import LLAMA, NEOX, Case, checkpoint_of, config_of, hf_model, raw_of, split, written_arrays


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_file_is_what_safetensors_would_write(ranks: int, tmp_path: Path) -> None:
    case = Case(NEOX, tensor_parallel=ranks)
    model, raw = raw_of(case)
    written = write_weights(raw, make_plan(raw, config_of(case)), tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    assert content == save(model, {"format": "pt"})
    (file,) = written.files
    assert (file.path, file.size, file.sha256) == (
        "model.safetensors",
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert {tensor.name: tensor.xxh3 for tensor in written.tensors} == {
        name: xxhash.xxh3_128_hexdigest(array.tobytes()) for name, array in model.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_whole_tensors_are_streamed() -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    plan = make_plan(raw, config_of(case))
    assert all(streams(recipe) for recipe in plan.recipes)


def test_bytes_read_are_the_weights(tmp_path: Path) -> None:
    case = Case(replace(LLAMA, kv_heads=2), tensor_parallel=2, attention_biases=False)
    _, raw = raw_of(case)
    plan = make_plan(raw, config_of(case))
    norms = 5 * 16 * 2  # compared on both ranks, then written
    assert write_weights(raw, plan, tmp_path).bytes_read == plan.weight_bytes + 2 * norms


def test_the_observer_sees_every_tensor_in_order(tmp_path: Path) -> None:
    case = Case(LLAMA, tensor_parallel=2)
    model, raw = raw_of(case)
    seen: dict[str, bytes] = {}

    def observe(recipe: Recipe, chunk: memoryview, before: Digest) -> None:
        assert before.digest() == Digest(seen.get(recipe.name, b"")).digest()
        seen[recipe.name] = seen.get(recipe.name, b"") + bytes(chunk)

    write_weights(raw, make_plan(raw, config_of(case)), tmp_path, observe)
    assert seen == {name: array.tobytes() for name, array in model.items()}


def test_shards_have_an_index(tmp_path: Path) -> None:
    case = Case(NEOX)
    model, raw = raw_of(case)
    plan = make_plan(raw, config_of(case), max_file_bytes=3000)
    written = write_weights(raw, plan, tmp_path)
    assert written_arrays(tmp_path) == {name: array.tobytes() for name, array in model.items()}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())
    assert index["metadata"] == {"total_size": plan.weight_bytes}
    assert index["weight_map"].keys() == model.keys()
    assert set(index["weight_map"].values()) == {file.path for file in written.files[:-1]}


def test_tensors_with_strides(tmp_path: Path) -> None:
    case = Case(NEOX)
    model, raw = raw_of(case)
    name = "layers.0.mlp.linear1.weight"
    dense = raw.ranks[0][name]
    transposed = split(case, model)[0] | {name: model["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"].T}
    other = checkpoint_of([transposed], case.dtype)
    view = replace(other.ranks[0][name], shape=dense.shape, stride=(1, dense.shape[0]))
    tensors = dict(other.ranks[0]) | {name: view}
    strided = RawCheckpoint("memory", other.files, "sequential", 1, 0, (tensors,), other.state)
    write_weights(strided, make_plan(strided, config_of(case)), tmp_path)
    assert written_arrays(tmp_path) == {key: array.tobytes() for key, array in model.items()}


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
def test_casts_equal_those_of_torch(source: str, target: str, tmp_path: Path) -> None:
    import torch

    case = Case(NEOX, dtype=source, tensor_parallel=2)
    model, raw = raw_of(case)
    plan = make_plan(raw, config_of(case), dtype=target)
    write_weights(raw, plan, tmp_path)
    assert bool(plan.notes) == (source != target)
    views = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    for name, content in written_arrays(tmp_path).items():
        array = torch.from_numpy(model[name].view("<i2" if source != "float32" else "<i4").copy()).view(views[source])
        expected = array.to(views[target]).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert content == expected, name


def test_bfloat16_rounds_as_torch_does() -> None:
    import torch

    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 100_000, dtype=np.uint32)
    numbers = bits.view("<f4")
    expected = torch.from_numpy(numbers.copy()).bfloat16()
    mine = from_float32(numbers, "bfloat16")
    finite = ~np.isnan(numbers)
    assert (mine[finite] == expected.view(torch.uint16).numpy()[finite]).all()
    assert np.isnan(to_float32(mine, "bfloat16")[~finite]).all()
    every = np.arange(2**16, dtype="<u2")
    wide = torch.from_numpy(every.view("<i2").copy()).view(torch.bfloat16).float().numpy()
    assert (to_float32(every, "bfloat16").view("<u4") == wide.view("<u4")).all()
    assert cast(every, "bfloat16", "bfloat16") is every


def fails_after(raw: RawCheckpoint, reads: int, error: BaseException) -> None:
    (file,) = raw.files.files.values()  # type: ignore[attr-defined]
    read = file.read

    def failing(offset: int, length: int) -> bytes:
        if len(file.reads) >= reads:
            raise error
        return bytes(read(offset, length))

    file.read = failing


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_a_failure_leaves_nothing_on_disk(error: BaseException, tmp_path: Path) -> None:
    case = Case(NEOX)
    for reads in (0, 7, 27):
        _, raw = raw_of(case)
        plan = make_plan(raw, config_of(case))
        fails_after(raw, reads, error)
        with pytest.raises(type(error)), staged_folder(tmp_path / "out", overwrite=False) as staged:
            write_folder(raw, plan, None, staged.path)
        assert list(tmp_path.iterdir()) == []


def test_stop_is_checked_before_each_chunk(tmp_path: Path) -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    plan, stop, seen = make_plan(raw, config_of(case)), threading.Event(), []

    def observe(recipe: Recipe, _chunk: memoryview, _digest: Digest) -> None:
        seen.append(recipe.name)
        stop.set()

    with pytest.raises(Interrupted), staged_folder(tmp_path / "out", overwrite=False) as staged:
        write_folder(raw, plan, None, staged.path, observe, stop)
    assert len(seen) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left_is_a_storage_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    open_file = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith("model-00003"):
            raise OSError(code, os.strerror(code), str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    plan = make_plan(raw, config_of(case), max_file_bytes=3000)
    with (
        pytest.raises(StorageError, match=os.strerror(code)) as caught,
        staged_folder(tmp_path / "out", overwrite=False) as staged,
    ):
        write_folder(raw, plan, None, staged.path)
    assert "free some space" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_space_is_checked_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="are needed and 1,000 are free"):
        write_folder(raw, make_plan(raw, config_of(case)), None, tmp_path / "deep" / "out")
    assert raw.files.bytes_read == 0
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    (tmp_path / f".out.tmp-{os.getpid()}" / "deep").mkdir(parents=True)
    with staged_folder(tmp_path / "out", overwrite=False) as staged:
        write_folder(raw, make_plan(raw, config_of(case)), None, staged.path)
        staged.keep()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "deep").exists()


def test_convert_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, publish.convert.folder, publish.convert.plan, publish.convert.tokenizer\n"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_existing_folder_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"), staged_folder(out, overwrite=False):
        pass
    with staged_folder(out, overwrite=True) as staged:
        staged.path.mkdir()
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with staged_folder(out, overwrite=True) as staged:
        staged.path.mkdir()
        (staged.path / "new.txt").write_text("new")
        staged.keep()
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(StorageError, match="is a file or a link"), staged_folder(out / "new.txt", overwrite=True):
        pass


def test_files_are_recorded_with_size_and_sha256(tmp_path: Path) -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    plan = with_overrides(make_plan(raw, config_of(case)), {"hidden_act": "gelu"})
    for file in write_folder(raw, plan, None, tmp_path).files:
        content = (tmp_path / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert json.loads((tmp_path / "config.json").read_bytes())["hidden_act"] == "gelu"


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("ranks", [1, 2])
def test_memory_is_bounded_by_the_largest_tensor(ranks: int, tmp_path: Path) -> None:
    network = replace(NEOX, layers=6, hidden=512, heads=8, kv_heads=8)
    case = Case(network, tensor_parallel=ranks, vocabulary=64, intermediate=16384)
    ranked = split(case, hf_model(case))
    raw = checkpoint_of(ranked, case.dtype)
    del ranked
    plan = make_plan(raw, config_of(case))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    write_weights(raw, plan, tmp_path)
    peak = tracemalloc.get_traced_memory()[1] - before
    assert plan.weight_bytes > 10 * plan.largest_tensor
    assert peak <= 2 * plan.largest_tensor + (2 << 20)
