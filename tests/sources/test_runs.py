"""Locations, and the runs that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from publish.errors import SourceError
from publish.sources.files import LocalFiles, fingerprint
from publish.sources.runs import Location, open_run, parse_location


def test_an_existing_folder_is_preferred_to_a_repo(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse_location("owner/name", tmp_path) == Location(folder=tmp_path / "owner" / "name")
    assert parse_location("hf://owner/name", tmp_path) == Location(repo="owner/name")
    assert parse_location("owner/other@step0", tmp_path) == Location(repo="owner/other", revision="step0")
    assert str(Location(repo="owner/other", revision="step0")) == "owner/other@step0"


@pytest.mark.parametrize(
    ("text", "message"),
    [("nothing", "no folder of this name"), ("a/b/c", "no folder of this name"), ("file", "expected a folder")],
)
def test_what_names_nothing_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=message):
        parse_location(text, tmp_path)


def test_a_run_has_its_steps_in_order(tmp_path: Path) -> None:
    for name in ("global_step10", "step2", "global_step0", "step01", "tokenizer"):
        (tmp_path / name).mkdir()
    (tmp_path / "step10" / "configs").mkdir(parents=True)
    (tmp_path / "global_step10").rmdir()
    run = open_run(Location(tmp_path))
    assert [(step, ref.name, ref.commit) for step, ref in run.steps.items()] == [
        (0, "global_step0", None),
        (2, "step2", None),
        (10, "step10", None),
    ]
    assert run.names == ("global_step0", "step01", "step10", "step2")
    assert run.open(run.steps[10]).where == str(tmp_path / "step10")


def test_a_folder_without_steps_and_a_revision_are_not_runs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder named global_stepN or stepN"):
        open_run(Location(tmp_path))
    with pytest.raises(SourceError, match="not a revision"):
        open_run(Location(repo="owner/name", revision="step0"))


def test_a_fingerprint_covers_the_index_and_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "mp_rank_00_model_states.pt"
    path.write_bytes(bytes(400_000))
    before = fingerprint(LocalFiles(tmp_path))
    path.write_bytes(b"\1" + bytes(399_999))
    assert fingerprint(LocalFiles(tmp_path)) == before
    path.write_bytes(bytes(399_999) + b"\1")
    assert fingerprint(LocalFiles(tmp_path)) != before


def test_a_local_file_is_read_by_position(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "run.yml").write_bytes(b"seed: 1234")
    files = LocalFiles(tmp_path)
    assert files.sizes == {"configs/run.yml": 10}
    file = files.open("configs/run.yml")
    assert (bytes(file.read(6, 4)), files.bytes_read) == (b"1234", 4)
    for offset, length in ((-1, 1), (0, -1), (7, 4)):
        with pytest.raises(SourceError, match="from a file of 10 bytes"):
            file.read(offset, length)
    with pytest.raises(SourceError, match="no such file"):
        files.open("run.yml")
    (tmp_path / "configs" / "run.yml").write_bytes(b"seed")
    with pytest.raises(SourceError, match="ended at byte 4"):
        file.read(0, 10)
    files.close()
