"""What can go wrong on the wire, and how it is told.

:class:`Transient` never leaves :meth:`publish.wire.client.Client.call` except as :class:`Uncertain`;
everything else that leaves is a :class:`~publish.errors.HubError`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from publish.errors import HubError

# Which Hub, as whom, and how long it may take to answer.


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


_SECRETS = re.compile(r"\b(?:hf|api_org|hf_jwt)_[A-Za-z0-9]{20,}|(?i:bearer)\s+[^\s'\",;]+")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


_known: set[str] = set()


def keep_secret(token: str) -> None:
    """Let :func:`redact` take out this token, whatever it looks like."""
    _known.add(token)


def redact(text: str) -> str:
    """`text` without tokens and without the query of any URL (signed locations carry their key there)."""
    for token in tuple(_known):  # another thread may add one
        text = text.replace(token, "<token>")
    return _SECRETS.sub("<token>", _QUERY.sub(r"\1?<query>", text))


class Transient(Exception):
    """A try that failed in a way which another try may not. `sent`: the server may have acted on it."""

    def __init__(self, message: str, *, where: str = "", sent: bool = True, status: int = 0) -> None:
        super().__init__(redact(message))
        self.where = redact(where)
        self.sent = sent
        self.status = status


class RateLimited(Transient):
    """429: not acted on. `seconds` as the server told, None when it did not say."""

    def __init__(self, message: str, *, where: str, seconds: float | None, commits: bool) -> None:
        super().__init__(message, where=where, sent=False, status=429)
        self.seconds = seconds
        self.commits = commits  # the quota of commits to one repo, not that of API requests


class Refused(HubError):
    """The Hub answered no, and would again. `status`, `code` (X-Error-Code), `message` are its own."""

    def __init__(
        self, what: str, where: object, fix: str, *, status: int = 0, code: str = "", message: str = ""
    ) -> None:
        super().__init__(redact(what), redact(str(where)), redact(fix))
        self.status = status
        self.code = code
        self.message = redact(message)

    @property
    def for_all(self) -> bool:
        """Whether every other request to that repo would be refused as well: no access, no plan, no repo."""
        return self.status in (401, 402, 403) or (self.status == 404 and self.code == "RepoNotFound")


class Unreachable(HubError):
    """The endpoint has never answered."""


class Unavailable(HubError):
    """The endpoint kept failing for as long as we were ready to wait."""


class Uncertain(Unavailable):
    """A request that changes something failed after it was sent: look before repeating."""


_FIXES = {
    401: "log in (`hf auth login`) or set HF_TOKEN to a valid token",
    402: "the account's plan does not cover this; see the Hub's billing page",
    403: "use a token with write access to this repo, and check that its owner lets you write",
    404: "check the repo's name and HF_ENDPOINT; a private repo needs a token that may read it",
    409: "somebody else changes this repo; run again",
    412: "the branch moved meanwhile; run again",
    413: "the request is too large for the Hub",
    416: "the file is shorter than recorded; list the source again",
}


def refusal(what: str, where: str, status: int, message: str, code: str = "") -> Refused:
    """The :class:`Refused` for an HTTP status, with what to do about it."""
    fix = _FIXES.get(status, "see the message; correct the request and run again")
    if code == "GatedRepo":
        fix = "ask for access on the repo's page, or use a token that has it"
    told = f": {message.strip()}" if message.strip() else ""
    return Refused(f"{what}: HTTP {status}{told}", where, fix, status=status, code=code, message=message)
