"""Defects of a card, ours or a published one: every card defect that was really published has a rule here.

Text only: no network, nothing rendered. ``kind`` is the audit's name for the finding, ``rule`` the lint's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from publish.cards.details import percent
from publish.records.files import README
from publish.records.run import ConfigFacts
from publish.text import some

_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_LOADERS = (
    re.compile(rf"\.from_pretrained\(\s*[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"),
    re.compile(
        rf"\b(?:snapshot_download|hf_hub_download)\(\s*(?:repo_id\s*=\s*)?[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"
    ),
    re.compile(rf"\bpipeline\([^)]*?model\s*=\s*[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"),
    re.compile(rf"\b(?:hf|huggingface-cli) download (?P<repo>{_NAME})(?P<rest>[^\n]*)"),
    re.compile(rf"\bgit clone (?P<rest>[^\n]*?)https?://[^\s/]+/(?P<repo>{_NAME})"),
)
_REVISION = re.compile(r"\brevision\s*=\s*[\"']([^\"']+)[\"']|--revision[ =](\S+)|(?:-b|--branch)[ =](\S+)")


@dataclass(frozen=True, slots=True)
class Load:
    """One call that loads a model or tokenizer. ``revision`` is None where the call leaves it out: ``main``."""

    repo: str
    revision: str | None
    position: int


def snippet_loads(text: str) -> Iterator[Load]:
    """All loading calls in ``text``, in no particular order."""
    for loader in _LOADERS:
        for found in loader.finditer(text):
            revision = _REVISION.search(found["rest"])
            named = next((group for group in revision.groups() if group), None) if revision else None
            yield Load(found["repo"], named, found.start())


_WARMUP = re.compile(r"warm[ -]?up[^\n]{0,60}?(\d+(?:\.\d+)?)\s*%|(\d+(?:\.\d+)?)\s*%[^\n]{0,30}?warm[ -]?up", re.I)
_SIZES = (
    (re.compile(r"(\d+)[ -]layers?\b", re.I), "layers", "layers"),
    (re.compile(r"(\d+) attention heads\b", re.I), "heads", "attention heads"),
    (re.compile(r"\bseed(?: of| is|:)? (\d+)\b", re.I), "seed", "seed"),
)
_DEDUP = re.compile(r"dedup", re.I)
_NOT_DEDUP = re.compile(r"(?:not|non|without|before)[ -]*(?:\w+ )?dedup", re.I)


def lint_claims(text: str, config: ConfigFacts, *, datasets: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """The claims in ``text`` (a card, or a maintainer's notes) and ``datasets`` that contradict ``config``."""
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
        what = f"the card says deduplicated data; the config's path is {', '.join(config.data_paths)}"
        yield Finding(STALE, "dataset", what)


def _without_paths(text: str, config: ConfigFacts) -> str:
    for path in config.data_paths:
        text = text.replace(path, "")
    return text


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1


METADATA, SNIPPET, STALE, LFS = "card-metadata", "card-snippet", "card-stale", "readme-in-lfs"

REQUIRED = ("license", "language", "library_name", "pipeline_tag")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_POINTER = "version https://git-lfs.github.com/spec/"
_COUNT = re.compile(
    r"(?<![\w.,])(\d[\d,]*)\s+(?:(?:intermediate|training|published|saved|model|available)\s+){0,2}"
    r"(?:checkpoints|branches|revisions)\b|\bcheckpoint \d+ of (\d[\d,]*)",
    re.IGNORECASE,
)
_STEP_NAME = re.compile(r"`(step\d+)`")
_ERRATA = re.compile(r"^## Errata$.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = r"(?:tree|blob|resolve|raw)/(?P<ref>[^/\s)\"'>\]#?]+)"
_WEB_REPO = re.compile(r"huggingface\.co/(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/" + _PLACE + ")?")
_RELATIVE = re.compile(r"\]\((?![a-z][a-z0-9+.-]*:|/|\.\.)([^\s)]+)\)", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_NOT_MODELS = ("datasets", "spaces", "papers", "docs", "blog", "collections", "models", "api", "organizations")


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect: the audit's kind, the rule, what was found, and the line (0: the card as a whole)."""

    kind: str
    rule: str
    detail: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class _Card:
    """A card under the lint. ``branches`` are the steps' branches, without ``main``."""

    text: str
    repo: str
    branches: tuple[str, ...]
    revision: str | None
    known: frozenset[str]
    files: frozenset[str] | None

    def line(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def exists(self, ref: str) -> bool:
        return ref == "main" or ref in self.branches or _COMMIT.fullmatch(ref) is not None


def lint_card(
    text: str,
    repo: str,
    branches: Iterable[str],
    revision: str | None = None,
    *,
    known: Collection[str] = (),
    lfs: Collection[str] = (),
    files: Collection[str] | None = None,
) -> tuple[Finding, ...]:
    """What is wrong with the card ``text`` of ``repo``, in the order of its lines.

    ``branches``: those that exist (``main`` may be among them). ``revision``: the branch that a step's card lies on;
    None for the suite's. ``known``: other repos that the card may name (source, comparisons, base model). ``lfs``:
    the paths that the branch keeps in LFS. ``files``: all its paths, where they are known.
    """
    found = [Finding(LFS, "in-lfs", f"{path} is kept in LFS") for path in sorted(lfs) if _should_be_plain(path)]
    if text.startswith(_POINTER):
        return (*found, Finding(LFS, "pointer", "the card is an LFS pointer, not its text", 1))
    steps = tuple(branch for branch in dict.fromkeys(branches) if branch != "main")
    text = _ERRATA.sub(lambda found: "\n" * found[0].count("\n"), text)  # it quotes what was wrong
    card = _Card(text, repo, steps, revision, frozenset(known), None if files is None else frozenset(files))
    for rule in _RULES:
        found.extend(rule(card))
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: (finding.line, finding.kind, finding.detail)))


def _should_be_plain(path: str) -> bool:
    return path.endswith(README) or path.lower().endswith(PICTURES)


def _metadata(card: _Card) -> Iterator[Finding]:
    found = _FRONT.match(card.text)
    if found is None:
        yield Finding(METADATA, "no-front-matter", "the card has no YAML metadata at its head", 1)
        return
    try:
        values = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date, endless nesting
        yield Finding(METADATA, "front-matter", f"the metadata is not valid YAML: {error}".splitlines()[0], 1)
        return
    if not isinstance(values, dict) or not values:
        yield Finding(METADATA, "no-front-matter", "the metadata at the card's head is empty", 1)
        return
    yield from (Finding(METADATA, "missing-key", f"{key} is missing", 1) for key in REQUIRED if key not in values)
    yield from (Finding(METADATA, "empty-key", f"{key} is empty", 1) for key, value in values.items() if _empty(value))


def _empty(value: Any) -> bool:
    if isinstance(value, list):  # not what it holds: aliases can make a small list endless
        return not value or any(_blank(item) or item == [] for item in value)
    return _blank(value)


def _blank(value: Any) -> bool:
    return value is None or value == {} or (isinstance(value, str) and not value.strip())


def _snippets(card: _Card) -> Iterator[Finding]:
    loads = tuple(snippet_loads(card.text))
    if not loads:
        yield Finding(SNIPPET, "no-snippet", "nothing in the card shows how to load the model")
    for load in loads:
        line = card.line(load.position)
        if load.repo != card.repo and load.repo not in card.known:
            yield Finding(SNIPPET, "snippet-repo", f"the snippet loads {load.repo}, not {card.repo}", line)
            continue
        if load.repo != card.repo:
            continue
        if load.revision is None and card.revision is not None:
            yield Finding(SNIPPET, "snippet-revision", f"the snippet loads main, not {card.revision}", line)
        elif load.revision is not None and card.revision not in (None, load.revision):
            what = f"the snippet loads {load.revision}, not {card.revision}"
            yield Finding(SNIPPET, "snippet-revision", what, line)
        elif load.revision is not None and not card.exists(load.revision):
            yield Finding(SNIPPET, "snippet-revision", f"the snippet loads {load.revision}, which does not exist", line)


def _counts(card: _Card) -> Iterator[Finding]:
    for found in _COUNT.finditer(card.text):
        said = int((found[1] or found[2]).replace(",", ""))
        if said != len(card.branches):
            what = f"the card says {said:,} checkpoints, and {len(card.branches):,} branches exist"
            yield Finding(STALE, "count", what, card.line(found.start()))


def _links(card: _Card) -> Iterator[Finding]:
    linked: set[str] = set()
    for found in _WEB_REPO.finditer(card.text):
        ref = found["ref"]
        if found["repo"] != card.repo or ref is None:
            continue
        linked.add(ref)
        if not card.exists(ref):
            what = f"a link leads to the branch {ref}, which does not exist"
            yield Finding(STALE, "dead-link", what, card.line(found.start()))
    for found in _STEP_NAME.finditer(card.text):
        if not card.exists(found[1]):
            yield Finding(STALE, "no-branch", f"{found[1]} is named, and does not exist", card.line(found.start()))
    absent = [branch for branch in card.branches if branch not in linked]
    if absent and card.revision is None and len(linked & set(card.branches)) > 2:  # the card has a table of branches
        yield Finding(STALE, "unlisted", f"the card lists branches, but not {some(absent)}")


def _inside(card: _Card) -> Iterator[Finding]:
    """Links and pictures within the repo that lead to a missing file or heading."""
    anchors = {_anchor(found[1]) for found in _HEADING.finditer(card.text)}
    for found in _RELATIVE.finditer(card.text):
        path, _, anchor = found[1].partition("#")
        if path and card.files is not None and path.removeprefix("./") not in card.files:
            what = f"a link leads to {path}, which the branch does not have"
            yield Finding(STALE, "dead-link", what, card.line(found.start()))
        elif not path and anchor not in anchors:
            what = f"a link leads to #{anchor}, and no heading has that name"
            yield Finding(STALE, "dead-link", what, card.line(found.start()))


def _anchor(heading: str) -> str:
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def _others(card: _Card) -> Iterator[Finding]:
    """Repos named in links, repos of the same owner, and models of the same family, named anywhere."""
    owner, name = card.repo.split("/")
    prefix = name.partition("-")[0]
    known = {card.repo.lower(), *(repo.lower() for repo in card.known), *_datasets(card.text)}
    names = {repo.rpartition("/")[2] for repo in known}
    for found in _WEB_REPO.finditer(card.text):
        repo = found["repo"].rstrip(".")
        if repo.partition("/")[0] not in _NOT_MODELS and repo.lower() not in known:
            yield _other(card, repo, found.start())
    for found in re.finditer(rf"(?<![\w/.-]){re.escape(owner)}/[A-Za-z0-9][\w.-]*[A-Za-z0-9]", card.text):
        if found[0].lower() not in known:
            yield _other(card, found[0], found.start())
    for found in re.finditer(rf"(?<![\w/.-]){re.escape(prefix)}-[\w.-]*\d[\w.-]*", card.text, re.IGNORECASE):
        if found[0].rstrip(".-").lower() not in names:
            yield _other(card, found[0].rstrip(".-"), found.start())


def _datasets(text: str) -> set[str]:
    front = _FRONT.match(text)
    return {found.lower() for found in re.findall(r"[\w.-]+/[\w.-]+", front[1])} if front else set()


def _other(card: _Card, name: str, position: int) -> Finding:
    return Finding(STALE, "other-model", f"the card names {name}, which is another model", card.line(position))


_RULES: tuple[Callable[[_Card], Iterator[Finding]], ...] = (_metadata, _snippets, _counts, _links, _inside, _others)
