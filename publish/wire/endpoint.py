"""Which Hub, as whom, and how long it may take to answer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from publish.errors import HubError
from publish.wire.failures import keep_secret, redact

OFFICIAL = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Hub's address, without a slash at its end, and the token to use there. The token is in no repr.

    Raises HubError for an address that is no http URL.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token:
            keep_secret(self.token)
        if not self.url.startswith(("http://", "https://")) or not urlsplit(self.url).hostname:
            fix = "set HF_ENDPOINT to an address such as https://huggingface.co"
            raise HubError("the Hub's address is no http URL", redact(self.url) or "(empty)", fix)

    @classmethod
    def from_environment(cls) -> Endpoint:
        """HF_ENDPOINT, and the token huggingface_hub would use (HF_TOKEN, `hf auth login`, OIDC)."""
        import huggingface_hub

        url = os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT
        return cls(url.rstrip("/"), huggingface_hub.get_token())

    @property
    def origin(self) -> tuple[str, str, int]:
        return origin_of(self.url)

    @property
    def loopback(self) -> bool:
        """Whether this is a server on this machine, such as a rehearsal Hub."""
        return self.origin[1] == "localhost" or self.origin[1].startswith("127.") or self.origin[1] == "::1"

    @property
    def official(self) -> bool:
        """Whether this is huggingface.co, which has Xet storage."""
        return self.url == OFFICIAL


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. huggingface_hub sets none; a commit takes up to 60 s at the Hub's edge (hub-protocol.md)."""

    connect: float = 10.0
    read: float = 90.0
    write: float = 90.0

    def as_extension(self) -> dict[str, float]:
        """In the form of httpx's ``timeout`` request extension."""
        return {"connect": self.connect, "read": self.read, "write": self.write, "pool": self.read}


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try again. 429 is not a failure and has a bound of its own."""

    tries: int = 7
    base: float = 1.0
    cap: float = 30.0
    unreachable_tries: int = 3  # while the endpoint has never answered
    longest_wait: float = 12 * 3600.0  # all 429 waits of one call together


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who may see the token."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )
