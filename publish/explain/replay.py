"""A model drawn again from one position of a generator's stream, and compared value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from publish.explain.construction import may_begin_a_stage
from publish.explain.generators import with_at_least, with_threads
from publish.explain.models import InitialModel
from publish.explain.stored import DEFAULT, Candidate, rank_seed
from publish.explain.streams import StreamPosition, Tally, positions
from publish.neox.state import CPU, RandomState
from publish.records.manifest import Preceding, RngState

EQUAL, DIFFERENT, ABSENT = "equal", "different", "absent"
# gpt-neox megatron/initialize.py: the inner stages of a pipeline have another seed, the first and last do not
_INNER_STAGE = 1138


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One drawn tensor on every rank. ``exact``: only equal bits count, since a CPU drew it."""

    name: str
    ranks: tuple[Tally, ...]
    exact: bool

    @property
    def tally(self) -> Tally:
        """All ranks together."""
        return sum(self.ranks, Tally())

    @property
    def different(self) -> int:
        """Values that the recomputed ones do not explain."""
        return sum(map(self.different_in, self.ranks))

    def different_in(self, tally: Tally) -> int:
        """Of one rank: values that the recomputed ones do not explain."""
        return tally.values - tally.equal if self.exact else tally.wrong

    def first_different(self, tally: Tally) -> int | None:
        """The index of the first of them in a rank's shard."""
        return tally.first_unequal if self.exact else tally.first_wrong

    @property
    def explained(self) -> bool:
        return self.different == 0

    @property
    def nearly_explained(self) -> bool:
        """Whether at most the last bits differ."""
        return self.tally.wrong == 0


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """One rank's tensors compared with what a stream draws.

    ``ends`` are the states that the generators end in, one for each pipeline stage; ``begins`` names the tensors at
    which stages after the first begin.
    """

    tallies: Mapping[str, Tally]
    ends: tuple[RandomState, ...]
    begins: tuple[str, ...] = ()


def replay(model: InitialModel, rank: int, start: StreamPosition) -> ReplayResult:
    """Draw every tensor of ``rank`` in order, from where ``start`` says, and compare.

    If the values stop fitting where a pipeline stage may begin, a generator freshly seeded for that stage is tried.
    """
    tallies: dict[str, Tally] = {}
    ends: list[RandomState] = []
    begins: list[str] = []
    seed = rank_seed(model, start.seed, rank)
    stream, position = start.stream(seed), start.position
    for shard in model.shards[rank].values():
        found = stream.tally(shard, position)
        if tallies and model.stages != 1 and may_begin_a_stage(shard.name) and 2 * found.equal < found.values:
            inner = seed + _INNER_STAGE + (len(ends) + 1) * model.tensor_parallel
            fresh = next((one for one in map(start.stream, (inner, seed)) if one.matches(shard, 0)), None)
            if fresh is not None:
                ends.append(stream.state(position))
                begins.append(shard.label)
                stream, position = fresh, 0
                found = stream.tally(shard, position)
        tallies[shard.name] = found
        position = stream.after(shard, position)
    if ends and model.tied:  # the last stage draws an embedding too, and then takes over the first stage's values
        position = stream.after(model.first, position)
    return ReplayResult(tallies, (*ends, stream.state(position)), tuple(begins))


@dataclass(frozen=True, slots=True)
class Trial:
    """A position from which the whole model was replayed, and how much of the model it explains."""

    model: InitialModel
    candidate: Candidate
    position: StreamPosition
    ranks: tuple[ReplayResult, ...]

    @classmethod
    def run(cls, model: InitialModel, candidate: Candidate, position: StreamPosition) -> Trial:
        """Replay every rank."""
        ranks = tuple(replay(model, rank, position) for rank in range(model.tensor_parallel))
        return cls(model, candidate, position, ranks)

    @property
    def results(self) -> tuple[TensorResult, ...]:
        exact = self.position.generator == CPU
        return tuple(
            TensorResult(shard.label, tuple(rank.tallies[name] for rank in self.ranks), exact)
            for name, shard in self.model.shards[0].items()
        )

    @property
    def ends(self) -> dict[int, RandomState]:
        """The states that the generators end in, by number of the ``mp_rank`` file."""
        ranks = len(self.ranks)
        return {
            stage * ranks + number: end for number, rank in enumerate(self.ranks) for stage, end in enumerate(rank.ends)
        }

    @property
    def stored_state(self) -> str:
        """Whether the checkpoint stores these states."""
        states = self.model.states
        if not any(states) or self.candidate.rng == DEFAULT:  # training draws from the default generator too
            return ABSENT
        ends = self.ends
        same = len(states) == len(ends) and all(
            state is None or state.same_place(ends[number]) for number, state in enumerate(states)
        )
        return EQUAL if same else DIFFERENT

    @property
    def rng_state(self) -> RngState:
        position, model = self.position, self.model
        devices = with_threads(position.resident) if position.threads_known else with_at_least(position.resident)
        cpu, stored = position.generator == CPU, next(iter(model.states), None)
        return RngState(
            generator=position.generator,
            seed=self.seed,
            seeds=tuple(rank_seed(model, position.seed, rank) for rank in range(len(self.ranks))),
            preceding=preceding(model, position),
            threads=None if cpu or not position.threads_known else position.resident,
            devices=() if cpu else devices,
            after=stored.offset if stored else None,
        )

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.position.seed - self.candidate.generator_seed(0)

    @property
    def complete(self) -> bool:
        return all(result.explained for result in self.results)

    @property
    def score(self) -> tuple[int, int, bool]:
        """How good an explanation it is: tensors, then bits, then whether it names the GPU."""
        results = self.results
        return (
            sum(result.nearly_explained for result in results),
            sum(result.tally.equal for result in results),
            self.position.threads_known,
        )


def preceding(model: InitialModel, position: StreamPosition) -> Preceding:
    """What was drawn before the first tensor, and what that amounts to."""
    shards, drawn = model.shards[0], position.position
    stream = position.stream(position.seed)
    size = positions(shards, stream)[""]
    if drawn % size == 0:
        return Preceding(drawn, constructions=drawn // size)
    return Preceding(drawn, tensors=tuple(s.label for s in shards.values() if drawn == stream.after(s, 0)))
