"""What went over the wire, counted: requests by route, bytes by direction, repo and route, commits by branch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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
