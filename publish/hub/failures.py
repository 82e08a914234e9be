"""How a request to a Hub fails, and how the failure is described without secrets.

:class:`Transient` leaves :meth:`publish.hub.client.Client.call` only as :class:`Uncertain`; every other failure that
leaves it is a :class:`~publish.errors.HubError`.
"""

from __future__ import annotations

import re

from publish.errors import HubError

_SECRETS = re.compile(r"\b(?:hf|api_org|hf_jwt)_[A-Za-z0-9]{20,}|(?i:bearer)\s+[^\s'\",;]+")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_tokens: set[str] = set()


def keep_secret(token: str) -> None:
    """Let :func:`redact` remove this token, whatever it looks like."""
    _tokens.add(token)


def redact(text: str) -> str:
    """`text` without tokens and without the query of any URL: signed locations carry their key there."""
    for token in tuple(_tokens):  # another thread may add one
        text = text.replace(token, "<token>")
    return _SECRETS.sub("<token>", _QUERY.sub(r"\1?<query>", text))


class Transient(Exception):
    """A failed try that may succeed when it is repeated. `sent`: the server may have acted on the request."""

    def __init__(self, message: str, *, where: str = "", sent: bool = True, status: int = 0) -> None:
        super().__init__(redact(message))
        self.where = redact(where)
        self.sent = sent
        self.status = status


class RateLimited(Transient):
    """429: the server did not act on the request. `seconds` to wait as the server says; None if it does not say."""

    def __init__(self, message: str, *, where: str, seconds: float | None, commits: bool) -> None:
        super().__init__(message, where=where, sent=False, status=429)
        self.seconds = seconds
        self.commits = commits  # a commit was refused, and not a request in general


class Refused(HubError):
    """The Hub answered 4xx and would do so again. `status`, `code` (X-Error-Code) and `message` are the server's."""

    def __init__(
        self, what: str, where: object, fix: str, *, status: int = 0, code: str = "", message: str = ""
    ) -> None:
        super().__init__(redact(what), redact(str(where)), redact(fix))
        self.status = status
        self.code = code
        self.message = redact(message)

    @property
    def for_all(self) -> bool:
        """Whether every other write to that repo would be refused too: no access, no plan, or no such repo."""
        return self.status in (401, 402, 403) or (self.status == 404 and self.code == "RepoNotFound")


class Unreachable(HubError):
    """The endpoint has not answered any request."""


class Unavailable(HubError):
    """The endpoint kept failing for as long as the retry policy allows."""


class Uncertain(Unavailable):
    """A request that changes something was sent and its answer was lost: look at the repo before repeating it."""


_FIXES = {
    401: "log in (`hf auth login`) or set HF_TOKEN to a valid token",
    402: "the account's plan does not cover this; see the billing page of the Hub",
    403: "use a token with write access to this repo, and check that its owner lets you write",
    404: "check the name of the repo and HF_ENDPOINT; a private repo needs a token that may read it",
    409: "somebody else is changing this repo; run again",
    412: "the branch has moved since it was read; run again",
    413: "the request is too large for the Hub",
    416: "the file is shorter than recorded; list the source again",
}


def refusal(what: str, where: str, status: int, message: str, code: str = "") -> Refused:
    """The :class:`Refused` for an HTTP status, with what to do about it."""
    fix = _FIXES.get(status, "see the message; correct the request and run again")
    if code == "GatedRepo":
        fix = "ask for access on the repo's page, or use a token that has it"
    explained = f": {message.strip()}" if message.strip() else ""
    return Refused(f"{what}: HTTP {status}{explained}", where, fix, status=status, code=code, message=message)
