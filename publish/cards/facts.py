"""What a card is made from: records, the release file, and a Hub's address. Templates read the properties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from publish.cards.details import Fact, details, training_rows
from publish.cards.sentences import sentence
from publish.errors import CardError
from publish.records.checkpoints import NO_NOTES, Erratum, SuiteNotes
from publish.records.files import README, FileRecord
from publish.records.gates import Gate
from publish.records.manifest import REPRODUCED, ComparisonRecord, Explanation, Manifest
from publish.records.run import RunFacts
from publish.release_file import CardMetadata, ExpectedEqual, Release
from publish.schedule import branch_of

HUB = "https://huggingface.co"
_FINGERPRINT = "index:"  # how publish.sources.files.fingerprint begins


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture in the repo; ``alt`` says in words what it shows."""

    alt: str
    path: str


@dataclass(frozen=True, slots=True)
class ShownGate:
    """A gate of a step, or of all steps, with what it found in words."""

    name: str
    found: str

    @classmethod
    def of(cls, gate: Gate) -> ShownGate:
        return cls(gate.name, f"{gate.outcome}: {gate.detail}" if gate.detail else gate.outcome)


@dataclass(frozen=True, slots=True)
class ShownComparison:
    """A comparison of a step, with its plot where ``main`` has one."""

    step: int
    record: ComparisonRecord
    plots: tuple[Plot, ...] = ()

    @property
    def title(self) -> str:
        return comparison_title(self.step, self.record)


@dataclass(frozen=True, slots=True)
class EqualWeights:
    """Branches whose weights the release declares to be equal, and why."""

    branches: tuple[str, ...]
    because: str

    @classmethod
    def of(cls, declared: ExpectedEqual) -> EqualWeights:
        return cls(tuple(map(branch_of, declared.steps)), declared.because)


@dataclass(frozen=True, slots=True)
class ShownOverride:
    """A key of ``config.json`` that the release overrides. ``effect``: how much logits change; None: not measured."""

    key: str
    value: Any
    instead_of: Any
    because: str
    effect: float | None


@dataclass(frozen=True, slots=True)
class ShownErratum:
    """What was wrong with some branches; ``since`` and ``replaced_by`` are empty where there are several."""

    branches: tuple[str, ...]
    kinds: tuple[str, ...]
    detail: str
    since: str
    replaced_by: str


@dataclass(frozen=True)
class StepFacts:
    """A step's card. ``steps`` are all of the release, in order."""

    release: Release
    run: RunFacts
    steps: tuple[int, ...]
    manifest: Manifest
    hub: str = HUB

    def __post_init__(self) -> None:
        if self.step not in self.steps:
            raise CardError(f"step {self.step} is not one of the release's", self.branch, "give the release's steps")

    @property
    def repo(self) -> str:
        return self.release.target

    @property
    def card(self) -> CardMetadata:
        """The maintainer's words; results are of the final step, which the suite's card shows."""
        return replace(self.release.card, results=())

    @property
    def branch(self) -> str:
        return self.manifest.branch

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def tokens(self) -> int | None:
        """Tokens seen; None if the config does not determine them."""
        return self.manifest.tokens

    @property
    def previous(self) -> int | None:
        """The step before this one in the release."""
        return max((step for step in self.steps if step < self.step), default=None)

    @property
    def following(self) -> int | None:
        """The step after this one in the release."""
        return min((step for step in self.steps if step > self.step), default=None)

    @property
    def number(self) -> int:
        """Its number among the release's steps, from 1."""
        return self.steps.index(self.step) + 1

    @property
    def last(self) -> int:
        """The last step of the release."""
        return self.steps[-1]

    @property
    def fraction(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return self.step / self.last if self.last else 1.0

    @property
    def details(self) -> tuple[Fact, ...]:
        return details(self.run, self.last)

    @property
    def training(self) -> tuple[Fact, ...]:
        return training_rows(self.manifest.training, self.manifest.tokens)

    @property
    def has_tokenizer(self) -> bool:
        return self.manifest.tokenizer is not None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The branch's files in order, without the card."""
        return tuple(sorted((f for f in self.manifest.files if f.path != README), key=lambda file: file.path))

    @property
    def gates(self) -> tuple[ShownGate, ...]:
        return tuple(map(ShownGate.of, self.manifest.gates))

    @property
    def expected(self) -> tuple[EqualWeights, ...]:
        """What the release declares about this step's weights."""
        return tuple(EqualWeights.of(equal) for equal in self.release.expect if self.step in equal.steps)

    @property
    def comparisons(self) -> tuple[ShownComparison, ...]:
        return tuple(ShownComparison(self.step, record) for record in self.manifest.comparisons)

    @property
    def explanation(self) -> Explanation | None:
        return _reproduced(self.manifest)

    @property
    def deviations(self) -> tuple[str, ...]:
        return tuple(map(sentence, self.run.deviations))

    @property
    def overrides(self) -> tuple[ShownOverride, ...]:
        return _overrides(self.release, self.manifest, [self.manifest])

    @property
    def converter(self) -> str:
        return _converter(self.manifest)

    @property
    def source_kind(self) -> str | None:
        """How the source is identified: by a "commit", or by a folder's "fingerprint"; None if by neither."""
        return _common_kind([self.manifest])


@dataclass(frozen=True)
class SuiteFacts:
    """The suite's card, on ``main``. ``checkpoints`` are the manifests of all steps, in order.

    ``plots`` are all that ``main`` has.
    """

    release: Release
    run: RunFacts
    checkpoints: tuple[Manifest, ...]
    plots: tuple[Plot, ...] = ()
    notes: SuiteNotes = NO_NOTES
    hub: str = HUB

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise CardError("there is no checkpoint to describe", self.repo, "publish a step first")

    @property
    def repo(self) -> str:
        return self.release.target

    @property
    def card(self) -> CardMetadata:
        """The maintainer's words."""
        return self.release.card

    @property
    def first(self) -> Manifest:
        """The earliest step."""
        return self.checkpoints[0]

    @property
    def final(self) -> Manifest:
        """The step that ``main`` holds."""
        return self.checkpoints[-1]

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps, in order."""
        return tuple(manifest.step for manifest in self.checkpoints)

    @property
    def details(self) -> tuple[Fact, ...]:
        return details(self.run, self.final.step)

    def detail(self, name: str) -> str | None:
        """The value of a row of the details table; None if there is no such row."""
        return next((row.value for row in self.details if row.name == name), None)

    @property
    def has_tokenizer(self) -> bool:
        return self.final.tokenizer is not None

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens seen are known for every step."""
        return all(manifest.tokens is not None for manifest in self.checkpoints)

    @property
    def gates(self) -> tuple[ShownGate, ...]:
        """Each gate with the number of checkpoints that it passed or was skipped on; then those of the whole suite."""
        counts: dict[str, dict[str, int]] = {}
        for gate in (gate for manifest in self.checkpoints for gate in manifest.gates):
            outcomes = counts.setdefault(gate.name, {})
            outcomes[gate.outcome] = outcomes.get(gate.outcome, 0) + 1
        counted = (
            ShownGate(name, ", ".join(f"{outcome} on {number:,}" for outcome, number in sorted(outcomes.items())))
            for name, outcomes in counts.items()
        )
        return (*counted, *map(ShownGate.of, self.notes.lineage))

    @property
    def expected(self) -> tuple[EqualWeights, ...]:
        """What the release declares about equal weights."""
        return tuple(map(EqualWeights.of, self.release.expect))

    @property
    def comparisons(self) -> tuple[ShownComparison, ...]:
        plots = {plot.path: plot for plot in self.plots}
        return tuple(
            ShownComparison(step, record, tuple(plots[path] for path in [ratio_path(step, number)] if path in plots))
            for step, number, record in numbered_comparisons(self.checkpoints)
        )

    @property
    def run_plots(self) -> tuple[Plot, ...]:
        """The plots that are not of a comparison."""
        compared = {ratio_path(step, number) for step, number, _ in numbered_comparisons(self.checkpoints)}
        return tuple(plot for plot in self.plots if plot.path not in compared)

    @property
    def explanation(self) -> Explanation | None:
        return _reproduced(self.first)

    @property
    def deviations(self) -> tuple[str, ...]:
        return tuple(map(sentence, self.run.deviations))

    @property
    def overrides(self) -> tuple[ShownOverride, ...]:
        return _overrides(self.release, self.final, self.checkpoints)

    @property
    def repairs(self) -> tuple[ShownErratum, ...]:
        """The errata of repairs, one for all branches that had the same defect."""
        groups: dict[tuple[tuple[str, ...], str], list[Erratum]] = {}
        for erratum in self.notes.errata:
            groups.setdefault((erratum.kinds, erratum.detail), []).append(erratum)
        return tuple(_shown_erratum(errata) for errata in groups.values())

    @property
    def converter(self) -> str:
        return _converter(self.final)

    @property
    def source_kind(self) -> str | None:
        """How the steps' sources are identified: "commit", a folder's "fingerprint"; None if not all are alike."""
        return _common_kind(self.checkpoints)


def comparison_title(step: int, comparison: ComparisonRecord) -> str:
    """Which models are compared."""
    return f"Step {step:,} (left) and {comparison.location} (right)"


def numbered_comparisons(checkpoints: Iterable[Manifest]) -> tuple[tuple[int, int, ComparisonRecord], ...]:
    """All comparisons, with their step and their number in it, from 1."""
    return tuple(
        (manifest.step, number, record)
        for manifest in checkpoints
        for number, record in enumerate(manifest.comparisons, 1)
    )


def ratio_path(step: int, number: int) -> str:
    """Where ``main`` keeps the plot of a step's comparison."""
    return f"plots/ratios-step{step}-{number}.svg"


def _reproduced(manifest: Manifest) -> Explanation | None:
    found = manifest.explanation
    return found if found is not None and found.outcome == REPRODUCED and found.rng_state is not None else None


def _overrides(release: Release, one: Manifest, measured: Iterable[Manifest]) -> tuple[ShownOverride, ...]:
    """What ``one`` overrides in ``config.json``, and why; the effect is the largest of those ``measured``."""
    figures = [gate.figures.get("override_effect") for manifest in measured for gate in manifest.gates]
    effect = max((figure for figure in figures if isinstance(figure, float)), default=None)
    reasons: Mapping[str, str] = {override.key: override.because for override in release.overrides}
    return tuple(
        ShownOverride(
            override.key,
            override.value,
            override.instead_of,
            reasons.get(override.key, "the release file does not say"),
            effect,
        )
        for override in one.overrides
    )


def _shown_erratum(errata: list[Erratum]) -> ShownErratum:
    one = errata[0] if len(errata) == 1 else None
    branches = tuple(erratum.branch for erratum in errata)
    since, replaced_by = (one.since, one.replaced_by) if one else ("", "")
    return ShownErratum(branches, errata[0].kinds, errata[0].detail, since, replaced_by)


def _converter(manifest: Manifest) -> str:
    return f"{manifest.converter.name} {manifest.converter.version}"


def _common_kind(manifests: Iterable[Manifest]) -> str | None:
    """Whether all sources are commits, or all are fingerprints of a folder's files; None if neither."""
    commits = [manifest.source.commit for manifest in manifests]
    kinds = {commit and ("fingerprint" if commit.startswith(_FINGERPRINT) else "commit") for commit in commits}
    return kinds.pop() or None if len(kinds) == 1 else None
