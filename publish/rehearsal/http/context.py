"""A request as its handler sees it: the user, the repo that it is about, and what the user may do there."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from publish.rehearsal.errors import HttpError, bad_request, forbidden, repo_not_found
from publish.rehearsal.http.routes import Stats
from publish.rehearsal.names import KINDS, RESERVED, RepoId, repo_id
from publish.rehearsal.storage.git import GitRepo
from publish.rehearsal.storage.store import RepoSettings, RepoStore

_USER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_SIGNATURE_LIFETIME = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class User:
    """The user of a token. ``role`` is ``write`` or ``read``; ``key`` is a digest of the token."""

    name: str
    role: str
    key: str


def user_of(authorization: str) -> User | None:
    """The user of an ``Authorization: Bearer`` header; None without a token.

    ``hf_alice`` is alice, ``hf_read_alice`` is alice with a read-only token. A token that is too long to be a name
    that somebody chose gives ``user-`` and a digest: a real token must not show on a page or in a commit.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        return None
    role = "read" if token.startswith("hf_read") else "write"
    digest = hashlib.sha256(token.encode()).hexdigest()
    name = token.removeprefix("hf_").removeprefix("read_")
    usable = _USER_NAME.fullmatch(name) and "--" not in name and name.lower() not in RESERVED
    return User(name if usable else f"user-{digest[:10]}", role, digest)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs a path, an expiry and claims with the Hub's secret. ``now`` is the clock, injected."""

    secret: bytes
    now: Callable[[], float]

    def query(self, path: str, **claims: str) -> str:
        """The query string that makes ``path`` valid for an hour."""
        fields = {**claims, "expires": str(int(self.now() + _SIGNATURE_LIFETIME))}
        return urlencode({**fields, "signature": self._digest(path, fields)})

    def check(self, path: str, query: Mapping[str, str]) -> dict[str, str]:
        """The claims of a signed query.

        Raises:
            HttpError: 403 when the signature is wrong or has expired.
        """
        fields = {name: value for name, value in query.items() if name != "signature"}
        if not hmac.compare_digest(self._digest(path, fields).encode(), query.get("signature", "").encode()):
            raise forbidden("Invalid signature")
        if not fields.get("expires", "").isdigit() or int(fields["expires"]) < self.now():
            raise forbidden("Request has expired")
        return fields

    def _digest(self, path: str, fields: Mapping[str, str]) -> str:
        message = path + "?" + urlencode(sorted(fields.items()))
        return hmac.new(self.secret, message.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class HubState:
    """What all handlers share. LFS files above ``multipart_above`` bytes are uploaded in parts of ``part_size``."""

    store: RepoStore
    stats: Stats
    signer: Signer
    now: Callable[[], float]
    multipart_above: int
    part_size: int


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request. ``body`` is empty where the handler reads the stream itself."""

    hub: HubState
    request: Request
    params: Mapping[str, str]
    user: User | None
    body: bytes = b""

    @property
    def base_url(self) -> str:
        """Scheme and host as the client wrote them; the server has checked that they are loopback."""
        return f"{self.request.url.scheme}://{self.request.headers.get('host', '127.0.0.1')}"

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def repo(self) -> RepoId:
        """The repo that the path names; it may not exist."""
        return repo_id(self.params.get("kind", "models"), self.params["owner"], self.params["name"])

    def repo_url(self, repo: RepoId) -> str:
        return f"{self.base_url}/{repo.web_path}"

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        Raises:
            HttpError: 400 when it is anything else.
        """
        try:
            document = json.loads(self.body or b"{}")
        except ValueError as error:
            raise bad_request(f"The request body is not valid JSON: {error}") from error
        if not isinstance(document, dict):
            raise bad_request("The request body is not a JSON object")
        return document

    def require_user(self) -> User:
        """The user.

        Raises:
            HttpError: 401 without a token.
        """
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        return self.user

    def require_write_token(self) -> User:
        """The user, whose token may write.

        Raises:
            HttpError: 401 without a token, 403 with a read token.
        """
        user = self.require_user()
        if user.role != "write":
            raise forbidden("Forbidden: you must use a write token to upload to or change a repository.")
        return user

    def owns(self, repo: RepoId) -> bool:
        return self.user is not None and self.hub.store.owner_of(repo.owner) == self.user.name

    def require_readable(self, repo: RepoId) -> RepoSettings:
        """The settings of a repo that the user may see.

        Raises:
            HttpError: 404 RepoNotFound when it does not exist, or is private and belongs to another user.
        """
        settings = self.hub.store.settings(repo)
        if settings.private and not self.owns(repo):
            raise repo_not_found()
        return settings

    def require_writable(self, repo: RepoId) -> User:
        """The user, who may write to the repo.

        Raises:
            HttpError: 401, 403, or 404 RepoNotFound.
        """
        user = self.require_write_token()
        self.require_readable(repo)
        if not self.owns(repo):
            owner = self.hub.store.owner_of(repo.owner)
            raise forbidden(
                f"Forbidden: You are not allowed to write to {repo.full_name}: "
                f"the namespace {repo.owner} belongs to {owner}."
            )
        return user

    def require_downloadable(self, repo: RepoId) -> None:
        """Check that the user may have the repo's files; those of a gated repo are for its owner only.

        Raises:
            HttpError: 401 or 403 GatedRepo, or 404 RepoNotFound.
        """
        if self.require_readable(repo).gated and not self.owns(repo):
            message = f"Access to {KINDS[repo.kind]} {repo.full_name} is restricted"
            if self.user is None:
                raise HttpError(401, f"{message}. You must have access to it and be authenticated.", "GatedRepo")
            raise HttpError(403, f"{message} and you are not in the authorized list.", "GatedRepo")

    def open_git(self) -> GitRepo:
        """The git repository that the path names, to be read.

        Raises:
            HttpError: 404 RepoNotFound.
        """
        self.require_readable(self.repo)
        return self.hub.store.git(self.repo)


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response; values that JSON lacks, such as dates from YAML, become text."""
    content = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    return Response(content, status, dict(headers or {}), "application/json")


def page_headers(
    context: RequestContext, items: Sequence[object], size: int, start: int, next_query: Mapping[str, str]
) -> dict[str, str]:
    """The headers of one page of ``items``: X-Total-Count, and Link where there is a next page."""
    headers = {"X-Total-Count": str(len(items))}
    if start + size < len(items):
        query = {**context.query, **next_query}
        raw_path = context.request.scope["raw_path"].decode("latin-1")
        pairs = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query.items())
        headers["Link"] = f'<{context.base_url}{raw_path}?{pairs}>; rel="next"'
    return headers


def parse_count(text: str | None, default: int, most: int) -> int:
    """A count in a query, at most ``most``.

    Raises:
        HttpError: 400 when it is not a whole number.
    """
    if text is None:
        return default
    if not text.isdigit() or not text.isascii():
        raise bad_request(f"Expected a number, got {text!r}")
    return min(int(text), most)


def timestamp(seconds: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
