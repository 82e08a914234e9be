"""A release made ready: where from, where to, which steps, which tokenizer. Nothing is written anywhere yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from publish.card.facts import HUB
from publish.convert.hfconfig import with_overrides
from publish.convert.plan import make_plan
from publish.convert.recipes import ConversionPlan
from publish.convert.tokenizer import Tokenizer, find_tokenizer, not_found
from publish.errors import ReleaseError, ScheduleError, TokenizerError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.state import TrainingState
from publish.release import Release, schedule_named
from publish.run.schedule import expected_steps
from publish.run.tokens import tokens_per_step
from publish.schedule import parse_steps
from publish.source.checkpoints import RunSource
from publish.source.location import parse_location
from publish.source.sources import Sources


@dataclass(frozen=True)
class Job:
    """What every step of one release shares. ``steps`` is the whole schedule, ``chosen`` what this run is asked for.

    ``hub`` is where links in cards lead, ``templates`` a maintainer's own folder of them. ``sources`` is what all of it
    was read from.
    """

    release: Release
    run: RunSource
    steps: tuple[int, ...]
    chosen: tuple[int, ...]
    config: NeoxConfig
    plan: ConversionPlan
    tokenizer: Tokenizer | None
    tokens_per_step: int | None
    data_parallel: int | None
    hub: str = HUB
    templates: Path | None = None
    sources: Sources = field(default_factory=Sources)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for beyond the release file."""

    steps: str | None = None
    tokenizer: str | None = None


def make_job(
    release: Release, wishes: Wishes = Wishes(), sources: Sources | None = None, *, need_tokenizer: bool = True
) -> Job:
    """Open the source and plan the first step: everything that can be known before a weight is read.

    Raises:
        ScheduleError: steps of the schedule are missing in the source, or steps that are not in it are asked for.
        TokenizerError: none is found and ``need_tokenizer``.
        PublishError: as the stages do.
    """
    sources = sources or Sources()
    run = sources.run(parse_location(release.source, release.base))
    steps = expected_steps(run, release.schedule)
    if missing := [step for step in steps if step not in run.steps]:
        shown = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise ScheduleError(
            f"{len(missing)} of the schedule's {len(steps)} steps are not there: {shown}",
            run.where,
            "fetch them, or name the schedule that the run has (schedule: in the release file, or --schedule)",
        )
    chosen = _chosen(steps, wishes.steps)
    checkpoint, config, plan = _first(release, run, chosen[0])
    choice = wishes.tokenizer or _relative(release)
    tokenizer = find_tokenizer(choice, config, _folder(run, chosen[0]), partial(fetch_tokenizer, sources=sources))
    if tokenizer is None and need_tokenizer and choice != "none":
        raise not_found(config)
    tokens = tokens_per_step(config.options, checkpoint)
    parallel = checkpoint.data_parallel
    return Job(release, run, steps, chosen, config, plan, tokenizer, tokens, parallel, sources=sources)


def _chosen(steps: tuple[int, ...], wish: str | None) -> tuple[int, ...]:
    if wish is None:
        return steps
    wanted = set(parse_steps(wish))
    chosen = tuple(step for step in steps if step in wanted)
    single = {int(part) for part in wish.split(",") if part.strip().isdigit()}
    if not chosen or (absent := single - set(steps)):
        named = ", ".join(map(str, sorted(absent))) if chosen else wish
        raise ScheduleError(f"no step {named} in the schedule", f"--steps {wish}", "name steps of the schedule")
    return chosen


def plan_of(release: Release, checkpoint: RawCheckpoint, config: NeoxConfig) -> ConversionPlan:
    """The plan that a release has for a checkpoint.

    Raises:
        PublishError: as `make_plan` and `with_overrides` do.
    """
    return with_overrides(
        make_plan(checkpoint, config, release.dtype), {each.key: each.value for each in release.overrides}
    )


def _first(release: Release, run: RunSource, step: int) -> tuple[TrainingState, NeoxConfig, ConversionPlan]:
    files = run.open_index(run.steps[step])
    try:
        checkpoint = RawCheckpoint.open(files, weights=False)
        config = read_config(checkpoint)
        return checkpoint.state, config, plan_of(release, checkpoint, config)
    finally:
        files.close()


def _folder(run: RunSource, step: int) -> Path | None:
    folder = Path(run.where)
    return folder / run.steps[step].name if run.steps[step].commit is None else None


def _relative(release: Release) -> str | None:
    """The release's tokenizer; a path is relative to the release file."""
    if release.tokenizer is None or not (release.base / release.tokenizer).exists():
        return release.tokenizer
    return str(release.base / release.tokenizer)


def fetch_tokenizer(repo: str, sources: Sources | None = None) -> Mapping[str, bytes]:
    """The tokenizer files of a Hub repo (``owner/name``, optional ``@revision``).

    Raises:
        TokenizerError: it has none. HubError: no such repo, no access, no connection.
    """
    name, _, revision = repo.removeprefix("hf://").partition("@")
    reader = (sources or Sources()).repo(name)
    files = reader.index(reader.resolve(revision or "main"), repo)
    wanted = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    found = {path: bytes(files.open(path).read(0, files.sizes[path])) for path in wanted if path in files.sizes}
    files.close()
    if "tokenizer.json" not in found:
        raise TokenizerError("the repo has no tokenizer.json", repo, "name another repo, a folder or a file")
    return found


def adopt(release: Release, *, schedule: str | None = None, commits_per_hour: int | None = None) -> Release:
    """The release with what the command line overrides.

    Raises:
        ReleaseError: source and target are the same. ScheduleError: no schedule of that name.
    """
    if release.source == release.target:
        raise ReleaseError("source and target are the same repo", release.where, "name a repo of its own as target")
    if schedule is not None:
        release = replace(release, schedule=schedule_named(schedule))
    return release if commits_per_hour is None else replace(release, commits_per_hour=commits_per_hour)
