"""Random states: what the generators stored in a checkpoint reveal, which seeds to try, and how two states differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publish.explain.construction import in_order
from publish.explain.generators import THREADS, advance
from publish.explain.models import InitialModel
from publish.explain.streams import CpuStream, words_for
from publish.neox.checkpoint import RawCheckpoint, stored_states
from publish.neox.state import CPU, CUDA, TRACKER, RandomState
from publish.records.manifest import Note, RngState, note

# deepspeed runtime/activation_checkpointing/checkpointing.py, model_parallel_cuda_manual_seed: rank r's generator of
# weights is seeded with this + seed + r, the default generator with the seed
TRACKER_SEED = 2718
MODEL_PARALLEL, DEFAULT = "model-parallel-rng", "default generator"
SEED_OFFSETS = {MODEL_PARALLEL: TRACKER_SEED, DEFAULT: 0}
UNSTATED = range(10_000)  # run seeds that are tried if nothing states one
MOST_CONSTRUCTIONS = 3  # constructions that a stored state is compared with
_REACH = 1 << 32  # words of a CPU's stream that are drawn at most: 20 seconds


# ---- what to try


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kind of generator and the run seeds to try with it.

    ``rng`` is GPT-NeoX's generator, `MODEL_PARALLEL` or `DEFAULT`, which decides what the kind is seeded with.
    ``source`` says in words where the seeds come from.
    """

    generator: str
    seeds: Sequence[int]
    rng: str
    source: str

    def generator_seed(self, seed: int) -> int:
        """What rank 0's generator is seeded with in a run with ``seed``."""
        return SEED_OFFSETS[self.rng] + seed


def candidates(model: InitialModel, asked: Sequence[int] | None) -> Iterator[Candidate]:
    """What to try, the likeliest first: only ``asked`` if given, else the stored state, else the config's seed."""
    stored = model.stored
    kinds = (CPU, CUDA) if stored is None else (stored.generator,)
    if asked is not None:
        yield from _with_seeds(model, kinds, asked, "as requested")
        return
    known = None if stored is None or stored.seed < TRACKER_SEED else stored.seed - TRACKER_SEED
    if stored is not None and known is not None:
        yield Candidate(stored.generator, (known,), MODEL_PARALLEL, "from the stored state")
    if model.seed is not None:
        yield from _with_seeds(model, () if model.seed == known else kinds, (model.seed,), "from the config")
    elif stored is None:
        yield from _with_seeds(model, kinds, UNSTATED, "tried because none is stated")


def _with_seeds(model: InitialModel, kinds: Sequence[str], seeds: Sequence[int], source: str) -> Iterator[Candidate]:
    for kind in kinds:
        yield Candidate(kind, seeds, MODEL_PARALLEL, source)
    if model.tensor_parallel == 1:  # use_cpu_initialization: whole tensors from the default generator, on a CPU
        yield Candidate(CPU, seeds, DEFAULT, source)


def rank_seed(model: InitialModel, first: int, rank: int) -> int:
    """The seed of a rank's generator if rank 0's is ``first``: the stored one if rank 0's is stored too."""
    states = model.states
    if rank < len(states) and states[0] is not None and states[0].seed == first:
        stored = states[rank]
        if stored is not None:
            return stored.seed
    return first + rank


# ---- what a stored state reveals


@dataclass(frozen=True, slots=True)
class Constructions:
    """A state after the model was constructed ``times`` times; on a GPU, on one of ``devices``."""

    times: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredGenerator:
    """One generator in one ``mp_rank`` file. ``run_seed`` and ``constructions`` are those of the weights' generator.

    ``run_seed`` is None for the inner stages of a pipeline, whose generators are seeded otherwise.
    """

    file: int
    name: str
    state: RandomState
    run_seed: int | None = None
    constructions: tuple[Constructions, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON, without the state itself."""
        return {
            "mp_rank": self.file,
            "name": self.name,
            "generator": self.state.generator,
            "seed": self.state.seed,
            "offset": self.state.offset,
            "run_seed": self.run_seed,
            "constructed": [{"times": found.times, "devices": list(found.devices)} for found in self.constructions],
        }


def stored_generators(checkpoint: RawCheckpoint) -> tuple[StoredGenerator, ...]:
    """Every generator whose state a raw checkpoint holds, decoded without reading a weight.

    A CUDA offset reveals how often the model was constructed, and on which GPUs.

    Raises:
        CheckpointError: a damaged file.
    """
    found = []
    ranks, single = checkpoint.tensor_parallel, checkpoint.pipeline_parallel <= 1
    for number, states in enumerate(stored_states(checkpoint.files)):
        rank = number % ranks
        names = in_order(checkpoint.ranks[rank])
        elements = {name: checkpoint.ranks[rank][name].elements for name in names}
        for name, state in states.items():
            if name != TRACKER:
                found.append(StoredGenerator(number, name, state))
                continue
            seed = state.seed - TRACKER_SEED - rank
            outer = number // ranks in (0, max(1, checkpoint.pipeline_parallel) - 1)
            decided = single and elements and state.generator == CUDA
            run_seed = seed if outer and seed >= 0 else None
            constructions = constructions_before(elements, state) if decided else ()
            found.append(StoredGenerator(number, name, state, run_seed, constructions))
    return tuple(found)


def constructions_before(elements: Mapping[str, int], state: RandomState) -> tuple[Constructions, ...]:
    """Every number of constructions after which a generator is in ``state``.

    ``elements`` are those of one rank's drawn tensors. A CPU's stream is drawn as far as three models take; a GPU's
    offset needs no drawing.
    """
    if state.generator == CUDA:
        moved = {gpu: sum(advance(size, threads) for size in elements.values()) for gpu, threads in THREADS.items()}
        numbers = range(1, MOST_CONSTRUCTIONS + 1)
        fitting = ((times, tuple(gpu for gpu in moved if times * moved[gpu] == state.offset)) for times in numbers)
        return tuple(Constructions(times, devices) for times, devices in fitting if devices)
    size, stream = _words(elements), CpuStream(state.seed)
    numbers = range(1, constructions_within_reach(elements) + 1)
    return tuple(Constructions(times) for times in numbers if stream.state(times * size).same_place(state))


def constructions_within_reach(elements: Mapping[str, int]) -> int:
    """With how many constructions on a CPU a state is compared."""
    return min(MOST_CONSTRUCTIONS, _REACH // _words(elements))


def _words(elements: Mapping[str, int]) -> int:
    return sum(words_for(size) for size in elements.values())


def stored_rng_state(stored: tuple[StoredGenerator, ...], tensor_parallel: int) -> RngState | None:
    """What stored states reveal at any step; None if those of the weights' generators are not all there."""
    weights = [generator for generator in stored if generator.name == TRACKER][:tensor_parallel]
    if len(weights) < tensor_parallel:
        return None
    first = weights[0]
    return RngState(
        generator=first.state.generator,
        seed=first.run_seed,
        seeds=tuple(generator.state.seed for generator in weights),
        devices=tuple(dict.fromkeys(gpu for found in first.constructions for gpu in found.devices)),
        after=first.state.offset,
    )


# ---- how two states differ


def rng_differences(left: RngState, right: RngState) -> tuple[Note, ...]:
    """Every difference of two random states; empty if they are one state.

    What one of them does not reveal is not compared.
    """
    return tuple(_differences(left, right))


def _differences(left: RngState, right: RngState) -> Iterator[Note]:
    if left.seed != right.seed and None not in (left.seed, right.seed):
        yield note("seeds-differ", left=left.seed, right=right.seed)
    elif left.seeds[:1] != right.seeds[:1]:
        yield note("generator-seeds-differ", left=left.seeds[0], right=right.seeds[0])
    if left.generator != right.generator:
        yield note("generators-differ", left=left.generator, right=right.generator)
    if len(left.seeds) != len(right.seeds):
        yield note("ranks-differ", left=len(left.seeds), right=len(right.seeds))
    if left.generator == right.generator:
        yield from _position_differences(left, right)


def _position_differences(left: RngState, right: RngState) -> Iterator[Note]:
    if left.position is not None and right.position is not None and left.position != right.position:
        code = "draws-before-differ" if left.generator == CPU else "offset-before-differs"
        yield note(code, left=left.position, right=right.position)
    stored_only = left.position is None and right.position is None
    if stored_only and left.after is not None and right.after is not None and left.after != right.after:
        yield note("offset-after-differs", left=left.after, right=right.after)
    devices = {"left_devices": _devices(left), "right_devices": _devices(right)}
    if left.threads is not None and right.threads is not None and left.threads != right.threads:
        first = min(left.threads, right.threads)
        yield note("gpu-threads-differ", left=left.threads, right=right.threads, first=first, **devices)
    elif left.devices and right.devices and not set(left.devices) & set(right.devices):
        yield note("gpus-differ", **devices)


def _devices(state: RngState) -> str:
    return " or ".join(state.devices) or "none of the known GPUs"
