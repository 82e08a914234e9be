"""Which Hub, with which token, and how long and how often to try."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from publish.errors import HubError
from publish.hub.failures import keep_secret, redact

OFFICIAL = "https://huggingface.co"


def cache_folder() -> Path:
    """Where this tool keeps its own files: ``publish`` below ``HF_HOME``, which defaults as in huggingface_hub."""
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return base.expanduser() / "publish"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Hub's URL, without a slash at its end, and the token to use there. The token is not in the repr.

    Raises HubError for a URL that is not http or https.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token:
            keep_secret(self.token)
        if not self.url.startswith(("http://", "https://")) or not urlsplit(self.url).hostname:
            fix = "set HF_ENDPOINT to a URL such as https://huggingface.co"
            raise HubError("the Hub's URL is not an http or https URL", redact(self.url) or "(empty)", fix)

    @classmethod
    def from_environment(cls) -> Endpoint:
        """HF_ENDPOINT, and the token that huggingface_hub would use (HF_TOKEN, `hf auth login`, OIDC)."""
        import huggingface_hub

        url = os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT
        return cls(url.rstrip("/"), huggingface_hub.get_token())

    @property
    def origin(self) -> tuple[str, str, int]:
        return origin_of(self.url)

    @property
    def loopback(self) -> bool:
        """Whether the server runs on this machine, as a rehearsal Hub does."""
        return self.origin[1] == "localhost" or self.origin[1].startswith("127.") or self.origin[1] == "::1"

    @property
    def official(self) -> bool:
        """Whether this is huggingface.co, which has Xet storage."""
        return self.url == OFFICIAL


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. A token is sent to its own origin only."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. huggingface_hub sets none. The Hub ends a commit after 60 s (docs/hub-protocol.md, "Quotas")."""

    connect: float = 10.0
    read: float = 90.0
    write: float = 90.0

    def as_extension(self) -> dict[str, float]:
        """In the form of httpx's ``timeout`` request extension."""
        return {"connect": self.connect, "read": self.read, "write": self.write, "pool": self.read}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try one call, and how long to wait in between. A 429 does not count as a failed try."""

    tries: int = 7
    base: float = 1.0
    cap: float = 30.0
    unreachable_tries: int = 3  # while the endpoint has not answered any request yet
    longest_wait: float = 12 * 3600.0  # seconds that one call waits for quotas in all

    def backoff(self, failures: int) -> float:
        """Seconds before the next try: exponential, capped, the upper half of it random."""
        return min(self.cap, self.base * float(2 ** (failures - 1))) * random.uniform(0.5, 1.0)
