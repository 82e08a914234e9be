"""The error of a rehearsal Hub that cannot start, and the errors that it answers requests with.

The Hub's error responses are JSON ``{"error"}`` with the headers ``X-Error-Message`` and ``X-Error-Code``; over plain
http a client chooses its exception class by ``X-Error-Code`` alone (docs/hub-protocol.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publish.errors import PublishError


class RehearsalError(PublishError):
    """The rehearsal Hub cannot start, because of its libraries, port, folder or faults file."""


class HttpError(Exception):
    """An error response. ``code`` is the value of X-Error-Code; ``extra`` is added to the JSON body."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, message, code)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def bad_request(message: str) -> HttpError:
    return HttpError(400, message)


def forbidden(message: str) -> HttpError:
    return HttpError(403, message)


def repo_not_found() -> HttpError:
    return HttpError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HttpError:
    return HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str, commit: str | None = None) -> HttpError:
    """``commit`` is the revision that was searched; a client caches the absence under it."""
    return HttpError(404, message, "EntryNotFound", {"X-Repo-Commit": commit} if commit else None)
