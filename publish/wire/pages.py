"""Lists that come in pages: each page a JSON array, the next one where the ``Link`` header says (RFC 8288).

Only what the protocol documents is relied on (facts: https://huggingface.co/docs/hub/api); an answer that is not what
it should be is an error, never an empty list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

from publish.errors import HubError
from publish.wire.client import Client
from publish.wire.endpoint import origin_of

_NEXT = re.compile(r'<([^>]*)>\s*(?:;[^,<]*)*;\s*rel\s*=\s*"?next"?', re.IGNORECASE)
_MEND = "check that HF_ENDPOINT is a Hub; if it is, report the answer to those who run it"


def pages(client: Client, path: str, params: Mapping[str, str], what: str) -> Iterator[dict[str, Any]]:
    """The objects of all pages of the list at an API path, in order; a request per page.

    Raises:
        HubError: a page is no list of objects; the pages lead in a circle or to another server; or the failures of
            :meth:`Client.call`.
    """
    url: str | None = client.endpoint.url + path
    seen: set[str] = set()
    while url is not None:
        if url in seen or origin_of(url) != client.endpoint.origin:
            where = "in a circle" if url in seen else "to another server"
            raise HubError(f"{what}: the pages of the list lead {where}", url, _MEND)
        seen.add(url)
        items, following = _page(client, url, params if len(seen) == 1 else None, what)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise malformed(what, "no list of objects", url)
        yield from items
        url = urljoin(url, following) if following else None


def _page(client: Client, url: str, params: Mapping[str, str] | None, what: str) -> tuple[Any, str | None]:
    def once() -> tuple[Any, str | None]:
        response = client.session().get(url, params=params, headers=client.headers(url))
        client.check(response)
        found = _NEXT.search(response.headers.get("link", ""))
        return client.document(response), found[1] if found else None

    return client.call(what, once)


def malformed(what: str, answer: str, where: str) -> HubError:
    """The error for an answer that is not what the protocol says."""
    return HubError(f"{what}: the answer is {answer}", where, _MEND)
