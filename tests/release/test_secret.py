"""The token appears in no log, error, manifest, ledger or process list."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.release.processes import start
from tests.release.releases import few

TOKEN = "hf_" + "Zq7xK2mPvT9sLwB4nYcR8dFgHjE1aUoI65"  # of a real one's form
TARGET = f"user-{hashlib.sha256(TOKEN.encode()).hexdigest()[:10]}/tiny"  # whose it is on a rehearsal Hub
LOUD = """
import logging
logging.basicConfig(level=logging.DEBUG)
from publish.cli import main; import sys
sys.argv.insert(1, "--debug")
main()
"""


def loud(url: str, run: Path | str, work: Path) -> tuple[int, str, set[bytes]]:
    """A release that logs all there is to log; its exit code, what it wrote, and its command lines while it ran."""
    env = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    process = start(url, run, work, "--json", target=TARGET, token=TOKEN, code=LOUD, **env)
    lines: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for each in (Path(f"/proc/{process.pid}/cmdline"), *Path(f"/proc/{process.pid}/task").glob("*/comm")):
                try:
                    lines.add(each.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate(timeout=120)
    done.set()
    watcher.join()
    return process.returncode, out + err, lines


def holding(folder: Path, secret: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.slow
def test_the_token_shows_nowhere(samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path)
    faults = [
        {"route": "commit", "nth": 1, "status": 504, "after": True},
        {"route": "tree", "nth": 2, "status": 500, "body": {"error": f"the token {TOKEN} is not known here"}},
        {"route": "lfs-upload", "nth": 1, "drop": "before"},
        {"route": "commit", "nth": 3, "count": 99, "status": 403, "body": {"error": f"no right for {TOKEN}"}},
    ]
    with RehearsalHub(tmp_path / "hub", faults=faults, api_quota=10**6, resolver_quota=10**6) as hub:
        code, told, lines = loud(hub.url, run, tmp_path / "work")
        assert code == 1, told[-2000:]
        assert "no right for <token>" in told
        assert "DEBUG" in told
        assert "Send: curl" in told  # huggingface_hub logs every request
        hub.inject(None)
        code_again, told_again, lines_again = loud(hub.url, run, tmp_path / "work")
        assert code_again == 0, told_again[-2000:]
    for text in (told, told_again):
        assert TOKEN not in text
        assert "Bearer hf_" not in text
    assert lines | lines_again
    assert not any(TOKEN.encode() in line for line in lines | lines_again)
    for folder in ("work", "hub"):
        assert holding(tmp_path / folder, TOKEN.encode()) == []
