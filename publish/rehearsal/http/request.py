"""One request as handlers see it: parameters, user, the repo it is about and the right to it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from publish.rehearsal.errors import Refusal, bad_request, forbidden, repo_not_found, unauthorized
from publish.rehearsal.names import KINDS, RESERVED, RepoId, repo_id
from publish.rehearsal.storage.git import GitRepo
from publish.rehearsal.storage.store import Settings, Store

# Who asks. Any token is a user of its own, so that two people can be played with two tokens.


_NICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class User:
    """``role`` is write, or read for tokens that begin with ``hf_read``. ``key`` stands for the token in counters."""

    name: str
    role: str
    key: str


def user_of(authorization: str | None) -> User | None:
    """The user of an ``Authorization`` header (Bearer, or Basic with the token as password); None without one.

    ``hf_alice`` is alice, ``hf_read_alice`` is alice with a token that may only read. A token too long to be a
    name somebody chose gives ``user-`` and a digest: a real token must not end up on a page or in a commit.
    """
    token = _token(authorization)
    if not token:
        return None
    role = "read" if token.startswith("hf_read") else "write"
    digest = hashlib.sha256(token.encode()).hexdigest()
    rest = token.removeprefix("hf_")
    rest = rest.removeprefix("read_")
    nice = _NICE.fullmatch(rest) and "--" not in rest and rest.lower() not in RESERVED
    return User(rest if nice else f"user-{digest[:10]}", role, digest)


def _token(authorization: str | None) -> str | None:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


# Request quotas as the Hub announces them: a fixed window a token, told on every response, enforced on demand.


WINDOW = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a window and token. ``enforced``: whether going over is answered 429, or only told."""

    api: int = 1000
    resolvers: int = 5000
    enforced: bool = False

    def of(self, group: str) -> int:
        return self.resolvers if group == "resolvers" else self.api


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a token stands in its window."""

    group: str
    limit: int
    remaining: int
    seconds_left: int
    exceeded: bool

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit": f'"{self.group}";r={self.remaining};t={self.seconds_left}',
            "RateLimit-Policy": f'"fixed window";"{self.group}";q={self.limit};w={WINDOW}',
        }


class Quota:
    """Counts requests. ``now`` is the clock, injected. Safe to share between threads."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def count(self, key: str, group: str, requests: int = 1) -> Standing:
        """Count requests of the token ``key``. A window begins with its first request."""
        limit = self.limits.of(group)
        with self._lock:
            now = self._now()
            started, used = self._windows.get((key, group), (now, 0))
            if now >= started + WINDOW or now < started:
                started, used = now, 0
            used += requests
            self._windows[key, group] = (started, used)
        left = max(1, math.ceil(started + WINDOW - now))
        return Standing(group, limit, max(0, limit - used), left, self.limits.enforced and used > limit)


# Locations that speak for themselves: a path, an expiry and claims, signed with the Hub's own secret.


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


# What went over the wire, counted: requests by route, bytes by direction, repo and route, commits by branch.


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment. Bytes are bodies, headers not counted; a download cut short counts what was sent.

    ``bytes_out_by_repo`` counts file contents only (routes ``resolve`` and ``cdn``). Repos of other kinds than
    models are called ``datasets/owner/name`` and so on.
    """

    requests: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    bytes_in_by_route: Mapping[str, int]
    bytes_out_by_route: Mapping[str, int]
    bytes_out_by_repo: Mapping[str, int]
    commits: Mapping[str, Mapping[str, int]]

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


class Stats:
    """The counters behind a :class:`Snapshot`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """All counts back to zero."""
        with self._lock:
            self._requests: Counter[str] = Counter()
            self._in: Counter[str] = Counter()
            self._out: Counter[str] = Counter()
            self._out_by_repo: Counter[str] = Counter()
            self._commits: dict[str, Counter[str]] = {}

    def request(self, route: str) -> None:
        with self._lock:
            self._requests[route] += 1

    def received(self, route: str, count: int) -> None:
        with self._lock:
            self._in[route] += count

    def sent(self, route: str, repo: str | None, count: int) -> None:
        with self._lock:
            self._out[route] += count
            if repo is not None:
                self._out_by_repo[repo] += count

    def commit(self, repo: str, branch: str) -> None:
        with self._lock:
            self._commits.setdefault(repo, Counter())[branch] += 1

    def snapshot(self) -> Snapshot:
        with self._lock:
            commits = {repo: dict(counts) for repo, counts in self._commits.items()}
            maps = (dict(self._in), dict(self._out), dict(self._out_by_repo))
            return Snapshot(dict(self._requests), self._in.total(), self._out.total(), *maps, commits)


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes that tests make small. LFS files above ``multipart_above`` bytes go up in parts of ``part_size``."""

    multipart_above: int = 64 << 20
    part_size: int = 16 << 20
    tree_page: int = 1000
    expanded_page: int = 50
    commits_page: int = 50
    largest_line: int = 64 << 20  # of a commit's NDJSON


@dataclass(frozen=True, slots=True)
class Hub:
    """What all handlers share."""

    store: Store
    stats: Stats
    signer: Signer
    now: Callable[[], float]
    options: Options


@dataclass(frozen=True, slots=True)
class Call:
    """A request. ``body`` is empty where the handler streams it."""

    hub: Hub
    request: Request
    params: Mapping[str, str]
    user: User | None
    body: bytes = b""

    @property
    def base(self) -> str:
        """Scheme and host as the client wrote them; the server has checked that they are loopback."""
        return f"{self.request.url.scheme}://{self.request.headers.get('host', '127.0.0.1')}"

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def url(self, repo: RepoId) -> str:
        return f"{self.base}/{repo.web_path}"

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty one.

        Raises:
            Refusal: 400 when it is anything else.
        """
        try:
            document = json.loads(self.body or b"{}")
        except ValueError as error:
            raise bad_request(f"The request body is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise bad_request("The request body is no JSON object")
        return document

    def someone(self) -> User:
        """The user.

        Raises:
            Refusal: 401 without a token.
        """
        if self.user is None:
            raise unauthorized()
        return self.user

    def writer(self) -> User:
        """The user of a token that may write.

        Raises:
            Refusal: 401 without a token, 403 with a read token.
        """
        user = self.someone()
        if user.role != "write":
            raise forbidden("Forbidden: you must use a write token to upload to or change a repository.")
        return user

    @property
    def repo(self) -> RepoId:
        """The repo in the path, which may not exist."""
        return repo_id(self.params.get("kind", "models"), self.params["owner"], self.params["name"])

    def owns(self, repo: RepoId) -> bool:
        return self.user is not None and self.hub.store.owner_of(repo.owner) == self.user.name

    def may_read(self, repo: RepoId) -> Settings:
        """The settings of a repo that the user may see.

        Raises:
            Refusal: 404 RepoNotFound for a repo that does not exist or is somebody else's private one.
        """
        settings = self.hub.store.settings(repo)
        if settings.private and not self.owns(repo):
            raise repo_not_found()
        return settings

    def may_write(self, repo: RepoId) -> User:
        """The user, who may write to the repo.

        Raises:
            Refusal: 401, 403, or 404 RepoNotFound.
        """
        user = self.writer()
        self.may_read(repo)
        if not self.owns(repo):
            what = f"You are not allowed to write to {repo.full_name}: the namespace {repo.owner} belongs to"
            raise forbidden(f"Forbidden: {what} {self.hub.store.owner_of(repo.owner)}.")
        return user

    def readable(self) -> GitRepo:
        """The repository in the path, to be read."""
        self.may_read(self.repo)
        return self.hub.store.git(self.repo)

    def may_download(self, repo: RepoId) -> None:
        """Gated files are for their owner; other users would have to ask for access first.

        Raises:
            Refusal: 401 or 403 GatedRepo.
        """
        if self.may_read(repo).gated and not self.owns(repo):
            what = f"Access to {KINDS[repo.kind]} {repo.full_name} is restricted"
            if self.user is None:
                raise Refusal(401, f"{what}. You must have access to it and be authenticated.", "GatedRepo")
            raise Refusal(403, f"{what} and you are not in the authorized list.", "GatedRepo")


def answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response; dates and the like from YAML become text."""
    content = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    return Response(content, status, dict(headers or {}), "application/json")


def page_of(call: Call, items: list[Any], size: int, start: int, next_query: Mapping[str, str]) -> dict[str, str]:
    """Headers of one page: X-Total-Count, and Link to the next page when there is one."""
    headers = {"X-Total-Count": str(len(items))}
    if start + size < len(items):
        query = {**call.query, **next_query}
        raw_path = call.request.scope["raw_path"].decode("latin-1")
        pairs = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query.items())
        headers["Link"] = f'<{call.base}{raw_path}?{pairs}>; rel="next"'
    return headers


def number(text: str | None, default: int, most: int) -> int:
    """A count from a query, at most ``most``.

    Raises:
        Refusal: 400 when it is no number.
    """
    if text is None:
        return default
    if not text.isdigit() or not text.isascii():
        raise bad_request(f"A number is meant, not {text!r}")
    return min(int(text), most)
