"""What a maintainer's text claims against what the config says: the 10 % warm-up of a 1 % run, the other data set."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publish.card.config import ConfigFacts
from publish.card.lint import STALE, Finding
from publish.card.numbers import percent

_WARMUP = re.compile(r"warm[ -]?up[^\n]{0,60}?(\d+(?:\.\d+)?)\s*%|(\d+(?:\.\d+)?)\s*%[^\n]{0,30}?warm[ -]?up", re.I)
_SIZES = (
    (re.compile(r"(\d+)[ -]layers?\b", re.I), "layers", "layers"),
    (re.compile(r"(\d+) attention heads\b", re.I), "heads", "attention heads"),
    (re.compile(r"\bseed(?: of| is|:)? (\d+)\b", re.I), "seed", "seed"),
)
_DEDUP = re.compile(r"dedup", re.I)
_NOT_DEDUP = re.compile(r"(?:not|non|without|before)[ -]*(?:\w+ )?dedup", re.I)


def lint_claims(text: str, config: ConfigFacts, *, datasets: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """Where ``text`` (a card, or a maintainer's notes) and ``datasets`` contradict ``config``."""
    return (*_warmup(text, config), *_sizes(text, config), *_data(text, config, datasets))


def _warmup(text: str, config: ConfigFacts) -> Iterator[Finding]:
    for found in _WARMUP.finditer(text):
        said = float(found[1] or found[2])
        if config.warmup is not None and abs(said - config.warmup * 100) > 1e-9:
            what = f"the card says {said:g} % warm-up, the config {percent(config.warmup)}"
            yield Finding(STALE, "warm-up", what, _line(text, found))


def _sizes(text: str, config: ConfigFacts) -> Iterator[Finding]:
    for pattern, field, name in _SIZES:
        configured = getattr(config, field)
        for found in pattern.finditer(text):
            if configured is not None and int(found[1]) != configured:
                what = f"the card says {name} {found[1]}, the config {configured}"
                yield Finding(STALE, field, what, _line(text, found))


def _data(text: str, config: ConfigFacts, datasets: tuple[str, ...]) -> Iterator[Finding]:
    """Deduplicated or not: the training path, which nobody edits for a card, against the card."""
    if not config.data_paths:
        return
    trained = any(_DEDUP.search(path) for path in config.data_paths)
    claimed = any(_DEDUP.search(name) for name in datasets)
    if datasets and trained != claimed:
        paths = ", ".join(config.data_paths)
        yield Finding(STALE, "dataset", f"released as trained on {', '.join(datasets)}; the config's path is {paths}")
    said = _DEDUP.search(_without_paths(text, config))
    if not trained and said and not _NOT_DEDUP.search(text):
        what = f"the card speaks of deduplicated data; the config's path is {', '.join(config.data_paths)}"
        yield Finding(STALE, "dataset", what)


def _without_paths(text: str, config: ConfigFacts) -> str:
    for path in config.data_paths:
        text = text.replace(path, "")
    return text


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1
