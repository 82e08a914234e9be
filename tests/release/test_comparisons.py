"""A comparison that a release asks for, or no longer does, once its step is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.cli.group import main
from publish.rehearsal.server import RehearsalHub
from publish.release.proposal import propose, release_yaml
from tests.release.releases import FEW, TARGET, few

Publish = Callable[..., dict[str, Any]]
PUBLISHED = dict.fromkeys(FEW, ("published", "as recorded at its tip"))


@pytest.fixture
def file(samples: Path, tmp_path: Path) -> Path:
    """The release file of four steps; they are not published."""
    path = tmp_path / "release.yaml"
    path.write_text(release_yaml(propose(str(few(samples, tmp_path).rename(tmp_path / "tiny")), TARGET), None))
    return path


@pytest.fixture
def publish(hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """A command's JSON; ``code`` is what it ends with."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return run


def states(document: dict[str, Any]) -> dict[int, tuple[str, str]]:
    return {each["step"]: (each["state"], each["reason"]) for each in document["steps"]}


def compared(hub: RehearsalHub, revision: str) -> list[str]:
    """What the manifest at a revision is compared with, by the titles on its card, which has no others."""
    api = HfApi(endpoint=hub.url, token=False)
    read = {
        name: Path(api.hf_hub_download(TARGET, name, revision=revision)).read_text()
        for name in ("publish.json", "README.md")
    }
    manifest = json.loads(read["publish.json"])
    step = f"Step {manifest['step']:,} (left)"
    titles = [f"{step} and {each['location']} (right)" for each in manifest["comparisons"]]
    assert [line[4:] for line in read["README.md"].split("\n") if line.startswith("### Step ")] == titles
    return titles


def test_a_comparison_added_changed_and_removed_is_a_reason_to_publish_its_step_again(
    file: Path, hub: RehearsalHub, publish: Publish, tmp_path: Path
) -> None:
    text = file.read_text()
    assert publish("all-steps", str(file))["published"] == list(FEW)
    tips = {branch.name: branch.target_commit for branch in HfApi(endpoint=hub.url).list_repo_refs(TARGET).branches}
    asked = "compare: [{step: 2, with: tiny/global_step%d}]\n"
    one, other = "tiny/global_step0", "tiny/global_step1"
    no_longer = "which the release does not ask for"
    for wanted, reason, titles in (
        (asked % 0, f"not compared with {one}", [f"Step 2 (left) and {one} (right)"]),
        (
            asked % 1,
            f"not compared with {other}; compared with {one}, {no_longer}",
            [f"Step 2 (left) and {other} (right)"],
        ),
        ("", f"compared with {other}, {no_longer}", []),
    ):
        file.write_text(text + wanted)
        assert states(publish("status", str(file), code=1)) == {**PUBLISHED, 2: ("stale", reason)}
        hub.reset_stats()
        outcome = publish("all-steps", str(file))
        assert "lfs-upload" not in hub.stats().requests  # the weights are there
        assert (outcome["published"], outcome["skipped"], outcome["main"]) == ([2], [0, 1, 512], "published")
        assert compared(hub, "step2") == titles
        assert states(publish("status", str(file))) == PUBLISHED
        hub.reset_stats()
        again = publish("all-steps", str(file))
        assert (again["main"], again["commits"]) == ("unchanged", 0)
    now = {branch.name: branch.target_commit for branch in HfApi(endpoint=hub.url).list_repo_refs(TARGET).branches}
    assert {name for name, tip in now.items() if tip != tips[name]} == {"step2", "main"}


def test_a_comparison_of_the_final_step_reaches_main(file: Path, hub: RehearsalHub, publish: Publish) -> None:
    publish("all-steps", str(file))
    both = "{step: 512, with: tiny/global_step0}, {step: 512, with: tiny/global_step2}"
    file.write_text(file.read_text() + f"compare: [{both}]\n")
    assert publish("all-steps", str(file))["published"] == [512]
    titles = [f"Step 512 (left) and tiny/global_step{step} (right)" for step in (0, 2)]
    assert compared(hub, "step512") == compared(hub, "main") == titles
    first, second = both.split("}, ")
    file.write_text(file.read_text().replace(both, f"{second}, {first}}}"))
    assert publish("all-steps", str(file))["published"] == []  # the same ones in another order
