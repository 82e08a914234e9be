"""What a stored generator state tells by itself: after how many constructions of the model it stands, on which GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publish.explain.answer import Origin
from publish.explain.construction import in_order
from publish.explain.cuda_generator import THREADS, advance
from publish.explain.streams import CpuStream, words_for
from publish.explain.subject import Subject
from publish.neox.checkpoint import RawCheckpoint, stored_states
from publish.neox.state import CPU, CUDA, TRACKER, RandomState

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


# How two random states differ, in sentences: generator, seed, ranks, what was drawn before, GPU.


_KINDS = {CPU: "a CPU (mt19937)"}


def differences(left: Origin, right: Origin) -> tuple[str, ...]:
    """Every way in which the numbers of two models come from elsewhere; empty where they come from one state.

    What either side does not tell is not compared.
    """
    return tuple(_differences(left, right))


def _differences(left: Origin, right: Origin) -> Iterator[str]:
    if left.generator != right.generator:
        yield f"the generators differ: {_kind(left)} and {_kind(right)}, which draw other numbers from one seed"
    if left.seed != right.seed and None not in (left.seed, right.seed):
        yield f"the seeds differ: {left.seed} and {right.seed}"
    elif left.seeds[:1] != right.seeds[:1]:
        yield f"the generators are seeded with {left.seeds[0]} and {right.seeds[0]}"
    if len(left.seeds) != len(right.seeds):
        yield (
            f"the tensors are cut over {_ranks(left)} and {_ranks(right)}, each of which draws its own shard "
            "with a seed of its own"
        )
    if left.generator == right.generator:
        yield from _places(left, right)


def _places(left: Origin, right: Origin) -> Iterator[str]:
    """The same kind of generator, at different places or on different GPUs."""
    unit = "numbers drawn" if left.generator == CPU else "offset"
    if left.position is not None and right.position is not None and left.position != right.position:
        yield (
            f"other draws came before ({unit}: {left.position:,} and {right.position:,}). "
            f"Left: {left.preceding}. Right: {right.preceding}"
        )
    if left.after is not None and right.after is not None and left.after != right.after and left.position is None:
        yield (
            f"the generators stand at offsets {left.after:,} and {right.after:,} afterwards: another GPU, another "
            "number of constructions, or another model"
        )
    if left.threads != right.threads and None not in (left.threads, right.threads):
        first = min(left.threads or 0, right.threads or 0)
        yield (
            f"the GPUs hold {left.threads:,} and {right.threads:,} threads ({_devices(left)}; {_devices(right)}): "
            f"tensors differ from element {first:,} on, and later ones are drawn at other offsets"
        )
    elif left.devices and right.devices and not set(left.devices) & set(right.devices):
        yield f"the GPUs differ: {_devices(left)}; {_devices(right)}"


def _kind(origin: Origin) -> str:
    return _KINDS.get(origin.generator, "a GPU (Philox)")


def _ranks(origin: Origin) -> str:
    count = len(origin.seeds)
    return f"{count} tensor-parallel rank{'s' if count > 1 else ''}"


def _devices(origin: Origin) -> str:
    return " or ".join(origin.devices) or "none of the known GPUs"


def origin_of(stored: tuple[StoredGenerator, ...], tensor_parallel: int) -> Origin | None:
    """What the stored states alone tell, at any step; None where there is no state of the weights' generator."""
    weights = [each for each in stored if each.name == TRACKER][:tensor_parallel]
    if len(weights) < tensor_parallel:
        return None
    first = weights[0]
    return Origin(
        generator=first.state.generator,
        seed=first.run_seed,
        seeds=tuple(each.state.seed for each in weights),
        devices=tuple(dict.fromkeys(name for each in first.constructed for name in each.devices)),
        after=first.state.offset,
    )
