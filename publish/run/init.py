"""A release from the checkpoint's own word: what ``publish init`` writes and ``all-steps SOURCE TARGET`` does."""

from __future__ import annotations

import json
from pathlib import Path

from publish.cardtext import CardText
from publish.errors import ScheduleError, StorageError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.release import ExpectedEqual, Release
from publish.schedule import FROM_CONFIG, NAMED, from_config
from publish.source.checkpoints import RunSource
from publish.source.location import parse_location
from publish.source.sources import Sources

FIRST_STEP = "the learning rate is 0 on the first iteration (gpt-neox before 19f294d5, May 2026)"


def propose(source: str, target: str, sources: Sources | None = None) -> Release:
    """The release that fits the run at ``source``: a schedule that its steps make up, its declared equality of 0 and 1.

    Raises:
        PublishError: as the source and config stages do.
    """
    run = (sources or Sources()).run(parse_location(source))
    first = next(iter(run.steps))
    files = run.open_index(run.steps[first])
    try:
        checkpoint = RawCheckpoint.open(files, weights=False)
        config = read_config(checkpoint)
        legacy = checkpoint.state.deepspeed_version is not None and _first_rate_is_zero(dict(config.options))
    finally:
        files.close()
    found = tuple(run.steps)
    expect = (ExpectedEqual((0, 1), FIRST_STEP),) if legacy and {0, 1} <= set(found) and _same_index(run, 0, 1) else ()
    return Release(
        source=source,
        target=target,
        card=CardText(title=target.split("/")[-1], tags=("gpt-neox", "causal-lm")),
        schedule=_schedule(found, dict(config.options), config.where),
        expect=expect,
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


def _same_index(run: RunSource, one: int, other: int) -> bool:
    """Whether both checkpoints' archives state the same checksum for every weight; no weight is read."""
    return _fingerprint(run, one) == _fingerprint(run, other)


def _fingerprint(run: RunSource, step: int) -> str:
    files = run.open_index(run.steps[step])
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
