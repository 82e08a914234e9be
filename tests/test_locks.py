from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from publish.locks import locked, try_locked

HOLD = "import sys; from pathlib import Path; from publish.locks import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_lock_excludes_other_processes_until_they_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with try_locked(path) as file:
            assert file is None
    finally:
        holder.kill()
        holder.communicate()
    with try_locked(path) as file:
        assert file is not None
        with try_locked(path) as second:
            assert second is None
    with locked(path) as file:
        assert file.read() == ""


def test_the_holder_can_write_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with try_locked(path) as file:
        assert file is not None
        file.truncate(0)
        file.write("node1")
        file.flush()
        assert path.read_text() == "node1"


def test_errors_inside_the_lock_pass_through(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), try_locked(tmp_path / "lock"):
        raise BlockingIOError("from the body")
    with pytest.raises(FileNotFoundError), locked(tmp_path / "absent" / "lock"):
        raise AssertionError("the folder is missing")
