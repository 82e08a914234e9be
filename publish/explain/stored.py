"""What a stored generator state tells by itself: after how many constructions of the model it stands, on which GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publish.explain.construction import in_order
from publish.explain.cuda_generator import THREADS, advance
from publish.explain.streams import CpuStream, words_for
from publish.explain.subject import Subject
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.state import CPU, CUDA, TRACKER, RandomState, stored_states
from publish.records.manifest import Note, SeededGenerator, note

# Which seeds are tried, and what the generators are seeded with for each.


# deepspeed runtime/activation_checkpointing/checkpointing.py, model_parallel_cuda_manual_seed: rank r's generator of
# weights is seeded with this + seed + r, the default one with the seed
TRACKER_SEED = 2718
DEFAULT_SEED = 1234  # gpt-neox neox_arguments: seed
MODEL_PARALLEL, DEFAULT = "model-parallel-rng", "default generator"
ORIGINS = {MODEL_PARALLEL: TRACKER_SEED, DEFAULT: 0}
UNSTATED = range(10_000)  # run seeds that are tried where nothing tells one


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kind of generator, and the run seeds to try with it. ``origin`` says what the generator is seeded with.

    ``source`` says in words where the seeds are from.
    """

    generator: str
    seeds: Sequence[int]
    origin: str
    source: str

    def generator_seed(self, seed: int) -> int:
        """What rank 0's generator is seeded with for the run seed."""
        return ORIGINS[self.origin] + seed


def candidates(subject: Subject, asked: Sequence[int] | None) -> Iterator[Candidate]:
    """What to try, most telling first: ``asked`` alone where given, else the stored state, else the config's seed."""
    stored = next((state for state in subject.states if state is not None), None)
    kinds = (CPU, CUDA) if stored is None else (stored.generator,)
    if asked is not None:
        yield from _seeded(subject, kinds, asked, "as asked")
        return
    known = None if stored is None or stored.seed < TRACKER_SEED else stored.seed - TRACKER_SEED
    if stored is not None and known is not None:
        yield Candidate(stored.generator, (known,), MODEL_PARALLEL, "of the stored state")
    if subject.seed is not None:
        yield from _seeded(subject, () if subject.seed == known else kinds, (subject.seed,), "of the config")
    elif stored is None:
        yield from _seeded(subject, kinds, UNSTATED, "tried for want of a stated one")


def _seeded(subject: Subject, kinds: Sequence[str], seeds: Sequence[int], source: str) -> Iterator[Candidate]:
    for kind in kinds:
        yield Candidate(kind, seeds, MODEL_PARALLEL, source)
    if subject.tensor_parallel == 1:  # use_cpu_initialization: whole tensors, the default generator, on a CPU
        yield Candidate(CPU, seeds, DEFAULT, source)


def rank_seed(subject: Subject, first: int, rank: int) -> int:
    """The seed of a rank's generator when rank 0's is ``first``: the stored one where rank 0's is the stored one."""
    states: tuple[RandomState | None, ...] = subject.states
    if rank < len(states) and states[0] is not None and states[0].seed == first:
        stored = states[rank]
        if stored is not None:
            return stored.seed
    return first + rank


MOST = 3  # constructions that are looked for
REACH = 1 << 32  # words of a CPU's stream that are drawn at most: 20 seconds


@dataclass(frozen=True, slots=True)
class Constructed:
    """The state is that after ``times`` constructions of the model; on a GPU, on one of ``devices``."""

    times: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredGenerator:
    """One generator in one ``mp_rank`` file. ``run_seed`` and ``constructed`` are those of the weights' generator.

    ``run_seed`` is None for the inner stages of a pipeline, whose generators are seeded otherwise.
    """

    file: int
    name: str
    state: RandomState
    run_seed: int | None = None
    constructed: tuple[Constructed, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON; the state itself is left out."""
        return {
            "mp_rank": self.file,
            "name": self.name,
            "generator": self.state.generator,
            "seed": self.state.seed,
            "offset": self.state.offset,
            "run_seed": self.run_seed,
            "constructed": [{"times": each.times, "devices": list(each.devices)} for each in self.constructed],
        }


def stored_generators(checkpoint: RawCheckpoint) -> tuple[StoredGenerator, ...]:
    """Every generator whose state a raw checkpoint holds, decoded without reading a weight.

    How often the model was constructed, and on which GPUs, follows from a CUDA offset alone.

    Raises:
        CheckpointError: a broken file.
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
            fits = constructed(elements, state) if single and elements and state.generator == CUDA else ()
            found.append(StoredGenerator(number, name, state, seed if outer and seed >= 0 else None, fits))
    return tuple(found)


def constructed(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    """Every number of constructions that leaves ``state``; ``elements`` are those of one rank's drawn tensors.

    No weight is needed. A CPU's stream is drawn as far as three models take, which a GPU's offset spares.
    """
    return _by_offset(elements, state) if state.generator == CUDA else _by_drawing(elements, state)


def _by_offset(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    sizes = {name: sum(advance(count, threads) for count in elements.values()) for name, threads in THREADS.items()}
    found = []
    for times in range(1, MOST + 1):
        devices = tuple(name for name, size in sizes.items() if times * size == state.offset)
        if devices:
            found.append(Constructed(times, devices))
    return tuple(found)


def _by_drawing(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    size = sum(words_for(count) for count in elements.values())
    stream = CpuStream(state.seed)
    within = range(1, within_reach(elements) + 1)
    return tuple(Constructed(times) for times in within if stream.state(times * size).same_place(state))


def within_reach(elements: Mapping[str, int]) -> int:
    """How many constructions are looked for on a CPU."""
    return min(MOST, REACH // sum(words_for(count) for count in elements.values()))


# How two random states differ: generator, seed, ranks, what was drawn before, GPU.


def differences(left: SeededGenerator, right: SeededGenerator) -> tuple[Note, ...]:
    """Every way in which the generators of two models differ; empty where both models come from one state.

    What either side does not tell is not compared.
    """
    return tuple(_differences(left, right))


def _differences(left: SeededGenerator, right: SeededGenerator) -> Iterator[Note]:
    if left.kind != right.kind:
        yield note("generators-differ", left=left.kind, right=right.kind)
    if left.seed != right.seed and None not in (left.seed, right.seed):
        yield note("seeds-differ", left=left.seed, right=right.seed)
    elif left.rank_seeds[:1] != right.rank_seeds[:1]:
        yield note("generator-seeds-differ", left=left.rank_seeds[0], right=right.rank_seeds[0])
    if len(left.rank_seeds) != len(right.rank_seeds):
        yield note("ranks-differ", left=len(left.rank_seeds), right=len(right.rank_seeds))
    if left.kind == right.kind:
        yield from _places(left, right)


def _places(left: SeededGenerator, right: SeededGenerator) -> Iterator[Note]:
    """The same kind of generator, at different places or on different GPUs."""
    before, after = (left.preceding, right.preceding), (left.offset_after, right.offset_after)
    if before[0] and before[1] and before[0].position != before[1].position:
        code = "draws-before-differ" if left.kind == CPU else "offset-before-differs"
        yield note(code, left=before[0].position, right=before[1].position)
    if None not in after and after[0] != after[1] and before == (None, None):
        yield note("offset-after-differs", left=after[0], right=after[1])
    devices = {"left_devices": _devices(left), "right_devices": _devices(right)}
    if left.threads is not None and right.threads is not None and left.threads != right.threads:
        first = min(left.threads, right.threads)
        yield note("gpu-threads-differ", left=left.threads, right=right.threads, first=first, **devices)
    elif left.devices and right.devices and not set(left.devices) & set(right.devices):
        yield note("gpus-differ", **devices)


def _devices(generator: SeededGenerator) -> str:
    return " or ".join(generator.devices) or "none of the known GPUs"


def generator_of(stored: tuple[StoredGenerator, ...], tensor_parallel: int) -> SeededGenerator | None:
    """What the stored states alone tell, at any step; None where there is no state of the weights' generator."""
    weights = [each for each in stored if each.name == TRACKER][:tensor_parallel]
    if len(weights) < tensor_parallel:
        return None
    first = weights[0]
    return SeededGenerator(
        kind=first.state.generator,
        seed=first.run_seed,
        rank_seeds=tuple(each.state.seed for each in weights),
        devices=tuple(dict.fromkeys(name for each in first.constructed for name in each.devices)),
        offset_after=first.state.offset,
    )
