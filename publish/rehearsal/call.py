"""One request as handlers see it: parameters, user, the repo it is about and the right to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from publish.rehearsal.gitrepo import GitRepo
from publish.rehearsal.identity import User
from publish.rehearsal.names import KINDS, RepoId, repo_id
from publish.rehearsal.refusals import Refusal, bad_request, forbidden, repo_not_found, unauthorized
from publish.rehearsal.signing import Signer
from publish.rehearsal.stats import Stats
from publish.rehearsal.store import Settings, Store


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
