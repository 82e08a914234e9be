"""A converted step as a folder: built beside its final place, renamed when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from publish.convert.hfconfig import CONFIG_NAME, GENERATION_NAME, canonical_json, generation_config, hf_config
from publish.convert.plan import ConversionPlan
from publish.convert.tokenizer import Tokenizer
from publish.convert.writer import Observer, Written, save, storage_error, write_weights
from publish.errors import StorageError
from publish.neox.checkpoint import RawCheckpoint

SPARE_BYTES = 16 << 20  # headers, tokenizer, configs


@dataclass(frozen=True, slots=True)
class Converted:
    """A folder that ``from_pretrained`` loads, and what is in it."""

    folder: Path
    written: Written


def convert(
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    tokenizer: Tokenizer | None,
    out: Path,
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
    accept: Callable[[Converted], bool] | None = None,
) -> Converted:
    """Execute ``plan`` into the new folder ``out``.

    ``accept`` looks at the finished folder before it gets its name; when it says no, nothing is left.

    Raises:
        StorageError: ``out`` holds something and ``overwrite`` is off, or the disk is full or not writable.
        ConversionError: ranks that must agree differ. TokenizerError: the vocabulary exceeds the embedding.
    """
    if tokenizer is not None:
        tokenizer.check_fits(plan.vocabulary)
    check_free(out, overwrite)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        check_space(out.parent, plan.weight_bytes)
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had this number
        temporary.mkdir(parents=True)
        small = small_files(plan, tokenizer)
        records = tuple(save(temporary, name, content) for name, content in small.items())
        written = write_weights(checkpoint, plan, temporary, observer)
        written = replace(written, files=(*records, *written.files))
        if accept is None or accept(Converted(temporary, written)):
            _put(temporary, out)
        else:
            shutil.rmtree(temporary)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise storage_error(error, out) from error
        raise
    return Converted(out, written)


def small_files(plan: ConversionPlan, tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """Everything but the weights, by name: a pure function."""
    bos, eos = (None, None) if tokenizer is None else (tokenizer.bos, tokenizer.eos)
    return {
        CONFIG_NAME: canonical_json(hf_config(plan, bos, eos)),
        GENERATION_NAME: canonical_json(generation_config(bos, eos)),
        **({} if tokenizer is None else tokenizer.hf_files(plan.network.context)),
    }


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something.

    Raises:
        StorageError: it does and ``overwrite`` is off, or it is a file.
    """
    if out.is_file() or out.is_symlink():
        raise StorageError("the output is a file or a link", out, "name a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise StorageError("the output folder is not empty", out, "name another, or pass --overwrite")


def check_space(parent: Path, needed: int) -> None:
    """Refuse a disk that cannot hold ``needed`` bytes.

    Raises:
        StorageError: with both numbers.
    """
    existing = next(folder for folder in (parent.absolute(), *parent.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed + SPARE_BYTES:
        raise StorageError(
            f"{needed + SPARE_BYTES:,} bytes are needed and {free:,} are free", existing, "free some space"
        )


def _put(temporary: Path, out: Path) -> None:
    """Rename into place; an older folder goes only once the new one stands."""
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.is_dir():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        if old.is_dir():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
