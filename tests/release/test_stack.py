"""The way of a branch is short: few functions of ours lie between the command and the commit."""

from __future__ import annotations

import re
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

import publish
from publish.cli.group import main
from publish.rehearsal.server import RehearsalHub
from tests.release.releases import TARGET, few

ROOT = Path(publish.__file__).parent
DESIGN = Path(__file__).resolve().parents[2] / "docs" / "design.md"
MOST = 12


def ours() -> list[str]:
    """``file:function`` of the frames on the stack that are ours, from the command inwards."""
    frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT)]
    names = [f"{Path(frame.filename).relative_to(ROOT)}:{frame.name}" for frame in frames]
    start = next((index for index, name in enumerate(names) if name == "cli/all_steps.py:command"), 0)
    return names[start:]


def test_the_way_of_a_branch(samples: Path, tmp_path: Path, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[list[str]] = []
    committed: list[list[str]] = []
    submit, create_commit = ThreadPoolExecutor.submit, HfApi.create_commit

    def record_submit(self: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        if function.__module__ == "publish.release.executors":
            submitted.append(ours())
        return submit(self, function, *arguments, **named)

    def record_commit(self: Any, *arguments: Any, **named: Any) -> Any:
        if named["revision"] == "step1":
            committed.append(ours())
        return create_commit(self, *arguments, **named)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", record_submit)
    monkeypatch.setattr(HfApi, "create_commit", record_commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    run = few(samples, tmp_path, (0, 1))
    arguments = ["all-steps", str(run), TARGET, "--work-dir", str(tmp_path / "work"), "--json"]
    ended = CliRunner(env={"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice"}).invoke(main, arguments)
    assert ended.exit_code == 0, ended.output
    way = [*submitted[0], *committed[0]]
    print("\n".join(way))
    assert len(way) <= MOST
    listed = re.findall(r"^\| \d+ \| `([^`]+)` \| `([^`]+)` \|$", DESIGN.read_text(), re.MULTILINE)
    assert [f"{file}:{function.rpartition('.')[2]}" for function, file in listed] == way
