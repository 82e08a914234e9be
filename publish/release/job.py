"""A release made ready: its source, its repos, its steps, its tokenizer. Nothing is written anywhere yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from publish.cards.facts import HUB
from publish.convert.folder import small_files
from publish.convert.hfconfig import with_overrides
from publish.convert.plan import ConversionPlan, make_plan
from publish.convert.tokenizer import Tokenizer, find_tokenizer, not_found
from publish.errors import ReleaseError, ScheduleError, TokenizerError
from publish.hub.client import Client
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.schedule import expected_steps
from publish.neox.state import TrainingState
from publish.release_file import Release, schedule_named
from publish.schedule import FROM_CONFIG, from_config, parse_steps
from publish.sources.files import fingerprint
from publish.sources.remote import HubRepo
from publish.sources.runs import CheckpointRef, TrainingRun, open_run, parse_location
from publish.text import some

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True, slots=True)
class Publication:
    """A repo that a release fills, one branch a step.

    ``kind``: what its branches hold. ``format``: how their files are laid out.
    """

    repo: str
    kind: str = "model"
    format: str = "hf"


@dataclass(frozen=True)
class Job:
    """What every step of one release shares. ``steps`` is the whole schedule, ``chosen`` the steps of this run.

    ``verify_logits``: ``all``, ``off``, or ``changed`` (the first and the last step, and where plan or config differ).
    ``hub`` is where links in cards lead, ``templates`` a folder whose templates come before our own.
    """

    release: Release
    run: TrainingRun
    steps: tuple[int, ...]
    chosen: tuple[int, ...]
    config: NeoxConfig
    plan: ConversionPlan
    tokenizer: Tokenizer | None
    tokens_per_step: int | None
    data_parallel: int | None
    verify_logits: str = "changed"
    hub: str = HUB
    templates: Path | None = None

    @property
    def model(self) -> Publication:
        """The Hugging Face model, the one publication of a release today."""
        return Publication(self.release.target)

    @cached_property
    def shared_files(self) -> tuple[tuple[str, str], ...]:
        """Path and sha256 of the files that all steps have alike; none where the tokenizer was not found."""
        if self.tokenizer is None:
            return ()
        files = small_files(self.plan, self.tokenizer)
        return tuple((name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items()))

    @cached_property
    def pins(self) -> dict[int, str | None]:
        """Step -> what pins its source: its commit on a Hub, a fingerprint of its files' indices in a folder."""
        return {step: _pin(self.run, self.run.steps[step]) for step in self.steps}


class RunIndex:
    """A training run, and the index of each of its checkpoints that was asked for: read once, weights never."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self._checkpoints: dict[int, RawCheckpoint] = {}
        self._configs: dict[int, NeoxConfig] = {}

    def checkpoint(self, step: int) -> RawCheckpoint:
        """The index of a step's checkpoint. Its files are closed: no weight can be read from it."""
        if step not in self._checkpoints:
            self._read(step, config=False)
        return self._checkpoints[step]

    def config(self, step: int) -> NeoxConfig:
        """The training config of a step's checkpoint."""
        if step not in self._configs:
            self._read(step, config=True)
        return self._configs[step]

    def _read(self, step: int, *, config: bool) -> None:
        files = self.run.open(self.run.steps[step])
        try:
            self._checkpoints[step] = RawCheckpoint.open(files, weights=False)
            if config:
                self._configs[step] = read_config(self._checkpoints[step])
        finally:
            files.close()


@dataclass(frozen=True, slots=True)
class StepTask:
    """A step to make: the release that it belongs to, and its checkpoint, pinned to a commit or a fingerprint."""

    job: Job
    ref: CheckpointRef


def make_job(
    release: Release,
    *,
    steps: str | None = None,
    tokenizer: str | None = None,
    client: Client | None = None,
    index: RunIndex | None = None,
    need_tokenizer: bool = True,
) -> Job:
    """Open the source and plan the first step: everything that can be known before a weight is read.

    ``steps`` and ``tokenizer`` are the options of the command line; ``client`` reads a source on a Hub,
    ``index`` is the run where it was opened before.

    Raises:
        ScheduleError: steps of the schedule are missing in the source, or steps outside of it are asked for.
        TokenizerError: none is found and ``need_tokenizer``.
        PublishError: the source cannot be read, or its config has no Hugging Face counterpart.
    """
    index = index or RunIndex(open_run(parse_location(release.source, release.base), client))
    run = index.run
    if release.schedule == FROM_CONFIG:
        config = index.config(next(iter(run.steps)))
        schedule = from_config(dict(config.options), config.where)
    else:
        schedule = expected_steps(run, release.schedule)
    if missing := [step for step in schedule if step not in run.steps]:
        raise ScheduleError(
            f"{len(missing)} of the schedule's {len(schedule)} steps are missing: {some(missing, 8)}",
            run.where,
            "fetch them, or name the schedule that the run has (schedule: in the release file, or --schedule)",
        )
    chosen = _choose(schedule, steps)
    config, state = index.config(chosen[0]), index.checkpoint(chosen[0]).state
    plan = plan_of(release, index.checkpoint(chosen[0]), config)
    choice = tokenizer or _tokenizer_choice(release)
    found = find_tokenizer(choice, config, _checkpoint_folder(run, chosen[0]), partial(fetch_tokenizer, client=client))
    if found is None and need_tokenizer and choice != "none":
        raise not_found(config)
    tokens = tokens_per_step(config.options, state)
    return Job(release, run, schedule, chosen, config, plan, found, tokens, state.data_parallel)


def _choose(schedule: tuple[int, ...], asked: str | None) -> tuple[int, ...]:
    if asked is None:
        return schedule
    wanted = set(parse_steps(asked))
    chosen = tuple(step for step in schedule if step in wanted)
    single = {int(part) for part in asked.split(",") if part.strip().isdigit()}
    absent = sorted(single - set(schedule)) if chosen else [asked]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        what = f"step{'s' * (len(absent) > 1)} {some(absent, 8)} {verb} not in the schedule"
        raise ScheduleError(what, f"--steps {asked}", "name steps of the schedule")
    return chosen


def plan_of(release: Release, checkpoint: RawCheckpoint, config: NeoxConfig) -> ConversionPlan:
    """The plan that a release has for a checkpoint.

    Raises:
        PublishError: the config has no Hugging Face counterpart, or an override names an unknown key.
    """
    return with_overrides(
        make_plan(checkpoint, config, release.dtype), {override.key: override.value for override in release.overrides}
    )


def _pin(run: TrainingRun, ref: CheckpointRef) -> str | None:
    if ref.commit is not None:
        return ref.commit
    files = run.open(ref)
    try:
        return fingerprint(files)
    finally:
        files.close()


def _checkpoint_folder(run: TrainingRun, step: int) -> Path | None:
    folder = Path(run.where)
    return folder / run.steps[step].name if run.steps[step].commit is None else None


def _tokenizer_choice(release: Release) -> str | None:
    """The release's tokenizer; a path is relative to the release file."""
    if release.tokenizer is None or not (release.base / release.tokenizer).exists():
        return release.tokenizer
    return str(release.base / release.tokenizer)


def fetch_tokenizer(repo: str, client: Client | None = None) -> Mapping[str, bytes]:
    """The tokenizer files of a Hub repo (``owner/name``, optional ``@revision``).

    Raises:
        TokenizerError: it has none. HubError: no such repo, no access, no connection.
    """
    name, _, revision = repo.removeprefix("hf://").partition("@")
    source = HubRepo(name, client)
    files = source.files(source.resolve(revision or "main"), repo)
    try:
        present = [path for path in TOKENIZER_FILES if path in files.sizes]
        found = {path: bytes(files.open(path).read(0, files.sizes[path])) for path in present}
    finally:
        files.close()
    if "tokenizer.json" not in found:
        raise TokenizerError("the repo has no tokenizer.json", repo, "name another repo, a folder or a file")
    return found


def apply_overrides(release: Release, *, schedule: str | None = None, commits_per_hour: int | None = None) -> Release:
    """The release with the options of the command line.

    Raises:
        ReleaseError: source and target are the same. ScheduleError: unknown schedule.
    """
    if release.source == release.target:
        raise ReleaseError("source and target are the same repo", release.where, "name another repo as target")
    if schedule is not None:
        release = replace(release, schedule=schedule_named(schedule))
    return release if commits_per_hour is None else replace(release, commits_per_hour=commits_per_hour)


def tokens_per_step(options: Mapping[str, Any], state: TrainingState) -> int | None:
    """Tokens in one step: sequences in a global batch x sequence length; None where neither file tells.

    The global batch is ``train_batch_size``, else micro batch x gradient accumulation x data-parallel ranks
    (DeepSpeed's rule), the last from the checkpoint's ``dp_world_size``.
    """
    length = options.get("seq_length")
    sequences = options.get("train_batch_size")
    if sequences is None:
        micro = options.get("train_micro_batch_size_per_gpu", options.get("batch_size"))
        accumulation = options.get("gradient_accumulation_steps", options.get("gas", 1))
        factors = (micro, accumulation, state.data_parallel)
        if not all(_count(factor) for factor in factors):
            return None
        sequences = micro * accumulation * state.data_parallel
    return sequences * length if _count(sequences) and _count(length) else None


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
