"""One place in a generator's stream against a whole checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from publish.explain import reasons
from publish.explain.answer import ABSENT, DIFFERENT, EQUAL, TensorResult
from publish.explain.cuda_generator import with_at_least, with_threads
from publish.explain.stored import DEFAULT, Candidate, rank_seed
from publish.explain.streams import Place, Walked, positions, walk
from publish.explain.subject import Subject
from publish.neox.state import CPU, RandomState
from publish.records.manifest import Preceding, SeededGenerator


def preceding(subject: Subject, place: Place) -> Preceding:
    """What the generator had given before the first tensor, and what that amounts to."""
    shards, position = subject.shards[0], place.position
    stream = place.stream(place.seed)
    size = positions(shards, stream)[""]
    if position % size == 0:
        return Preceding(position, constructions=position // size)
    alike = tuple(shard.shown for shard in shards.values() if position == stream.after(shard, 0))
    return Preceding(position, tensors=alike)


@dataclass(frozen=True, slots=True)
class Trial:
    """One place whose every value was compared, and how much of the subject it explains."""

    subject: Subject
    candidate: Candidate
    place: Place
    ranks: tuple[Walked, ...]

    @classmethod
    def full(cls, subject: Subject, candidate: Candidate, place: Place) -> Trial:
        """Draw every tensor of every rank, and compare."""
        ranks = tuple(
            walk(subject, rank, place.stream(rank_seed(subject, place.seed, rank)), place.position, place.stream)
            for rank in range(subject.tensor_parallel)
        )
        return cls(subject, candidate, place, ranks)

    @property
    def results(self) -> tuple[TensorResult, ...]:
        exact = self.place.generator == CPU
        return tuple(
            TensorResult(shard.shown, tuple(rank.tallies[name] for rank in self.ranks), exact)
            for name, shard in self.subject.shards[0].items()
        )

    @property
    def ends(self) -> dict[int, RandomState]:
        """The states that the generators end in, by number of the ``mp_rank`` file."""
        ranks = len(self.ranks)
        walked = enumerate(self.ranks)
        return {stage * ranks + rank: end for rank, one in walked for stage, end in enumerate(one.ends)}

    @property
    def stored_state(self) -> str:
        """Whether these are the states that the checkpoint holds."""
        states = self.subject.states
        if not any(states) or self.candidate.origin == DEFAULT:  # training draws from the default generator too
            return ABSENT
        return DIFFERENT if any(reasons.of_states(states, self.ends)) else EQUAL

    @property
    def generator(self) -> SeededGenerator:
        """The generator that draws the weights from here."""
        place, subject = self.place, self.subject
        devices = with_threads(place.resident) if place.told else with_at_least(place.resident)
        cpu = place.generator == CPU
        stored = subject.states[0] if subject.states else None
        return SeededGenerator(
            kind=place.generator,
            seed=self.seed,
            rank_seeds=tuple(rank_seed(subject, place.seed, rank) for rank in range(len(self.ranks))),
            preceding=preceding(subject, place),
            threads=None if cpu or not place.told else place.resident,
            devices=() if cpu else devices,
            offset_after=stored.offset if stored else None,
        )

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.place.seed - self.candidate.generator_seed(0)

    @property
    def reasons(self) -> tuple[str, ...]:
        found = reasons.of_trial(self.subject, self.candidate, self.place, self.results, self.ranks[0].begins)
        differ = reasons.of_states(self.subject.states, self.ends) if self.stored_state == DIFFERENT else ()
        return (*found, *differ)

    @property
    def complete(self) -> bool:
        return all(result.explained for result in self.results)

    @property
    def merit(self) -> tuple[int, int, bool]:
        """How good an explanation it is: tensors, then bits, then whether it names the GPU."""
        results = self.results
        return (
            sum(result.alike for result in results),
            sum(result.tally.equal for result in results),
            self.place.told,
        )
