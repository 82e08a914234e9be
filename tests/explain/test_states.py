"""Stored states are decoded without a weight being read; two of them are told apart; a card states what was proven."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from publish.cards.sentences import sentence
from publish.checkpoints import find_checkpoint
from publish.cli.inspect import inspect
from publish.explain.stored import (
    Constructions,
    constructions_before,
    rng_differences,
    stored_generators,
    stored_rng_state,
)
from publish.neox.checkpoint import RawCheckpoint, stored_states
from publish.neox.state import CPU, CUDA, TRACKER, decode
from publish.records.codec import canonical, read_record
from publish.records.manifest import Explanation, RngState
from publish.sources.files import LocalFiles
from publish.sources.runs import Location
from tests.conftest import shared
from tests.explain.neoxfiles import Drawn, Model, on_cpu, on_gpu
from tests.explain.test_explain import ask

PYTHIA_14M = {"embedding.weight": 50304 * 128, "unembedding.weight": 50304 * 128} | {
    f"layers.{i}.{name}": rows * 128
    for i in range(6)
    for name, rows in (("q", 384), ("d", 128), ("u", 512), ("o", 512))
}


def test_forms_that_torch_writes_are_decoded_and_others_are_not() -> None:
    raw = torch.Generator().manual_seed(2**40 + 3).get_state().numpy().tobytes()
    found = decode(raw)
    assert found is not None
    assert (found.generator, found.seed, found.offset) == (CPU, 2**40 + 3, None)
    for filler in (b"", bytes(800)):
        found = decode(filler + struct.pack("<Qq", 3952, 320))
        assert found is not None
        assert (found.generator, found.seed, found.offset) == (CUDA, 3952, 320)
    for broken in (b"", raw[:-1], bytes(5056), struct.pack("<Qq", 1, -4), struct.pack("<Qq", 1, 3), bytes(8)):
        assert decode(broken) is None, len(broken)


@pytest.mark.parametrize(
    ("offset", "times", "device"),
    [(176, 1, "V100"), (352, 2, "V100"), (160, 1, "A100"), (144, 1, "H100 SXM"), (12, 0, "")],
)
def test_an_offset_tells_gpus_and_constructions(offset: int, times: int, device: str) -> None:
    state = decode(struct.pack("<Qq", 3952, offset))
    assert state is not None
    found = constructions_before(PYTHIA_14M, state)
    assert any(each.times == times and device in each.devices for each in found) == bool(times)


def test_inspect_decodes_every_rank_and_reads_no_weight(tmp_path: Path) -> None:
    drawn = on_cpu(Model(tensor_parallel=2, vocabulary=4096, hidden=128))
    states = [struct.pack("<Qq", 3952 + rank, 320) for rank in range(2)]
    files = LocalFiles(Drawn(drawn.model, drawn.ranks, states).write(tmp_path / "step0"))
    source, _ = find_checkpoint(Location(tmp_path / "step0"))
    document = json.loads(json.dumps(inspect(source, files).document(tensors=False)))
    assert [one["run_seed"] for one in document["generators"]] == [1234, 1234]
    assert [one["seed"] for one in document["generators"]] == [3952, 3953]
    assert all(one["generator"] == CUDA and one["offset"] == 320 for one in document["generators"])
    assert set(document["training"]) >= {"learning_rate", "loss_scale", "skipped_steps", "random_states"}
    assert files.bytes_read < files.sizes["mp_rank_00_model_states.pt"]


@pytest.mark.parametrize("case", ["pythia_pipe_tp2", "pythia_pipe_pp2", "legacy_llama_pipe", "neox_alibi"])
def test_states_of_real_checkpoints(case: str) -> None:
    files = LocalFiles(shared(f"neox/{case}/global_step16"))
    checkpoint = RawCheckpoint.open(files, weights=False)
    found = [each for each in stored_generators(checkpoint) if each.name == TRACKER]
    assert [each.run_seed for each in found] == [1234] * len(stored_states(files))
    assert [each.state.seed for each in found] == [3952 + each.file % checkpoint.tensor_parallel for each in found]


def rng_state(folder: Path, drawn: Drawn) -> RngState:
    found = ask(drawn.write(folder)).explanation.rng_state
    assert found is not None
    return found


def said(left: RngState, right: RngState) -> list[str]:
    return [sentence(note) for note in rng_differences(left, right)]


def test_how_two_initialisations_differ(tmp_path: Path) -> None:
    base = rng_state(tmp_path / "base", on_cpu(Model()))
    assert rng_differences(base, base) == ()
    others = {
        "seeds differ: 1234 and 7": on_cpu(Model(seed=7)),
        "the draws before the first tensor differ": on_cpu(Model(sequential=False)),
        "split across 1 tensor-parallel rank and 2 tensor-parallel ranks": on_cpu(Model(tensor_parallel=2)),
        "generators differ: cpu-mt19937 and cuda-philox": on_gpu(Model(), 1024),
    }
    for number, (difference, drawn) in enumerate(others.items()):
        found = said(base, rng_state(tmp_path / str(number), drawn))
        assert any(difference in sentence for sentence in found), found


def test_how_two_gpus_differ(tmp_path: Path) -> None:
    model = Model(hidden=64)
    left, right = (rng_state(tmp_path / str(threads), on_gpu(model, threads)) for threads in (1024, 2048))
    (difference,) = said(left, right)
    assert "1,024 and 2,048 threads" in difference
    assert "from element 1,024 on" in difference
    named = replace(left, threads=None, devices=("V100",)), replace(left, threads=None, devices=("A100", "A30"))
    assert said(*named) == ["the GPUs differ: V100; A100 or A30"]


def test_stored_states_alone_are_compared_at_any_step(tmp_path: Path, samples: Path) -> None:
    late = RawCheckpoint.open(LocalFiles(samples / "global_step143000"))
    one = stored_rng_state(stored_generators(late), 1)
    assert one is not None
    assert (one.seed, one.seeds, one.position) == (1234, (3952,), None)
    gpus = []
    for threads in (1024, 2048):
        folder = on_gpu(Model(hidden=64), threads).write(tmp_path / str(threads))
        gpus.append(stored_rng_state(stored_generators(RawCheckpoint.open(LocalFiles(folder))), 1))
    assert None not in gpus
    (difference,) = said(*gpus)  # type: ignore[arg-type]
    assert "are at the offsets" in difference
    without = Drawn(Model(), on_cpu(Model()).ranks, [None]).write(tmp_path / "without")
    assert stored_rng_state(stored_generators(RawCheckpoint.open(LocalFiles(without))), 1) is None


def test_a_manifest_keeps_the_values_of_an_explanation(samples: Path) -> None:
    found = ask(samples, 0).explanation
    assert (found.outcome, found.bit_equal, found.values) == ("reproduced", 14_336, 14_336)
    assert read_record(Explanation, canonical(found), "here") == found
    assert ask(samples, 512).explanation.outcome == "not-reproduced"


def test_constructed_on_a_cpu_is_counted() -> None:
    drawn = on_cpu(Model())
    state = decode(drawn.states[0] or b"")
    assert state is not None
    elements = {name: rows * columns for name, (rows, columns), _ in drawn.model.drawn()}
    assert constructions_before(elements, state) == (Constructions(2),)
