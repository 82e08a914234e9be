"""One place in a generator's stream against a whole checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from publish.explain import reasons
from publish.explain.answer import ABSENT, DIFFERENT, EQUAL, Origin, TensorResult
from publish.explain.construction import BEFORE
from publish.explain.cuda_generator import with_at_least, with_threads
from publish.explain.stored import DEFAULT, Candidate, rank_seed
from publish.explain.streams import Place, Walked, positions, walk
from publish.explain.subject import Subject
from publish.neox.state import CPU, RandomState

# What was drawn before the first tensor, in words, and why.


_TWICE = (
    "GPT2ModelPipe.__init__ builds every layer, then to_sequential() builds every layer again from its specs, and "
    "the second set is the model (gpt-neox megatron/model/gpt2_model.py, called in megatron/training.py)"
)


def describe(subject: Subject, place: Place) -> str:
    """One or two sentences; nothing is guessed where the amount fits nothing known."""
    shards = subject.shards[0]
    stream = place.stream(place.seed)
    size = positions(shards, stream)[""]
    unit = "numbers" if place.generator == CPU else "of the offset"
    if place.position == 0:
        return _nothing(subject)
    if place.position % size == 0:
        built = place.position // size
        times = "one whole construction" if built == 1 else f"{built} whole constructions"
        return f"{times} of the same model ({len(shards)} tensors, {place.position:,} {unit}): {_why(subject, built)}"
    alike = [shard.shown for shard in shards.values() if place.position == stream.after(shard, 0)]
    if alike:
        others = f", as {len(alike) - 1} others do" if len(alike) > 1 else ""
        return f"as much as the tensor {alike[0]} takes{others} ({place.position:,} {unit})"
    return f"{place.position:,} {unit}, which are no whole number of constructions of this model nor one of its tensors"


def _nothing(subject: Subject) -> str:
    first = next(iter(BEFORE))
    begun = f"nothing: {first} is the first that the generator drew after it was seeded"
    if subject.layout == "sequential":
        return f"{begun}, although the sequential layout of GPT-NeoX draws every model twice and keeps the second set"
    if subject.layout == "pipeline":
        return f"{begun}, as the pipeline layout (pipe-parallel-size 1 or more) has it"
    return f"{begun}, as GPT-NeoX's pipeline layout (pipe-parallel-size 1 or more) has it"


def _why(subject: Subject, built: int) -> str:
    if built > 1:
        return "the model was built several times before"
    if subject.layout == "pipeline":
        return (
            "the pipeline layout builds a model once, so this run built it once before, or the files were rewritten "
            f"from the sequential layout, where {_TWICE}"
        )
    layout = "the sequential layout" if subject.layout else "GPT-NeoX's sequential layout"
    return f"in {layout} (pipe-parallel-size 0) {_TWICE}"


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
    def origin(self) -> Origin:
        place, subject = self.place, self.subject
        devices = with_threads(place.resident) if place.told else with_at_least(place.resident)
        cpu = place.generator == CPU
        return Origin(
            generator=place.generator,
            seed=self.seed,
            seeds=tuple(rank_seed(subject, place.seed, rank) for rank in range(len(self.ranks))),
            position=place.position,
            preceding=describe(subject, place),
            threads=None if cpu or not place.told else place.resident,
            devices=() if cpu else devices,
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
