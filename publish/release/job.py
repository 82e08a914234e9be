"""A release from the checkpoint's own word: what ``publish init`` writes and ``all-steps SOURCE TARGET`` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from publish.cards.facts import HUB
from publish.convert.hfconfig import with_overrides
from publish.convert.plan import ConversionPlan, make_plan
from publish.convert.tokenizer import Tokenizer, find_tokenizer, not_found
from publish.errors import ReleaseError, ScheduleError, StorageError, TokenizerError
from publish.hub.client import Client
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.schedule import expected_steps
from publish.neox.state import TrainingState
from publish.release_file import CardText, ExpectedEqual, Release, schedule_named
from publish.schedule import FROM_CONFIG, NAMED, from_config, parse_steps
from publish.sources.remote import HubRepo
from publish.sources.runs import TrainingRun, open_run, parse_location
from publish.text import some

# How many tokens a step has seen, from the config and the checkpoint's own count of ranks.


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


# A release made ready: where from, where to, which steps, which tokenizer. Nothing is written anywhere yet.


@dataclass(frozen=True)
class Job:
    """What every step of one release shares. ``steps`` is the whole schedule, ``chosen`` what this run is asked for.

    ``hub`` is where links in cards lead, ``templates`` a maintainer's own folder of them.
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
    hub: str = HUB
    templates: Path | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for beyond the release file."""

    steps: str | None = None
    tokenizer: str | None = None


def make_job(
    release: Release, wishes: Wishes = Wishes(), client: Client | None = None, *, need_tokenizer: bool = True
) -> Job:
    """Open the source and plan the first step: everything that can be known before a weight is read.

    Raises:
        ScheduleError: steps of the schedule are missing in the source, or steps that are not in it are asked for.
        TokenizerError: none is found and ``need_tokenizer``.
        PublishError: as the stages do.
    """
    run = open_run(parse_location(release.source, release.base), client)
    steps = expected_steps(run, release.schedule)
    if missing := [step for step in steps if step not in run.steps]:
        raise ScheduleError(
            f"{len(missing)} of the schedule's {len(steps)} steps are not there: {some(missing, 8)}",
            run.where,
            "fetch them, or name the schedule that the run has (schedule: in the release file, or --schedule)",
        )
    chosen = _chosen(steps, wishes.steps)
    checkpoint, config, plan = _first(release, run, chosen[0])
    choice = wishes.tokenizer or _relative(release)
    tokenizer = find_tokenizer(choice, config, _folder(run, chosen[0]), partial(fetch_tokenizer, client=client))
    if tokenizer is None and need_tokenizer and choice != "none":
        raise not_found(config)
    tokens = tokens_per_step(config.options, checkpoint)
    parallel = checkpoint.data_parallel
    return Job(release, run, steps, chosen, config, plan, tokenizer, tokens, parallel)


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


def _first(release: Release, run: TrainingRun, step: int) -> tuple[TrainingState, NeoxConfig, ConversionPlan]:
    files = run.open(run.steps[step])
    try:
        checkpoint = RawCheckpoint.open(files, weights=False)
        config = read_config(checkpoint)
        return checkpoint.state, config, plan_of(release, checkpoint, config)
    finally:
        files.close()


def _folder(run: TrainingRun, step: int) -> Path | None:
    folder = Path(run.where)
    return folder / run.steps[step].name if run.steps[step].commit is None else None


def _relative(release: Release) -> str | None:
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


FIRST_STEP = "the learning rate is 0 on the first iteration (gpt-neox before 19f294d5, May 2026)"


def propose(source: str, target: str, client: Client | None = None) -> Release:
    """The release that fits the run at ``source``: a schedule that its steps make up, its declared equality of 0 and 1.

    Raises:
        PublishError: as the source and config stages do.
    """
    run = open_run(parse_location(source), client)
    first = next(iter(run.steps))
    files = run.open(run.steps[first])
    try:
        checkpoint = RawCheckpoint.open(files, weights=False)
        config = read_config(checkpoint)
        legacy = checkpoint.state.deepspeed_version is not None and _first_rate_is_zero(dict(config.options))
        weights = checkpoint.fingerprint
    finally:
        files.close()
    found = tuple(run.steps)
    same = legacy and {0, 1} <= set(found) and _fingerprint(run, 1) == weights
    return Release(
        source=source,
        target=target,
        card=CardText(title=target.split("/")[-1], tags=("gpt-neox", "causal-lm")),
        schedule=_schedule(found, dict(config.options), config.where),
        expect=(ExpectedEqual((0, 1), FIRST_STEP),) if same else (),
    )


def _schedule(found: tuple[int, ...], options: dict[str, object], where: str) -> str | tuple[int, ...]:
    for name, steps in NAMED.items():
        if found == steps:
            return name
    try:
        return FROM_CONFIG if from_config(options, where) == found else found
    except ScheduleError:
        return found


def _first_rate_is_zero(options: dict[str, object]) -> bool:
    """Whether the config warms up, so that the first iteration may have had rate 0."""
    return options.get("warmup", 0.01) != 0


def _fingerprint(run: TrainingRun, step: int) -> str:
    """A digest of the checksums that a checkpoint's archives state; no weight is read."""
    files = run.open(run.steps[step])
    try:
        return RawCheckpoint.open(files, weights=False).fingerprint
    finally:
        files.close()


def release_yaml(release: Release, tokenizer: str | None) -> str:
    """``release`` as a file to edit. Every value is quoted as JSON, which YAML reads."""
    quote = json.dumps
    schedule = release.schedule if isinstance(release.schedule, str) else list(release.schedule)
    lines = [
        "# What publish releases. Check every line; publish stops where a claim contradicts the checkpoints.",
        f"source: {quote(release.source)}",
        f"target: {quote(release.target)}",
        f"schedule: {quote(schedule)}",
        f"tokenizer: {quote(tokenizer)}" if tokenizer else "# tokenizer: owner/name, a folder or a tokenizer.json",
        "card:",
        f"  title: {quote(release.card.title)}",
        f"  license: {quote(release.card.license)}",
        f"  language: {quote(list(release.card.language))}",
        f"  tags: {quote(list(release.card.tags))}",
        "  # datasets: [owner/name]",
        "  # papers: [https://arxiv.org/abs/...]",
        "  # notes: |",
        "  #   Markdown of your own; it is kept apart from what was measured.",
        "  # citation: |",
        "  #   @misc{...}",
        "  # base_model: owner/name",
    ]
    if release.expect:
        lines.append("expect:")
        lines += [f"  - {{equal: {list(each.steps)}, because: {quote(each.because)}}}" for each in release.expect]
    return "\n".join(lines) + "\n"


def write_release(release: Release, tokenizer: str | None, out: Path) -> None:
    """Write the release file.

    Raises:
        StorageError: it exists, or cannot be written.
    """
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(release_yaml(release, tokenizer))
    except FileExistsError as error:
        raise StorageError("the release file exists", out, "name another with -o, or remove it") from error
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", out, "name another place with -o") from error
