"""The release file that fits a run: what ``publish init`` writes and ``publish all-steps SOURCE TARGET`` uses."""

from __future__ import annotations

import json
from pathlib import Path

from publish.errors import ScheduleError, StorageError
from publish.hub.client import Client
from publish.release.job import RunIndex
from publish.release_file import CardMetadata, ExpectedEqual, Release
from publish.schedule import FROM_CONFIG, NAMED, from_config
from publish.sources.runs import open_run, parse_location

FIRST_STEP = "the learning rate is 0 on the first iteration (gpt-neox before 19f294d5, May 2026)"


def propose(source: str, target: str, client: Client | None = None, index: RunIndex | None = None) -> Release:
    """The release that fits the run at ``source``: the schedule of its steps, and whether steps 0 and 1 are equal.

    ``index`` is the run where it was opened before.

    Raises:
        PublishError: the source or its config cannot be read.
    """
    index = index or RunIndex(open_run(parse_location(source), client))
    run = index.run
    first = next(iter(run.steps))
    config, state = index.config(first), index.checkpoint(first).state
    legacy = state.deepspeed_version is not None and _warms_up(dict(config.options))
    found = tuple(run.steps)
    equal = legacy and {0, 1} <= set(found) and index.checkpoint(0).fingerprint == index.checkpoint(1).fingerprint
    return Release(
        source=source,
        target=target,
        card=CardMetadata(title=target.split("/")[-1], tags=("gpt-neox", "causal-lm")),
        schedule=_schedule(found, dict(config.options), config.where),
        expect=(ExpectedEqual((0, 1), FIRST_STEP),) if equal else (),
    )


def _schedule(found: tuple[int, ...], options: dict[str, object], where: str) -> str | tuple[int, ...]:
    for name, steps in NAMED.items():
        if found == steps:
            return name
    try:
        return FROM_CONFIG if from_config(options, where) == found else found
    except ScheduleError:
        return found


def _warms_up(options: dict[str, object]) -> bool:
    """Whether the config warms up, so that the first iteration may have had rate 0."""
    return options.get("warmup", 0.01) != 0


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
        lines += [f"  - {{equal: {list(equal.steps)}, because: {quote(equal.because)}}}" for equal in release.expect]
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
