"""Atomic writes, and files with a checksum."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from publish.atomic import read_checksummed, write_atomic, write_checksummed


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for content in (b"first, and longer", b"second"):
        write_atomic(path, content, durable=durable)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_atomic(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_checksummed_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    assert read_checksummed(path) is None
    for content in (b"", b"content" * 1000):
        write_checksummed(path, content)
        assert read_checksummed(path) == content


DAMAGE: dict[str, Callable[[Path], object]] = {
    "torn": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "other bytes": lambda path: path.write_bytes(b"\xff" * 1000),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    write_checksummed(path, b"content")
    damage(path)
    assert read_checksummed(path) is None
