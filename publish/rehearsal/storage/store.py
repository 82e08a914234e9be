"""All repos of the Hub on disk: create, find, move, delete; who owns which namespace; one lock a repo.

A repo is made in ``tmp/`` and renamed into its place, and deleted the other way round, so no half repo is ever
seen. ``repos/KIND/OWNER/NAME.git`` is a bare git repository with ``lfs/`` and ``rehearsal.json`` in it.
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

from publish.rehearsal.errors import Refusal, RehearsalError, forbidden, repo_not_found
from publish.rehearsal.names import KINDS, RepoId, repo_id
from publish.rehearsal.storage.git import DEFAULT, GitRepo, Put, create
from publish.rehearsal.storage.lfs import LfsStore

SETTINGS = "rehearsal.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the Hub knows of a repo besides its git. ``gated`` is empty, ``auto`` or ``manual``."""

    private: bool = False
    gated: str = ""
    created_at: float = 0.0


class Store:
    """The repos under ``root``. ``now`` is the clock, injected."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self.root = root
        self.now = now
        self._locks: dict[tuple[RepoId, str], threading.RLock] = {}
        self._guard = threading.Lock()
        self._claim: Any = None

    def open(self) -> None:
        """Take the folder for this process and clear what a killed server left behind.

        Raises:
            RehearsalError: another server uses it, or it cannot be written.
        """
        try:
            for name in ("repos", "namespaces", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._claim = (self.root / "lock").open("a")
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            what = "another rehearsal Hub serves this folder"
            raise RehearsalError(what, self.root, "stop it, or give --root another folder") from error
        except OSError as error:
            fix = "give --root a folder that can be written"
            raise RehearsalError(f"the folder cannot be used: {error.strerror}", self.root, fix) from error
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir(exist_ok=True)
        for repository in self.root.glob("repos/*/*/*.git"):
            for lock in (*repository.glob("*.lock"), *repository.glob("refs/**/*.lock")):
                lock.unlink()
            LfsStore(repository).sweep()

    def close(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def secret(self) -> bytes:
        """The secret that signs locations; kept, so they outlive a restart."""
        path = self.root / "secret"
        if not path.exists():
            temporary = self.root / "tmp" / uuid.uuid4().hex
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(32))
            temporary.replace(path)
        return path.read_bytes()

    # namespaces

    def owner_of(self, namespace: str) -> str | None:
        path = self.root / "namespaces" / namespace
        return path.read_text() if path.is_file() else None

    def claim_namespace(self, namespace: str, user: str) -> str:
        """The owner of the namespace: ``user`` when it had none."""
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
        return (self.directory(repo) / SETTINGS).is_file()

    def git(self, repo: RepoId) -> GitRepo:
        """The repository, for one thread and one request.

        Raises:
            Refusal: 404 RepoNotFound.
        """
        if not self.exists(repo):
            raise repo_not_found()
        return GitRepo(self.directory(repo))

    def lfs(self, repo: RepoId) -> LfsStore:
        return LfsStore(self.directory(repo))

    def lock(self, repo: RepoId, of: str = "refs") -> threading.RLock:
        """Held while refs of the repo move, or ``of`` something else of it is touched."""
        with self._guard:
            return self._locks.setdefault((repo, of), threading.RLock())

    def create(self, repo: RepoId, author: str, *, private: bool) -> bool:
        """Make the repo with its first commit, `initial commit`, which holds only .gitattributes.

        False when it was there already.

        Raises:
            Refusal: 403 when the namespace is somebody else's.
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
            put = Put(".gitattributes", git.add_blob(DEFAULT.encode()))
            git.set_ref("refs/heads/main", git.add_commit(None, [put], "initial commit", author, int(now)))
            _write_settings(temporary, Settings(private=private, created_at=now))
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
            Refusal: 403 when the target's namespace is somebody else's, 409 when the target exists.
        """
        if self.claim_namespace(target.owner, author) != author:
            raise forbidden(f"You don't have the rights to move a {KINDS[target.kind]} to the namespace {target.owner}")
        first, second = sorted({source, target}, key=str)[:2] if source != target else (source, source)
        with self.lock(first), self.lock(second):
            if self.exists(target):
                raise Refusal(409, f"A {KINDS[target.kind]} repository called {target.full_name} already exists")
            self.directory(target).parent.mkdir(parents=True, exist_ok=True)
            self.directory(source).replace(self.directory(target))

    def settings(self, repo: RepoId) -> Settings:
        """What is known of the repo.

        Raises:
            Refusal: 404 RepoNotFound.
        """
        try:
            return Settings(**json.loads((self.directory(repo) / SETTINGS).read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise repo_not_found() from error

    def change_settings(self, repo: RepoId, **changes: Any) -> None:
        with self.lock(repo):
            _write_settings(self.directory(repo), replace(self.settings(repo), **changes))

    def all_repos(self, kind: str) -> list[RepoId]:
        found = (path.parent for path in self.root.glob(f"repos/{kind}/*/*.git/{SETTINGS}"))
        return sorted((repo_id(kind, path.parent.name, path.name.removesuffix(".git")) for path in found), key=str)


def _write_settings(directory: Path, settings: Settings) -> None:
    temporary = directory / f"{SETTINGS}.{uuid.uuid4().hex}"
    temporary.write_text(json.dumps(asdict(settings)) + "\n")
    temporary.replace(directory / SETTINGS)
