"""A finished release run again asks almost nothing, wherever its source is; and what it kept is never the truth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.atomic import read_sealed, write_sealed
from publish.cli.group import main
from publish.hub.reads import TreeEntry, git_blob_sha1
from publish.rehearsal.server import RehearsalHub
from publish.sources import kept
from publish.sources.commitreads import CommitKey, CommitReads, Piece
from publish.sources.kept import KeptReads
from tests.conftest import shared
from tests.release.processes import CODE
from tests.release.releases import TARGET, few
from tests.release.test_release import raw_on_hub

STEPS = (0, 1, 512)
MOST = 5  # requests of a finished release run again
Edit = Callable[[Path], object]


class Lab:
    """A raw run on a Hub, and the command line."""

    def __init__(self, hub: RehearsalHub, folder: Path, home: Path) -> None:
        self.hub, self.folder = hub, folder
        self.kept = home / "publish" / "sources"
        self.tokenizer = str(folder / "run" / "tokenizer" / "small_250.json")

    def publish(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[str, Counter[str]]:
        """What it printed, and the requests that it took."""
        self.hub.reset_stats()
        ended = CliRunner(env=self._env(token)).invoke(main, arguments)
        assert ended.exit_code == code, ended.output
        return ended.stdout + ended.stderr, Counter(self.hub.stats().requests)

    def publish_afresh(self, *arguments: str) -> tuple[str, Counter[str]]:
        """The same, in a process of its own."""
        self.hub.reset_stats()
        env = {**os.environ, **self._env("hf_alice")}
        command = [sys.executable, "-W", "error", "-c", CODE, *arguments]
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
        return out, Counter(self.hub.stats().requests)

    def release(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[dict[str, Any], Counter[str]]:
        """``publish all-steps``, of the run on the Hub unless something else is named."""
        given = arguments or ("lab/raw", TARGET, "--tokenizer", self.tokenizer)
        out, asked = self.publish("all-steps", *given, "--json", code=code, token=token)
        return json.loads(out), asked

    def _env(self, token: str) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": token, "OMP_NUM_THREADS": "1"}

    def kept_files(self) -> list[Path]:
        return sorted(path for path in self.kept.rglob("*") if path.is_file())


@pytest.fixture
def lab(samples: Path, tmp_path: Path, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    raw_on_hub(hub, few(samples, tmp_path, STEPS), "lab/raw", STEPS)
    return Lab(hub, tmp_path, Path(os.environ["HF_HOME"]))


def tokenizer_on_hub(lab: Lab) -> str:
    api = HfApi(endpoint=lab.hub.url, token="hf_lab")
    api.create_repo("lab/tokenizer")
    api.upload_file(path_or_fileobj=lab.tokenizer, path_in_repo="tokenizer.json", repo_id="lab/tokenizer")
    return "lab/tokenizer"


def test_every_form_of_a_finished_release_costs_two_or_three_requests(lab: Lab) -> None:
    file = lab.folder / "release.yaml"
    lab.publish("init", "lab/raw", "--target", "alice/of-a-file", "--tokenizer", lab.tokenizer, "-o", str(file))
    forms = (
        ("lab/raw", TARGET, "--tokenizer", lab.tokenizer),
        (str(file),),
        ("lab/raw", "alice/by-a-repo", "--tokenizer", tokenizer_on_hub(lab)),
        ("lab/raw", "alice/elsewhere", "--tokenizer", lab.tokenizer, "--work-dir", str(lab.folder / "elsewhere")),
    )
    for form in forms:
        assert lab.release(*form)[0]["published"] == list(STEPS)
        out, asked = lab.publish_afresh("all-steps", *form, "--json")
        outcome = json.loads(out)
        assert (outcome["skipped"], outcome["commits"], outcome["main"]) == (list(STEPS), 0, "as it should be")
        assert asked == {"refs": 2} | ({"repo-info": 1} if "lab/tokenizer" in form else {}), form
        assert asked.total() <= MOST
    assert lab.publish("status", *forms[0])[1] == {"refs": 2}
    assert lab.publish("plan", *forms[0])[1] == {"refs": 1}


@pytest.mark.parametrize("case", ["pythia_pipe_tp2", "pythia_pipe_zero1_dp2"])
def test_a_source_of_many_files_costs_no_more(lab: Lab, case: str) -> None:
    run = lab.folder / case
    shutil.copytree(shared(f"neox/{case}") / "global_step16", run / "global_step16")
    raw_on_hub(lab.hub, run, f"lab/{case}", (16,))
    form = (f"lab/{case}", TARGET, "--tokenizer", lab.tokenizer)
    assert lab.release(*form)[0]["published"] == [16]
    outcome, asked = lab.release(*form)
    assert (outcome["skipped"], dict(asked)) == ([16], {"refs": 2})


@pytest.mark.parametrize("step", [0, 512])
def test_a_branch_of_the_source_that_moved_is_noticed(lab: Lab, step: int) -> None:
    lab.release()
    config = next((lab.folder / "run" / f"global_step{step}" / "configs").glob("*.yml"))
    HfApi(endpoint=lab.hub.url, token="hf_lab").upload_file(
        path_or_fileobj=config.read_bytes() + b"\n# a word more\n",
        path_in_repo=f"configs/{config.name}",
        repo_id="lab/raw",
        revision=f"step{step}",
    )
    outcome, _ = lab.release()
    assert (outcome["published"], outcome["failed"], outcome["main"]) == ([step], [], "published")
    assert lab.release()[1] == {"refs": 2}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_commit(path: Path) -> None:
    other = next(each for each in path.parent.iterdir() if each != path)
    shutil.copy(other, path)


def of_another_version(path: Path) -> None:
    content = read_sealed(path)
    assert content is not None
    write_sealed(path, content.replace(b'"schema": 1', b'"schema": 9'))


UNUSABLE: dict[str, Edit] = {
    "torn": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "rubbish": lambda path: path.write_bytes(b"\xff" * 1000),
    "one bit": flip,
    "foreign": of_another_commit,
    "old": of_another_version,
    "sealed rubbish": lambda path: write_sealed(path, b"[]\n"),
}


def test_what_is_kept_and_cannot_be_believed_costs_questions_and_nothing_else(lab: Lab) -> None:
    lab.release()
    files = lab.kept_files()
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o600", "0o600"]
    whole = files[0].read_bytes()
    for name, edit in UNUSABLE.items():
        edit(files[0])
        outcome, asked = lab.release()
        assert (outcome["skipped"], outcome["commits"], outcome["failed"]) == (list(STEPS), 0, []), name
        assert asked["tree"] == 1, name
        assert lab.kept_files() == files
        assert files[0].read_bytes() == whole, name
    assert lab.release()[1] == {"refs": 2}


def key_of(path: Path) -> CommitKey:
    content = read_sealed(path)
    assert content is not None
    return CommitKey(*json.loads(content.partition(b"\n")[0])["key"])


def test_nothing_is_published_on_the_word_of_a_file_here(lab: Lab) -> None:
    lab.release()
    for path in lab.kept_files():  # sealed, and other than the Hub's: nothing here can tell
        reads = CommitReads.from_bytes(read_sealed(path) or b"", key_of(path))
        assert reads is not None
        header = next(
            piece for piece, content in reads.pieces.items() if content.startswith(b"PK") and piece.length == 30
        )
        reads.pieces[header] = reads.pieces[header].replace(b"\0", b"\1", 1)
        write_sealed(path, reads.to_bytes(key_of(path)))
    assert lab.release()[1] == {"refs": 2}  # nothing is made of it
    api = HfApi(endpoint=lab.hub.url, token="hf_alice")
    api.delete_branch(TARGET, branch="step512")
    for left in (1, 0):
        said, _ = lab.publish("all-steps", "lab/raw", TARGET, "--tokenizer", lab.tokenizer, code=2)
        assert "what an earlier run read of this commit is not what the Hub holds" in said
        assert len(lab.kept_files()) == left
    assert "step512" not in [branch.name for branch in api.list_repo_refs(TARGET).branches]
    assert lab.release()[0]["published"] == [512]
    assert lab.release()[1] == {"refs": 2}


def test_a_run_with_a_failed_step_keeps_nothing(lab: Lab) -> None:
    file = "mp_rank_00_model_states.pt"
    api, wrong = HfApi(endpoint=lab.hub.url, token="hf_lab"), lab.folder / "run" / "global_step1" / file
    api.upload_file(path_or_fileobj=wrong, path_in_repo=file, repo_id="lab/raw", revision="step512")
    outcome, _ = lab.release(code=1)
    assert [each["step"] for each in outcome["failed"]] == [512]
    assert lab.kept_files() == []


def test_a_file_here_shows_nobody_what_the_token_may_not_see(lab: Lab) -> None:
    form = ("lab/raw", "lab/tiny", "--tokenizer", lab.tokenizer)
    HfApi(endpoint=lab.hub.url, token="hf_lab").update_repo_settings("lab/raw", private=True)
    lab.release(*form, token="hf_lab")
    assert lab.release(*form, token="hf_lab")[1] == {"refs": 2}
    said, asked = lab.publish("plan", *form, code=2, token="hf_bob")
    assert "lab/raw" in said
    assert asked == {"refs": 1}


def test_a_release_ends_well_where_nothing_can_be_kept(lab: Lab) -> None:
    lab.kept.parent.mkdir(parents=True)
    lab.kept.write_bytes(b"")
    assert lab.release()[0]["published"] == list(STEPS)
    assert lab.release()[0]["skipped"] == list(STEPS)


def reads_of(size: int) -> CommitReads:
    content = bytes(size)
    return CommitReads((TreeEntry("a", size, git_blob_sha1(content)),), {Piece("a", 0, size): content})


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LARGEST", 100)
    keys = [CommitKey("http://hub", "lab/raw", f"{number:040x}") for number in range(kept.COMMITS + 3)]
    for key in keys:
        reads = KeptReads(tmp_path)
        reads.note(key, reads_of(100))
        reads.write()
    large = CommitKey("http://hub", "lab/large", "1" * 40)
    unnamed = CommitKey("http://hub", "lab/raw", "../../elsewhere")
    reads = KeptReads(tmp_path)
    reads.note(large, reads_of(101))
    reads.note(unnamed, reads_of(1))
    reads.write()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == kept.COMMITS
    later = KeptReads(tmp_path)
    assert [later.find(key) is not None for key in keys] == [False] * 3 + [True] * kept.COMMITS
    assert (later.find(large), later.find(unnamed)) == (None, None)
    assert later.find(CommitKey("http://other", "lab/raw", keys[-1].commit)) is None
