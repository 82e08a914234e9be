"""The repos of the Hub on disk: creation, lookup, moves, deletion and locks; and the owners of namespaces.

``repos/KIND/OWNER/NAME.git`` is a bare git repository that also has ``lfs/`` and ``rehearsal.json``. A repo is built in
``tmp/`` and renamed into its place, and deleted the other way round, so that no incomplete repo is ever visible.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from publish.atomic import write_atomic
from publish.rehearsal.errors import HttpError, RehearsalError, forbidden, repo_not_found
from publish.rehearsal.names import KINDS, RepoId, repo_id
from publish.rehearsal.storage.git import DEFAULT_GITATTRIBUTES, GitRepo, PutFile, create
from publish.rehearsal.storage.lfs import LfsStore

_SETTINGS = "rehearsal.json"


@dataclass(frozen=True, slots=True)
class RepoSettings:
    """The settings of a repo. ``gated`` is empty, ``auto`` or ``manual``; ``created_at`` is in seconds since 1970."""

    private: bool = False
    gated: str = ""
    created_at: float = 0.0


class RepoStore:
    """The repos under ``root``. ``now`` is the clock, injected."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self.root = root
        self.now = now
        self._locks: dict[tuple[RepoId, str], threading.RLock] = {}
        self._guard = threading.Lock()
        self._lock_file: Any = None

    def open(self) -> None:
        """Lock the folder for this process, and remove what a killed server left behind.

        Raises:
            RehearsalError: another server has the folder, or it cannot be written.
        """
        try:
            for name in ("repos", "namespaces", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.root / "lock").open("a")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            fix = "stop it, or choose another folder"
            raise RehearsalError("another rehearsal Hub serves this folder", self.root, fix) from error
        except OSError as error:
            fix = "choose a folder that can be written"
            raise RehearsalError(f"cannot use the folder: {error.strerror}", self.root, fix) from error
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir(exist_ok=True)
        for repository in self.root.glob("repos/*/*/*.git"):
            for lock in (*repository.glob("*.lock"), *repository.glob("refs/**/*.lock")):
                lock.unlink()
            LfsStore(repository).sweep()

    def close(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def secret(self) -> bytes:
        """The secret that signs URLs. It is stored, so that they stay valid after a restart."""
        path = self.root / "secret"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(32))
        return path.read_bytes()

    # namespaces

    def owner_of(self, namespace: str) -> str | None:
        path = self.root / "namespaces" / namespace
        return path.read_text() if path.is_file() else None

    def claim_namespace(self, namespace: str, user: str) -> str:
        """Make ``user`` the owner of a namespace that has none; its owner."""
        path = self.root / "namespaces" / namespace
        temporary = self.root / "tmp" / uuid.uuid4().hex
        temporary.write_text(user)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return path.read_text()
        finally:
            temporary.unlink()
        return user

    def namespaces_of(self, user: str) -> list[str]:
        owned = sorted(path.name for path in (self.root / "namespaces").iterdir() if path.read_text() == user)
        return [name for name in owned if name != user]

    # repos

    def directory(self, repo: RepoId) -> Path:
        return self.root / "repos" / repo.kind / repo.owner / f"{repo.name}.git"

    def exists(self, repo: RepoId) -> bool:
        return (self.directory(repo) / _SETTINGS).is_file()

    def git(self, repo: RepoId) -> GitRepo:
        """The git repository, for one thread and one request.

        Raises:
            HttpError: 404 RepoNotFound.
        """
        if not self.exists(repo):
            raise repo_not_found()
        return GitRepo(self.directory(repo))

    def lfs(self, repo: RepoId) -> LfsStore:
        return LfsStore(self.directory(repo))

    def lock(self, repo: RepoId, part: str = "refs") -> threading.RLock:
        """The lock of one part of a repo: its ``refs`` and settings, or its ``xet`` uploads."""
        with self._guard:
            return self._locks.setdefault((repo, part), threading.RLock())

    def create(self, repo: RepoId, author: str, *, private: bool) -> bool:
        """Create the repo with its first commit, `initial commit`, which has only .gitattributes.

        Returns False when the repo exists already.

        Raises:
            HttpError: 403 when the namespace belongs to another user.
        """
        if self.claim_namespace(repo.owner, author) != author:
            raise forbidden(
                f"You don't have the rights to create a {KINDS[repo.kind]} under the namespace {repo.owner}"
            )
        with self.lock(repo):
            if self.exists(repo):
                return False
            temporary = self.root / "tmp" / uuid.uuid4().hex
            git = create(temporary)
            now = self.now()
            put = PutFile(".gitattributes", git.add_blob(DEFAULT_GITATTRIBUTES.encode()))
            git.set_ref("refs/heads/main", git.add_commit(None, [put], "initial commit", author, int(now)))
            _write_settings(temporary, RepoSettings(private=private, created_at=now))
            target = self.directory(repo)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        return True

    def delete(self, repo: RepoId) -> None:
        with self.lock(repo):
            trash = self.root / "tmp" / uuid.uuid4().hex
            self.directory(repo).replace(trash)
        shutil.rmtree(trash)

    def move(self, source: RepoId, target: RepoId, author: str) -> None:
        """Rename a repo.

        Raises:
            HttpError: 403 when the target's namespace belongs to another user, 409 when the target exists.
        """
        if self.claim_namespace(target.owner, author) != author:
            raise forbidden(f"You don't have the rights to move a {KINDS[target.kind]} to the namespace {target.owner}")
        first, second = sorted({source, target}, key=str)[:2] if source != target else (source, source)
        with self.lock(first), self.lock(second):
            if self.exists(target):
                raise HttpError(409, f"A {KINDS[target.kind]} repository called {target.full_name} already exists")
            self.directory(target).parent.mkdir(parents=True, exist_ok=True)
            self.directory(source).replace(self.directory(target))

    def settings(self, repo: RepoId) -> RepoSettings:
        """The settings of the repo.

        Raises:
            HttpError: 404 RepoNotFound.
        """
        try:
            return RepoSettings(**json.loads((self.directory(repo) / _SETTINGS).read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise repo_not_found() from error

    def change_settings(self, repo: RepoId, **changes: Any) -> None:
        with self.lock(repo):
            _write_settings(self.directory(repo), replace(self.settings(repo), **changes))

    def list_repos(self, kind: str) -> list[RepoId]:
        found = (path.parent for path in self.root.glob(f"repos/{kind}/*/*.git/{_SETTINGS}"))
        return sorted((repo_id(kind, path.parent.name, path.name.removesuffix(".git")) for path in found), key=str)


def _write_settings(directory: Path, settings: RepoSettings) -> None:
    write_atomic(directory / _SETTINGS, json.dumps(asdict(settings)).encode() + b"\n")
