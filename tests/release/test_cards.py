"""Cards written again from what is published: nothing to do, one note changed, pushed without touching weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi

from publish.cli.group import main
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.hub.repository import validate_card
from publish.interrupt import Stop
from publish.records.manifest import Manifest
from publish.rehearsal.server import RehearsalHub
from publish.release.cards import make_cards
from publish.release.executors import LocalExecutor
from publish.release.facts import hub_address
from publish.release.job import make_job
from publish.release.progress import Silent
from publish.release.proposal import propose, write_release
from publish.release.runner import Options, release
from publish.release.work_dir import open_work_dir
from publish.release_file import read_release
from tests.cards.markdown import body, live_html, shown, tokens
from tests.release.releases import FEW, TARGET, few, run_release

ClientOf = Callable[[str], Client]
BRANCHES = ["main", *(f"step{step}" for step in FEW)]


@pytest.fixture
def released(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A release file, its four steps and ``main`` on the Hub, and no source any more."""
    run = few(samples, tmp_path)
    release = replace(propose(str(run), TARGET), source=str(run))
    write_release(release, None, tmp_path / "release.yaml")
    outcome = run_release(run, client_of("hf_alice"), tmp_path)
    assert not outcome.failed
    run.rename(tmp_path / "gone")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    hub.reset_stats()
    return tmp_path / "release.yaml"


def cards(*arguments: object) -> tuple[int, Any]:
    done = CliRunner().invoke(main, ["cards", *map(str, arguments), "--json"])
    return done.exit_code, json.loads(done.stdout)


def changed(report: Any) -> list[str]:
    return [each["branch"] for each in report["cards"] if each["changed"]]


def add_note(release: Path, line: str) -> None:
    text = release.read_text().replace("  # notes: |", f"  notes: {json.dumps(line)}\n  # notes: |")
    release.write_text(text)


def test_an_unchanged_release_costs_three_requests_and_no_source(released: Path, hub: RehearsalHub) -> None:
    code, report = cards(released, "--check")
    assert (code, report["ok"]) == (0, True)
    assert [(card["repo"], card["branch"], card["changed"]) for card in report["cards"]] == [
        (TARGET, branch, False) for branch in BRANCHES
    ]
    assert hub.stats().requests == {"refs": 1, "tree": 1, "resolve": 1}
    assert hub.stats().commits == {}


@pytest.mark.slow
def test_154_steps_cost_three_requests_and_one_changed_note_is_found_in_every_card(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    client = client_of("hf_alice")
    assert not run_release(samples, client, tmp_path, verify_logits="off").failed
    hub.reset_stats()
    release = propose(str(samples), TARGET)
    found = make_cards(release, client)
    assert (len(found.cards), found.changed, found.findings) == (155, (), ())
    assert sum(hub.stats().requests.values()) == 3
    noted = replace(release, card=replace(release.card, notes="Trained on a Tuesday."))
    assert len(make_cards(noted, client).changed) == 155
    erratum = replace(release, expect=(replace(release.expect[0], because="it has to be so"),))
    assert [card.branch for card in make_cards(erratum, client).changed] == ["main", "step0", "step1"]
    assert sum(hub.stats().requests.values()) == 9


@pytest.mark.slow
def test_same_cards_from_other_thread_counts_and_another_day(samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path)
    running = []
    for number, (workers, now) in enumerate(((1, 1_000_000_000), (4, 4_000_000_000))):
        root = tmp_path / f"hub{number}"
        command = [sys.executable, "-m", "tests.release.print_cards", str(run), str(root), str(workers), str(now)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(workers),
            "PYTHONHASHSEED": str(number),
            "TZ": "Asia/Kathmandu" if number else "UTC",
            "HF_HOME": str(root / "home"),
        }
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    one, other = (process.communicate(timeout=120)[0] for process in running)
    assert len(one) > 10_000
    assert one == other


def test_the_cards_written_are_the_bytes_that_are_published(released: Path, hub: RehearsalHub, tmp_path: Path) -> None:
    code, _ = cards(released, "--out", tmp_path / "out")
    assert code == 0
    api = HfApi(endpoint=hub.url, token=False)
    for branch in BRANCHES:
        there = Path(api.hf_hub_download(TARGET, "README.md", revision=branch)).read_bytes()
        assert (tmp_path / "out" / branch / "README.md").read_bytes() == there


def test_the_snippet_in_a_card_loads_its_own_step(released: Path, hub: RehearsalHub, tmp_path: Path) -> None:
    cards(released, "--out", tmp_path)
    loads = []
    for branch in ("main", "step2"):
        text = (tmp_path / branch / "README.md").read_text("utf-8")
        (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        loads.append(f"{snippet}\nprint(type(model).__name__, model.num_parameters(), len(tokenizer))\n")
        loads.append("print(float(model.get_output_embeddings().weight.double().sum()))\n")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    program = "".join(loads)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, weights, second, other = done.stdout.splitlines()
    assert first == second == "GPTNeoXForCausalLM 14784 250"
    assert weights != other


def test_the_server_takes_our_metadata_without_a_warning(released: Path, client_of: ClientOf) -> None:
    client = client_of("hf_alice")
    for card in make_cards(read_release(released), client).cards:
        assert validate_card(client, card.text, "") == ()


def test_hostile_words_of_a_release_arrive_as_text(released: Path, client_of: ClientOf) -> None:
    release = read_release(released)
    title = "Tiny <img src=x onerror=alert(1)> | `model`"
    words = replace(release.card, title=title, notes="Hello <script>alert(1)</script> world")
    for card in make_cards(replace(release, card=words), client_of("hf_alice")).cards:
        assert live_html(body(card.text)) == set()
        heading = next(token for token in tokens(body(card.text)) if token.type == "inline")
        assert shown(heading).startswith(title)


def test_a_changed_note_is_pushed_as_cards_alone_one_commit_a_branch(released: Path, hub: RehearsalHub) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    before = {
        branch: {e.path: e for e in api.list_repo_tree(TARGET, revision=branch, recursive=True)} for branch in BRANCHES
    }
    add_note(released, "Trained on a Tuesday.")
    code, report = cards(released, "--check")
    assert (code, report["ok"], changed(report)) == (1, False, BRANCHES)
    hub.reset_stats()
    code, report = cards(released, "--push")
    assert (code, report["ok"], sorted(report["pushed"])) == (0, True, BRANCHES)
    assert hub.stats().commits == {TARGET: dict.fromkeys(BRANCHES, 1)}
    assert "lfs-upload" not in hub.stats().requests
    for branch in BRANCHES:
        after = {e.path: e for e in api.list_repo_tree(TARGET, revision=branch, recursive=True)}
        paths = after.keys() | before[branch].keys()
        differ = {path for path in paths if _blob(after, path) != _blob(before[branch], path)}
        assert differ <= {"README.md", "publish.json", "checkpoints.json"}
        assert "Tuesday" in Path(api.hf_hub_download(TARGET, "README.md", revision=branch)).read_text()
    for step in FEW:
        content = Path(api.hf_hub_download(TARGET, "publish.json", revision=f"step{step}")).read_bytes()
        readme = Path(api.hf_hub_download(TARGET, "README.md", revision=f"step{step}")).read_bytes()
        assert Manifest.from_bytes(content, "").card == hashlib.sha256(readme).hexdigest()
    hub.reset_stats()
    assert cards(released, "--check")[0] == 0
    assert sum(hub.stats().requests.values()) == 3
    assert cards(released, "--push")[1]["pushed"] == []


def _blob(files: dict[str, Any], path: str) -> str | None:
    return getattr(files.get(path), "blob_id", None)  # a folder has none


def test_only_the_cards_that_show_a_change_are_changed(released: Path, hub: RehearsalHub) -> None:
    released.write_text(released.read_text().replace("the learning rate is 0", "the rate is 0"))
    code, report = cards(released, "--push")
    assert (code, changed(report)) == (0, ["main", "step0", "step1"])
    assert hub.stats().commits == {TARGET: {"main": 1, "step0": 1, "step1": 1}}


def test_a_card_edited_on_the_hub_is_found_and_shown(released: Path, hub: RehearsalHub) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    text = Path(api.hf_hub_download(TARGET, "README.md", revision="step2")).read_text()
    edited = text.replace("# tiny, step 2", "# tiny, step two").encode()
    api.create_commit(TARGET, [CommitOperationAdd("README.md", edited)], commit_message="x", revision="step2")
    done = CliRunner().invoke(main, ["cards", str(released)])
    assert done.exit_code == 1
    assert "step2: another card" in done.stdout
    assert "-# tiny, step two\n+# tiny, step 2\n" in done.stdout
    assert "main: checkpoints.json is not" in done.stdout
    assert cards(released, "--push")[0] == 0
    assert cards(released, "--check")[0] == 0


def test_a_push_that_was_cut_off_goes_on_where_it_was(released: Path, hub: RehearsalHub) -> None:
    add_note(released, "Trained on a Tuesday.")
    hub.inject([{"route": "commit", "nth": 3, "count": 99, "status": 403}])
    code, report = cards(released, "--push")
    assert (code, report["ok"], len(report["pushed"]), len(report["failed"])) == (1, False, 2, 3)
    hub.inject(None)
    hub.reset_stats()
    code, report = cards(released, "--push")
    assert (code, len(report["pushed"])) == (0, 3)
    assert hub.stats().commits == {TARGET: dict.fromkeys(report["pushed"], 1)}
    assert cards(released, "--check")[0] == 0


def test_before_main_is_published_the_source_tells_the_steps(
    samples: Path, tmp_path: Path, client_of: ClientOf
) -> None:
    run = few(samples, tmp_path)
    client = client_of("hf_alice")
    proposed = propose(str(run), TARGET)
    job = make_job(proposed, steps="0,2")
    with open_work_dir(tmp_path / "work") as place:
        release(job, client, place, Options(), LocalExecutor(2, 2, place.steps, Silent()), Stop(), Silent())
    found = make_cards(proposed, client)
    assert [(card.branch, card.reason) for card in found.cards] == [("step0", ""), ("step2", "")]


def test_links_lead_to_the_hub_that_is_published_to() -> None:
    lab = Endpoint("https://hub.lab.example")
    assert hub_address(lab) == "https://hub.lab.example"
    assert hub_address(Endpoint("http://127.0.0.1:7860")) == "https://huggingface.co"


def test_a_release_that_is_not_there_is_an_error(released: Path) -> None:
    released.write_text(released.read_text().replace(TARGET, "alice/none"))
    done = CliRunner().invoke(main, ["cards", str(released)])
    assert done.exit_code == 2
    assert "alice/none" in done.stderr


def test_own_templates_come_first(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "_license.md.j2").write_text("## Terms\n")
    code, report = cards(released, "--check", "--templates", folder)
    assert (code, changed(report)) == (1, BRANCHES)


def test_a_rehearsal_takes_the_release_of_any_owner(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = few(samples, tmp_path)
    write_release(replace(propose(str(run), "Some-Lab/tiny"), source=str(run)), None, tmp_path / "release.yaml")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    arguments = [
        "all-steps",
        str(tmp_path / "release.yaml"),
        "--rehearse",
        "--work-dir",
        str(tmp_path / "work"),
        "--json",
    ]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, json.loads(done.stdout)["published"]) == (0, list(FEW)), done.output
    with RehearsalHub(tmp_path / "work" / "rehearsal") as hub:
        card = httpx2.get(f"{hub.url}/Some-Lab/tiny").text
    assert "Some-Lab/tiny" in card
