"""Which seeds are tried, and what the generators are seeded with for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from publish.explain.subject import Subject
from publish.neox.randomstate import CPU, CUDA, RandomState

# deepspeed runtime/activation_checkpointing/checkpointing.py, model_parallel_cuda_manual_seed: rank r's generator of
# weights is seeded with this + seed + r, the default one with the seed
TRACKER_SEED = 2718
DEFAULT_SEED = 1234  # gpt-neox neox_arguments: seed
TRACKER, DEFAULT = "model-parallel-rng", "default generator"
ORIGINS = {TRACKER: TRACKER_SEED, DEFAULT: 0}
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
        yield Candidate(stored.generator, (known,), TRACKER, "of the stored state")
    if subject.seed is not None:
        yield from _seeded(subject, () if subject.seed == known else kinds, (subject.seed,), "of the config")
    elif stored is None:
        yield from _seeded(subject, kinds, UNSTATED, "tried for want of a stated one")


def _seeded(subject: Subject, kinds: Sequence[str], seeds: Sequence[int], source: str) -> Iterator[Candidate]:
    for kind in kinds:
        yield Candidate(kind, seeds, TRACKER, source)
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
