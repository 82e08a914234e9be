"""A bare git repository: refs, trees, history and commits; and the patterns that decide which files go to LFS.

Objects are written first and the ref is moved last, by rename: a process that is killed leaves either the old tip or
the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pygit2

from publish.rehearsal.errors import HttpError, entry_not_found, revision_not_found
from publish.rehearsal.names import COMMIT
from publish.rehearsal.storage.lfs import Pointer, parse_pointer

LARGEST_REGULAR = 10_000_000  # bytes; a larger file goes to LFS whatever its name
_LFS = " filter=lfs diff=lfs merge=lfs -text\n"
_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
DEFAULT_GITATTRIBUTES = "".join(pattern + _LFS for pattern in _PATTERNS.split())
_REF_PREFIXES = ("refs/heads/", "refs/tags/", "refs/pr/", "refs/convert/")
_SHORTEST_COMMIT = 7
_LARGEST_POINTER = 1024
_FILE_MODE = 0o100644


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of a tree. ``size`` is that of the content, for LFS files too."""

    path: str
    is_folder: bool
    oid: str
    size: int
    pointer: Pointer | None


@dataclass(frozen=True, slots=True)
class CommitInfo:
    id: str
    message: str
    author: str
    time: int

    @property
    def title(self) -> str:
        return self.message.split("\n", 1)[0]

    @property
    def body(self) -> str:
        return self.message.partition("\n")[2].strip()


@dataclass(frozen=True, slots=True)
class PutFile:
    """A change of a tree: write a file. ``blob`` is the id of a blob that the repository has."""

    path: str
    blob: str


@dataclass(frozen=True, slots=True)
class DeletePath:
    """A change of a tree: delete a file, or a folder with everything in it."""

    path: str


class GitRepo:
    """The bare repository at ``path``. For one thread and one request; the store has the locks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._git = pygit2.Repository(str(path))

    # refs

    def refs(self, prefix: str) -> dict[str, str]:
        """Short name -> commit id of every ref under ``prefix``; an annotated tag counts as its commit."""
        found = {}
        for name in self._git.references:
            if name.startswith(prefix):
                found[name.removeprefix(prefix)] = str(self._git.references[name].peel(pygit2.Commit).id)
        return found

    def tip(self, ref: str) -> str | None:
        """The commit of a full ref name; None when there is no such ref."""
        if not pygit2.reference_is_valid_name(ref):
            return None
        reference = self._git.references.get(ref)
        return None if reference is None else str(reference.peel(pygit2.Commit).id)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag, full ref or commit id (at least 7 digits), looked up in that order.

        Raises:
            HttpError: 404 RevisionNotFound.
        """
        if revision.startswith(_REF_PREFIXES) and (found := self.tip(revision)):
            return found
        for prefix in ("refs/heads/", "refs/tags/"):
            if found := self.tip(prefix + revision):
                return found
        if _SHORTEST_COMMIT <= len(revision) <= 40 and COMMIT.fullmatch(revision.ljust(40, "0")):
            try:
                found_object = self._git.get(revision)
            except ValueError:  # the prefix is ambiguous
                found_object = None
            if isinstance(found_object, pygit2.Commit):
                return str(found_object.id)
        raise revision_not_found(revision)

    def set_ref(self, ref: str, commit: str) -> None:
        """Create ``ref`` at ``commit``, or move it there.

        Raises:
            HttpError: 409 when git cannot have a ref of this name beside the others.
        """
        try:
            self._git.references.create(ref, pygit2.Oid(hex=commit), force=True)
        except (pygit2.GitError, ValueError, OSError) as error:  # "a" and "a/b" cannot both be refs
            raise HttpError(409, f"Reference {ref} cannot be created: {error}") from error

    def delete_ref(self, ref: str) -> None:
        self._git.references.delete(ref)

    def set_tag(self, name: str, commit: str, message: str | None, author: str, time: int) -> None:
        """Create a tag: lightweight, or annotated when there is a message."""
        if message is None:
            self.set_ref(f"refs/tags/{name}", commit)
            return
        kind = pygit2.enums.ObjectType.COMMIT
        self._git.create_tag(name, pygit2.Oid(hex=commit), kind, _signature(author, time), message)

    # history

    def commit_info(self, commit: str) -> CommitInfo:
        found = self._git[commit]
        return CommitInfo(str(found.id), found.message.rstrip("\n"), found.author.name, found.commit_time)

    def history(self, commit: str) -> Iterator[CommitInfo]:
        """The commit and its ancestors, newest first. There are no merges here."""
        at: str | None = commit
        while at is not None:
            yield self.commit_info(at)
            parents = self._git[at].parent_ids
            at = str(parents[0]) if parents else None

    def last_changes(self, commit: str, paths: Sequence[str]) -> dict[str, CommitInfo]:
        """For each path the newest commit, up to ``commit``, that changed it."""
        left = {path: self._oid_at(commit, path) for path in paths}
        found: dict[str, CommitInfo] = {}
        previous: CommitInfo | None = None
        for info in self.history(commit):
            for path in [path for path, oid in left.items() if self._oid_at(info.id, path) != oid]:
                if previous is not None:
                    found[path] = previous
                del left[path]
            if not left:
                return found
            previous = info
        if previous is not None:
            found.update(dict.fromkeys(left, previous))
        return found

    def _oid_at(self, commit: str, path: str) -> str | None:
        try:
            return str(self._git[commit].tree[path].id)
        except KeyError:
            return None

    # trees

    def entry(self, commit: str, path: str) -> Entry | None:
        """The file or folder at ``path``; None when there is none."""
        try:
            return self._entry(path, self._git[commit].tree[path])
        except KeyError:
            return None

    def listing(self, commit: str, folder: str, *, recursive: bool) -> list[Entry]:
        """The entries of a folder, in git's order; ``folder`` is empty for the root.

        Raises:
            HttpError: 404 EntryNotFound when it does not exist or is a file.
        """
        tree = self._git[commit].tree
        if folder:
            found = self.entry(commit, folder)
            if found is None or not found.is_folder:
                raise entry_not_found(f"{folder} does not exist on this revision", commit)
            tree = self._git[found.oid]
        return list(self._walk(tree, f"{folder}/" if folder else "", recursive))

    def _walk(self, tree: pygit2.Tree, prefix: str, recursive: bool) -> Iterator[Entry]:
        for child in tree:
            path = prefix + child.name
            yield self._entry(path, child)
            if recursive and isinstance(child, pygit2.Tree):
                yield from self._walk(child, path + "/", recursive)

    def _entry(self, path: str, node: pygit2.Object) -> Entry:
        oid = str(node.id)
        if isinstance(node, pygit2.Tree):
            return Entry(path, True, oid, 0, None)
        size, pointer = _blob_facts(str(self.path), oid)
        return Entry(path, False, oid, pointer.size if pointer else size, pointer)

    def blob(self, oid: str) -> bytes:
        data: bytes = self._git[oid].data
        return data

    def text(self, commit: str, path: str) -> str | None:
        """The text of a file that git itself keeps; None when it is absent, a folder, or in LFS."""
        entry = self.entry(commit, path)
        if entry is None or entry.is_folder or entry.pointer:
            return None
        return self.blob(entry.oid).decode("utf-8", errors="replace")

    # writing

    def add_blob(self, content: bytes) -> str:
        """Store a blob, to which nothing refers yet; its id."""
        return str(self._git.create_blob(content))

    def add_commit(
        self, parent: str | None, changes: Sequence[PutFile | DeletePath], message: str, author: str, time: int
    ) -> str:
        """Store a commit on ``parent``, without moving a ref; its id.

        Raises:
            HttpError: 404 EntryNotFound when a path to delete does not exist.
        """
        index = pygit2.Index()
        if parent is not None:
            index.read_tree(self._git[parent].tree)
        _apply_changes(index, changes)
        tree = index.write_tree(self._git)
        return self._store(tree, message, author, time, [parent] if parent else [])

    def squash(self, commit: str, message: str, author: str, time: int) -> str:
        """Store a commit without parents that has the tree of ``commit``; its id."""
        return self._store(self._git[commit].tree.id, message, author, time, [])

    def _store(self, tree: pygit2.Oid, message: str, author: str, time: int, parents: list[str]) -> str:
        signature = _signature(author, time)
        above = [pygit2.Oid(hex=parent) for parent in parents]
        return str(self._git.create_commit(None, signature, signature, message, tree, above))


def create(path: Path) -> GitRepo:
    """Create an empty bare repository whose HEAD is ``main``."""
    pygit2.init_repository(str(path), bare=True, initial_head="main")
    return GitRepo(path)


def _signature(author: str, time: int) -> pygit2.Signature:
    return pygit2.Signature(author, f"{author}@users.noreply.localhost", time, 0)


@lru_cache(maxsize=1 << 16)
def _blob_facts(repository: str, oid: str) -> tuple[int, Pointer | None]:
    """Size and LFS pointer of a blob. They can be cached, since a blob never changes."""
    blob = pygit2.Repository(repository)[oid]
    size = int(blob.size)
    return size, parse_pointer(blob.data) if size <= _LARGEST_POINTER else None


def _apply_changes(index: pygit2.Index, changes: Sequence[PutFile | DeletePath]) -> None:
    """Make the changes in ``index``, one after the other."""
    folders = {folder for entry in index for folder in _folders_above(entry.path)}
    for change in changes:
        if isinstance(change, PutFile):
            _make_way(index, change.path, folders)
            index.add(pygit2.IndexEntry(change.path, pygit2.Oid(hex=change.blob), _FILE_MODE))
        else:
            _delete(index, change.path)


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _make_way(index: pygit2.Index, path: str, folders: set[str]) -> None:
    """Remove a folder that has the path of the new file, and files that have the path of a folder above it."""
    if path in folders:
        _remove_folder(index, path)
    for folder in _folders_above(path):
        if folder in index:
            index.remove(folder)
        folders.add(folder)


def _delete(index: pygit2.Index, path: str) -> None:
    if path in index:
        index.remove(path)
    elif not _remove_folder(index, path):
        raise entry_not_found(f"A file with this name doesn't exist: {path}")


def _remove_folder(index: pygit2.Index, folder: str) -> int:
    """Remove all files in the folder; their number."""
    inside = [entry.path for entry in index if entry.path.startswith(folder + "/")]
    for path in inside:
        index.remove(path)
    return len(inside)


def goes_to_lfs(path: str, size: int, sample: bytes, attributes: str) -> bool:
    """Whether the Hub puts the file in LFS: by a pattern, by its size, or as binary. An empty file never is."""
    if size == 0:
        return False
    return size > LARGEST_REGULAR or is_lfs_tracked(path, attributes) or _is_binary(sample)


def is_lfs_tracked(path: str, attributes: str) -> bool:
    """Whether ``filter=lfs`` applies to ``path``. The last line that matches decides."""
    verdict = False
    for line in attributes.splitlines():
        pattern, _, rest = line.strip().partition(" ")
        if not pattern or pattern.startswith("#"):
            continue
        filters = [word for word in rest.split() if word.lstrip("-!").split("=")[0] == "filter"]
        if filters and _matches(pattern, path):
            verdict = filters[-1] == "filter=lfs"
    return verdict


def is_ignored(path: str, gitignore: str) -> bool:
    """Whether .gitignore excludes ``path`` or a folder above it."""
    for candidate in (*_folders_above(path), path):
        is_folder = candidate != path
        verdict = False
        for line in gitignore.splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            negated = pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            if pattern.endswith("/") and not is_folder:
                continue
            if _matches(pattern.rstrip("/"), candidate):
                verdict = not negated
        if verdict:
            return True
    return False


def _is_binary(sample: bytes) -> bool:
    """Whether a file's first bytes are not UTF-8. The last character may be cut."""
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3
    return False


def _matches(pattern: str, path: str) -> bool:
    anchored = "/" in pattern
    return bool(_compiled(pattern.removeprefix("/")).fullmatch(path if anchored else path.rsplit("/", 1)[-1]))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    out = []
    for part in re.findall(r"/\*\*/|\*\*/|/\*\*|\*|\?|\[!?[^\]]+\]|[^*?\[]|\[", pattern):
        match part:
            case "/**/":
                out.append("/(?:.*/)?")
            case "**/":
                out.append("(?:.*/)?")
            case "/**":
                out.append("/.*")
            case "*":
                out.append("[^/]*")
            case "?":
                out.append("[^/]")
            case _ if len(part) > 1 and part.startswith("["):
                out.append("[" + part[1:-1].replace("!", "^", 1).replace("\\", r"\\") + "]")
            case _:
                out.append(re.escape(part))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # an invalid character class: git takes the pattern literally
        return re.compile(re.escape(pattern))
