"""A converted step as a folder that ``from_pretrained`` loads, written beside its place and renamed when complete."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from publish.convert.hfconfig import CONFIG_NAME, GENERATION_NAME, canonical_json, generation_config, hf_config
from publish.convert.plan import ConversionPlan
from publish.convert.tokenizer import Tokenizer
from publish.convert.writer import Observer, Written, save, write_weights
from publish.errors import StorageError
from publish.neox.checkpoint import RawCheckpoint

SMALL_BYTES = 16 << 20  # at most, for headers, tokenizer and configs


def write_folder(
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    tokenizer: Tokenizer | None,
    folder: Path,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> Written:
    """Execute ``plan`` into ``folder``, which is created where it does not exist.

    After an error the folder may hold incomplete files: remove it.

    Raises:
        StorageError: the disk is full or not writable. ConversionError: ranks that must hold equal tensors differ.
        TokenizerError: the vocabulary exceeds the embedding. Interrupted: ``stop`` was set.
    """
    if tokenizer is not None:
        tokenizer.check_fits(plan.vocabulary)
    parents = (folder.parent.absolute(), *folder.parent.absolute().parents)
    existing = next(parent for parent in parents if parent.is_dir())
    needed, free = plan.weight_bytes + SMALL_BYTES, shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(f"{needed:,} bytes are needed and {free:,} are free", existing, "free some space")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        small = tuple(save(folder, name, content) for name, content in small_files(plan, tokenizer).items())
        written = write_weights(checkpoint, plan, folder, observer, stop)
    except OSError as error:
        raise _storage_error(error, folder) from error
    return replace(written, files=(*small, *written.files))


@dataclass(slots=True)
class StagedFolder:
    """Write into ``path``, which does not exist yet, then :meth:`keep` it as ``out``."""

    path: Path
    out: Path

    def keep(self) -> None:
        """Rename the folder to ``out``; a folder with that name is removed after the new one is in place.

        Raises:
            StorageError: it cannot be renamed; the earlier folder is still there.
        """
        old = self.out.with_name(f".{self.out.name}.old-{os.getpid()}")
        try:
            if self.out.is_dir():
                self.out.rename(old)
            try:
                self.path.rename(self.out)
            except OSError:
                if old.is_dir():
                    old.rename(self.out)
                raise
        except OSError as error:
            raise _storage_error(error, self.out) from error
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def staged_folder(out: Path, overwrite: bool) -> Iterator[StagedFolder]:
    """A new folder beside ``out``, which is removed at the end unless :meth:`StagedFolder.keep` was called.

    Raises:
        StorageError: ``out`` is a file or a link, or it is not empty and ``overwrite`` is off.
    """
    if out.is_file() or out.is_symlink():
        raise StorageError("the output folder is a file or a link", out, "name a folder that does not exist")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise StorageError("the output folder is not empty", out, "name another folder, or pass --overwrite")
    path = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    shutil.rmtree(path, ignore_errors=True)  # left by a killed process with this id
    try:
        yield StagedFolder(path, out)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def small_files(plan: ConversionPlan, tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """The files other than weights, by name."""
    bos, eos = (None, None) if tokenizer is None else (tokenizer.bos, tokenizer.eos)
    return {
        CONFIG_NAME: canonical_json(hf_config(plan, bos, eos)),
        GENERATION_NAME: canonical_json(generation_config(bos, eos)),
        **({} if tokenizer is None else tokenizer.hf_files(plan.network.context)),
    }


def _storage_error(error: OSError, folder: Path) -> StorageError:
    """The error for ``folder``, which could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some space, or choose another folder" if full else "check the folder and its permissions"
    return StorageError(f"cannot write: {error.strerror or error}", error.filename or folder, fix)
