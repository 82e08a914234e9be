from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.errors import StorageError
from publish.release.ledger import NAME, Ledger, LedgerEntry


def entry(step: int) -> LedgerEntry:
    return LedgerEntry("a/b", f"step{step}", f"{step:040x}", "p" * 64)


def test_remembers_across_processes(tmp_path: Path) -> None:
    Ledger(tmp_path).add(entry(1))
    assert Ledger(tmp_path).find("a/b", "step1", f"{1:040x}") == entry(1)
    assert Ledger(tmp_path).find("a/b", "step1", "0" * 40) is None


@given(st.integers(1, 400))
def test_a_torn_last_line_costs_only_itself(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = Ledger(folder)
        ledger.add(entry(1))
        ledger.add(entry(2))
        file = folder / NAME
        content = file.read_bytes()
        one = len(content) // 2
        file.write_bytes(content[: max(one, len(content) - cut)])
        Ledger(folder).add(entry(3))
        again = Ledger(folder)
        assert again.find("a/b", "step1", entry(1).commit) == entry(1)
        assert again.find("a/b", "step3", entry(3).commit) == entry(3)


def test_the_same_entry_is_written_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(entry(1))
    ledger.add(entry(1))
    assert (tmp_path / NAME).read_text().count("\n") == 1


def test_many_threads(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine, i=i: mine.add(entry(i))) for i, mine in enumerate(ledgers * 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Ledger(tmp_path)
    assert all(again.find("a/b", f"step{i}", entry(i).commit) for i in range(16))


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Ledger(tmp_path / "file" / "x").add(entry(1))
