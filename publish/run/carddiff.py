"""What changed in the cards, for people: one diff for all cards that changed alike."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from publish.hub.cards import READERS, read_card
from publish.run.cards import Card, ReleaseCards
from publish.wire.client import Client

_PLACE = re.compile(r"^@@ .* @@$", re.MULTILINE)
_NAMED = 6


def differences(cards: ReleaseCards, client: Client) -> Iterator[str]:
    """A unified diff from the published to the new card for each kind of change, headed by the branches that have it.

    Asks one request for each changed card.

    Raises:
        HubError: no access, no connection.
    """
    if not cards.changed:
        return
    with ThreadPoolExecutor(min(READERS, len(cards.changed))) as pool:
        texts = list(pool.map(lambda card: _diff(cards, client, card), cards.changed))
    alike: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        alike.setdefault(_PLACE.sub("@@", text), []).append(index)
    for indices in alike.values():
        names = [cards.changed[index].branch for index in indices]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        reason = cards.changed[indices[0]].reason
        yield f"{', '.join(names[:_NAMED])}{more}: {reason}\n{texts[indices[0]]}"


def _diff(cards: ReleaseCards, client: Client, card: Card) -> str:
    there = read_card(client, cards.release.target, cards.published.branches[card.branch])
    lines = difflib.unified_diff(there.splitlines(), card.text.splitlines(), lineterm="", n=1)
    return "".join(f"{line}\n" for line in islice(lines, 2, None))  # without the names of two files
