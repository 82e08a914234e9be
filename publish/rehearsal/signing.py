"""Locations that speak for themselves: a path, an expiry and claims, signed with the Hub's own secret.

Outside fact (facts/hub-protocol.md): the Hub's CDN locations expire after 3,600 s and answer 403 then.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from publish.rehearsal.refusals import Refusal

LIFETIME = 3600.0


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs paths with claims. ``now`` is the clock, injected."""

    secret: bytes
    now: Callable[[], float]
    lifetime: float = LIFETIME

    def query(self, path: str, **claims: str) -> str:
        """The query string that makes ``path`` valid until its lifetime is over."""
        fields = {**claims, "expires": str(int(self.now() + self.lifetime))}
        return urlencode({**fields, "signature": self._digest(path, fields)})

    def check(self, path: str, query: Mapping[str, str]) -> dict[str, str]:
        """The claims of a signed query.

        Raises:
            Refusal: 403 when it was not signed here or has expired.
        """
        fields = {name: value for name, value in query.items() if name != "signature"}
        if not hmac.compare_digest(self._digest(path, fields).encode(), query.get("signature", "").encode()):
            raise Refusal(403, "Invalid signature")
        if not fields.get("expires", "").isdigit() or int(fields["expires"]) < self.now():
            raise Refusal(403, "Request has expired")
        return fields

    def _digest(self, path: str, fields: Mapping[str, str]) -> str:
        message = path + "?" + urlencode(sorted(fields.items()))
        return hmac.new(self.secret, message.encode(), hashlib.sha256).hexdigest()
