"""What cards a release has on a Hub, and what they were made from: three requests where ``main`` lists every tip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from publish.hub.client import Client
from publish.hub.downloads import fetch_text_if_there
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.manifest import Manifest

README = "README.md"
READERS = 8


@dataclass(frozen=True, slots=True)
class StepCard:
    """A step's branch: the record of its tip, and the sha256 of the card that is really there."""

    record: CheckpointRecord
    card: str | None

    @property
    def manifest(self) -> Manifest:
        """What the card is made from."""
        assert self.record.published is not None  # no other record becomes a StepCard
        return self.record.published


@dataclass(frozen=True)
class PublishedCards:
    """A release as the Hub has it. ``listing`` is ``main``'s ``checkpoints.json``, None before ``main`` is published.

    ``main``: its files by path. ``missing``: steps that were asked for and are not published.
    """

    repo: str
    branches: Mapping[str, str]
    main: Mapping[str, TreeEntry]
    listing: Checkpoints | None
    steps: Mapping[int, StepCard]
    missing: tuple[int, ...]


def published_cards(client: Client, repo: str, steps: Callable[[], Iterable[int]]) -> PublishedCards:
    """Look at the steps that ``main`` lists; where it lists none yet, at ``steps()``.

    A step is known from ``checkpoints.json`` where that names its branch's tip; else its branch is read.

    Raises:
        HubError: no such repo, no access, no connection; a record that is none.
    """
    branches = list_branches(client, repo)
    main = {entry.path: entry for entry in list_tree(client, repo, branches["main"])} if "main" in branches else {}
    listing = _listing(client, repo, branches["main"]) if checkpoints.NAME in main else None
    listed = {each.step: each for each in listing.checkpoints} if listing else {}
    found: dict[int, StepCard | None] = {
        step: StepCard(record, record.card)
        for step, record in listed.items()
        if record.published and branches.get(record.branch) == record.commit
    }
    unknown = [step for step in listed or steps() if step not in found]
    read = _read(client, repo, {step: branches.get(f"step{step}") for step in unknown})
    found |= {step: _again(listed.get(step), card) for step, card in read.items()}
    there = {step: card for step, card in sorted(found.items()) if card is not None}
    return PublishedCards(repo, branches, main, listing, there, tuple(sorted(found.keys() - there.keys())))


def _again(listed: CheckpointRecord | None, card: StepCard | None) -> StepCard | None:
    """The step with what ``main`` lists of the same weights."""
    if listed is None or card is None:
        return card
    return replace(card, record=listed.merge_metadata(card.record))


def read_card(client: Client, repo: str, commit: str) -> str:
    """The card at a commit, in one request; empty where there is none."""
    content = fetch_text_if_there(client, repo, commit, README)
    return "" if content is None else content.decode("utf-8", "replace")


def read_manifest(client: Client, repo: str, commit: str) -> Manifest | None:
    """The whole ``publish.json`` at a commit, in one request; None where there is none."""
    content = fetch_text_if_there(client, repo, commit, manifest.NAME)
    return None if content is None else Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}")


def _listing(client: Client, repo: str, commit: str) -> Checkpoints | None:
    content = fetch_text_if_there(client, repo, commit, checkpoints.NAME)
    return None if content is None else Checkpoints.from_bytes(content, f"{repo}@{commit}/{checkpoints.NAME}")


def _read(client: Client, repo: str, tips: Mapping[int, str | None]) -> dict[int, StepCard | None]:
    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        return dict(zip(tips, pool.map(lambda commit: _read_step(client, repo, commit), tips.values()), strict=True))


def _read_step(client: Client, repo: str, commit: str | None) -> StepCard | None:
    found = read_manifest(client, repo, commit) if commit else None
    if commit is None or found is None:
        return None
    card = fetch_text_if_there(client, repo, commit, README)
    digest = None if card is None else hashlib.sha256(card).hexdigest()
    return StepCard(CheckpointRecord.of(found, commit), digest)
