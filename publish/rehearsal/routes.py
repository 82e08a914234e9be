"""The routes: name, method and pattern, as data. Stats and faults name them as this table does.

Patterns match the raw, still quoted path: a revision ``refs/pr/1`` comes as ``refs%2Fpr%2F1`` and is one part
(facts/hub-protocol.md). Groups are unquoted after the match. Order matters: the first match wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_KINDS = "models|datasets|spaces|kernels"
_REPO = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_API = rf"/api/(?P<kind>{_KINDS})/{_REPO}"
_REV = r"(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)"
_PATH = r"(?P<path>.+)"
_WEB = rf"/(?!(?:api|cdn|_lfs|_rehearsal)/)(?:(?P<kind>datasets|spaces|kernels)/)?{_REPO}"
_OBJECT = rf"(?P<kind>{_KINDS})/{_REPO}/(?P<oid>[0-9a-f]{{64}})"


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    method: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Match:
    """Which route a request takes, with unquoted parameters. ``allowed``: the methods, when only that is wrong."""

    name: str
    params: Mapping[str, str]
    allowed: tuple[str, ...] = ()


def _route(name: str, method: str, pattern: str) -> Route:
    return Route(name, method, re.compile(pattern))


ROUTES = (
    _route("whoami", "GET", "/api/whoami-v2"),
    _route("create-repo", "POST", "/api/repos/create"),
    _route("delete-repo", "DELETE", "/api/repos/delete"),
    _route("move-repo", "POST", "/api/repos/move"),
    _route("validate-yaml", "POST", "/api/validate-yaml"),
    _route("list-repos", "GET", rf"/api/(?P<kind>{_KINDS})"),
    _route("create-branch", "POST", rf"{_API}/branch/(?P<branch>.+)"),
    _route("delete-branch", "DELETE", rf"{_API}/branch/(?P<branch>.+)"),
    _route("create-tag", "POST", rf"{_API}/tag/{_REV}"),
    _route("delete-tag", "DELETE", rf"{_API}/tag/(?P<tag>.+)"),
    _route("refs", "GET", rf"{_API}/refs"),
    _route("commits", "GET", rf"{_API}/commits/{_REV}"),
    _route("tree", "GET", rf"{_API}/tree/{_REV}(?:/{_PATH}?)?"),
    _route("paths-info", "POST", rf"{_API}/paths-info/{_REV}"),
    _route("preupload", "POST", rf"{_API}/preupload/{_REV}"),
    _route("commit", "POST", rf"{_API}/commit/{_REV}"),
    _route("super-squash", "POST", rf"{_API}/super-squash/{_REV}"),
    _route("settings", "PUT", rf"{_API}/settings"),
    _route("lfs-duplicate", "POST", rf"{_API}/lfs-files/duplicate"),
    _route("xet-token", "GET", rf"{_API}/xet-(?P<access>read|write)-token/(?P<rev>.+)"),
    _route("auth-check", "GET", rf"{_API}/auth-check"),
    _route("repo-info", "GET", rf"{_API}(?:/revision/{_REV})?"),
    _route("lfs-batch", "POST", rf"{_WEB}\.git/info/lfs/objects/batch"),
    _route("lfs-upload", "PUT", rf"/_lfs/{_OBJECT}"),
    _route("lfs-part", "PUT", rf"/_lfs/{_OBJECT}/part/(?P<part>[0-9]{{1,5}})"),
    _route("lfs-complete", "POST", rf"/_lfs/{_OBJECT}/complete"),
    _route("lfs-verify", "POST", rf"/_lfs/{_OBJECT}/verify"),
    _route("cdn", "GET", rf"/cdn/{_OBJECT}"),
    _route("stats", "GET", "/_rehearsal/stats"),
    _route("stats-reset", "POST", "/_rehearsal/stats/reset"),
    _route("resolve", "GET", rf"{_WEB}/resolve/{_REV}/{_PATH}"),
    _route("no-owner", "GET", rf"/api/(?:{_KINDS})/[^/]+(?:/(?:revision|commits|tree|refs)(?:/.+)?)?"),
    _route("no-owner-file", "GET", r"/(?!_rehearsal/)[^/]+/resolve/.+"),
    _route("page-home", "GET", "/"),
    _route("page-tree", "GET", rf"{_WEB}/tree/{_REV}(?:/{_PATH}?)?"),
    _route("page-file", "GET", rf"{_WEB}/blob/{_REV}/{_PATH}"),
    _route("page-repo", "GET", _WEB),
)
NAMES = frozenset(route.name for route in ROUTES)
UNKNOWN = "unknown"
RESOLVERS = frozenset({"resolve"})  # the Hub counts these apart from the API
UNCOUNTED = frozenset({"stats", "stats-reset", "cdn", "lfs-upload", "lfs-part"})  # not the Hub's API: its storage


def match(method: str, raw_path: str) -> Match:
    """The route of a request; HEAD is GET. ``unknown`` when there is none."""
    wanted = "GET" if method == "HEAD" else method
    allowed = []
    for route in ROUTES:
        if (found := route.pattern.fullmatch(raw_path)) is None:
            continue
        if route.method == wanted:
            groups = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
            return Match(route.name, groups)
        allowed.append(route.method)
    return Match(UNKNOWN, {}, tuple(allowed))
