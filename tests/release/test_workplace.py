"""A work folder may be shared by machines: what a living process has there is never swept."""

from __future__ import annotations

from pathlib import Path

from publish.release.work_dir import open_work_dir


def test_only_what_no_process_holds_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "steps-of-a-machine-that-died"
    left.mkdir()
    (left / "weights").write_bytes(b"1")
    with open_work_dir(tmp_path) as one:
        assert not left.exists()
        (one.steps / "weights").write_bytes(b"2")
        with open_work_dir(tmp_path) as two:
            assert (one.steps / "weights").exists()
        assert not two.steps.exists()
    assert list(tmp_path.glob("steps-*")) == []
