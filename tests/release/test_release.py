"""A release ends with exactly the branches it should have, each exactly what its one commit put there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from publish.checkpoints import find_checkpoint
from publish.errors import HubError, ScheduleError, TokenizerError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from publish.release.conversion import ConvertOptions, convert_one
from publish.release.job import make_job
from publish.release.proposal import propose
from publish.sources.runs import parse_location
from tests.conftest import arrays, shared
from tests.release.releases import FEW, TARGET, few, run_release

FILES = [
    ".gitattributes",
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "publish.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
ClientOf = Callable[[str], Client]


def test_every_branch_is_one_commit_with_exactly_its_files(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)
    assert (outcome.published, outcome.failed, outcome.commits) == (FEW, (), len(FEW) + 1)
    api = HfApi(endpoint=hub.url, token=False)
    first = api.list_repo_commits(TARGET)[-1].commit_id
    for step in FEW:
        commits = api.list_repo_commits(TARGET, revision=f"step{step}")
        assert [commit.commit_id for commit in commits][1:] == [first]
        assert sorted(api.list_repo_files(TARGET, revision=f"step{step}")) == FILES
    assert len(api.list_repo_commits(TARGET)) == 2
    on_main = {path for path in api.list_repo_files(TARGET) if not path.startswith("plots/")}
    assert on_main == {*FILES, "checkpoints.json"}
    weights = {
        revision: next(
            e.lfs.sha256 for e in api.list_repo_tree(TARGET, revision=revision) if e.path.endswith("tensors")
        )
        for revision in ("main", "step512")
    }
    assert weights["main"] == weights["step512"]


def test_a_second_run_makes_no_commit_and_asks_little(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    run = few(samples, tmp_path)
    run_release(run, client_of("hf_alice"), tmp_path)
    for folder in (tmp_path, tmp_path / "elsewhere"):
        hub.reset_stats()
        outcome = run_release(run, client_of("hf_alice"), folder)
        assert (outcome.published, outcome.skipped, outcome.commits) == ((), FEW, 0)
        assert hub.stats().commits == {}
        assert sum(hub.stats().requests.values()) <= 15


def test_a_release_broken_off_goes_on_where_it_was(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    run = few(samples, tmp_path)
    (run / "global_step2" / "mp_rank_00_model_states.pt").rename(tmp_path / "aside")
    shutil.copy(run / "global_step1" / "mp_rank_00_model_states.pt", run / "global_step2")
    outcome = run_release(run, client_of("hf_alice"), tmp_path)
    assert [(failure.step, failure.kind) for failure in outcome.failed] == [(2, "gate")]
    assert "holds iteration 1" in outcome.failed[0].detail
    assert outcome.main.status == "waiting"
    assert outcome.main.detail == "updated once 1 remaining step is published"
    shutil.move(tmp_path / "aside", run / "global_step2" / "mp_rank_00_model_states.pt")
    again = run_release(run, client_of("hf_alice"), tmp_path)
    assert (again.published, again.skipped, again.failed, again.main.status) == ((2,), (0, 1, 512), (), "published")


def test_equal_weights_that_nobody_declared_are_not_published(
    samples: Path, tmp_path: Path, client_of: ClientOf
) -> None:
    run = few(samples, tmp_path)
    outcome = run_release(run, client_of("hf_alice"), tmp_path, {"expect": ()}, workers=1)
    assert [failure.step for failure in outcome.failed] == [1]
    assert "same weights as step 0" in outcome.failed[0].detail


def test_a_later_run_does_not_repeat_the_weights_of_an_earlier_one(
    samples: Path, tmp_path: Path, client_of: ClientOf
) -> None:
    run = few(samples, tmp_path)
    later = run / "global_step512" / "mp_rank_00_model_states.pt"
    later.rename(tmp_path / "aside")
    shutil.copy(run / "global_step2" / "mp_rank_00_model_states.pt", later)  # says iteration 2: refused, so 512 is left
    assert [each.step for each in run_release(run, client_of("hf_alice"), tmp_path).failed] == [512]
    forged = torch.load(tmp_path / "aside", weights_only=False)
    forged["module"] = torch.load(later, weights_only=False)["module"]
    torch.save(forged, later)  # says iteration 512 and holds the weights of step 2
    outcome = run_release(run, client_of("hf_alice"), tmp_path)
    assert [failure.step for failure in outcome.failed] == [512]
    assert "same weights as step 2" in outcome.failed[0].detail


def test_a_branch_of_somebody_else_is_left_alone(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo(TARGET)
    api.create_branch(TARGET, branch="step1")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=TARGET, revision="step1")
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)
    assert [failure.step for failure in outcome.failed] == [1]
    assert "notes.txt" in api.list_repo_files(TARGET, revision="step1")


def test_without_the_right_to_write_nothing_is_converted(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    HfApi(endpoint=hub.url, token="hf_alice").create_repo(TARGET)
    for token in ("hf_bob", "hf_read_alice"):
        with pytest.raises(HubError):
            run_release(few(samples, tmp_path / token), client_of(token), tmp_path)
    assert HfApi(endpoint=hub.url).list_repo_refs(TARGET).branches[0].name == "main"
    assert hub.stats().commits.get(TARGET, {}).get("step0") is None


def test_steps_missing_in_the_source_end_it_before_it_starts(samples: Path, tmp_path: Path) -> None:
    wanted = replace(propose(str(few(samples, tmp_path)), TARGET), schedule="pythia")
    with pytest.raises(ScheduleError, match="150 of the schedule's 154 steps are missing"):
        make_job(wanted)


def test_a_release_without_a_tokenizer_refuses_before_it_starts(samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path)
    shutil.rmtree(run / "tokenizer")
    with pytest.raises(TokenizerError, match="not on this machine"):
        make_job(propose(str(run), TARGET))


def test_a_step_of_another_run_is_refused(samples: Path, tmp_path: Path, client_of: ClientOf) -> None:
    run = few(samples, tmp_path)
    config = next((run / "global_step2" / "configs").glob("*.yml"))
    config.write_text(config.read_text().replace('"lr": 0.001', '"lr": 0.002'))
    outcome = run_release(run, client_of("hf_alice"), tmp_path)
    assert [failure.step for failure in outcome.failed] == [2]
    assert outcome.failed[0].detail.startswith("optimizer is")


def raw_on_hub(hub: RehearsalHub, run: Path, repo: str, steps: tuple[int, ...]) -> None:
    """Push raw checkpoints as branches, as labs keep them."""
    api = HfApi(endpoint=hub.url, token="hf_lab")
    api.create_repo(repo)
    for step in steps:
        api.create_branch(repo, branch=f"step{step}")
        api.upload_folder(repo_id=repo, folder_path=run / f"global_step{step}", revision=f"step{step}")


def test_a_source_on_a_hub_gives_the_same_branches(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    run = few(samples, tmp_path)
    raw_on_hub(hub, run, "lab/raw", FEW)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    tokenizer = str(run / "tokenizer" / "small_250.json")
    outcome = run_release("lab/raw", client_of("hf_alice"), tmp_path, tokenizer=tokenizer)
    assert (outcome.published, outcome.failed) == (FEW, ())
    api = HfApi(endpoint=hub.url, token=False)
    manifest = json.loads(Path(api.hf_hub_download(TARGET, "publish.json", revision="step2")).read_text())
    tips = {branch.name: branch.target_commit for branch in api.list_repo_refs("lab/raw").branches}
    assert manifest["source"]["commit"] == tips["step2"]
    assert run_release("lab/raw", client_of("hf_alice"), tmp_path, tokenizer=tokenizer).commits == 0


@pytest.fixture
def raw14m(real14m: Path, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> str:
    """A real 14M checkpoint with its optimizer state, on the Hub; nothing is counted yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    raw_on_hub(hub, real14m.parent, "lab/raw14m", (0,))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.reset_stats()
    return "lab/raw14m"


def test_a_14m_checkpoint_on_a_hub_costs_its_weights_and_no_more(
    raw14m: str, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    tokenizer = str(shared("pythia/20B_tokenizer.json"))
    outcome = run_release(raw14m, client_of("hf_alice"), tmp_path, tokenizer=tokenizer)
    assert (outcome.published, outcome.failed) == ((0,), ())
    fetched, weights = hub.stats().bytes_out_by_repo[raw14m], 28_135_424
    print(f"fetched {fetched:,} bytes for {weights:,} bytes of weights: {fetched / weights:.4f} x")
    assert fetched <= 1.02 * weights


@pytest.mark.slow
def test_a_14m_checkpoint_on_a_hub_takes_few_requests(raw14m: str, tmp_path: Path, hub: RehearsalHub) -> None:
    ref, files = find_checkpoint(parse_location(f"{raw14m}@step0"), None)
    try:
        convert_one(ref, files, tmp_path / "out", ConvertOptions(tokenizer="none"))
    finally:
        files.close()
    asked = dict(hub.stats().requests)
    assert asked.pop("repo-info") == 1  # the revision; a run asks for all refs at once
    assert sum(asked.values()) <= 6


def test_published_steps_load_as_any_user_would_load_them(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)
    local = HfApi(endpoint=hub.url, token=False).snapshot_download(TARGET, revision="step512")
    model = AutoModelForCausalLM.from_pretrained(local, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(local)
    assert (tokenizer("t5 t7")["input_ids"], tokenizer.eos_token_id, model.config.eos_token_id) == ([5, 7], 0, 0)
    truth = arrays(shared("suite/logits/pythia-tiny-seed1234_step512.npz"))
    with torch.no_grad():
        logits = model(torch.from_numpy(truth["tokens"])).logits.numpy()
    assert float(np.abs(logits - truth["logits_fp32"]).max()) <= 5e-5


def test_an_expectation_that_does_not_hold_fails_its_step(samples: Path, tmp_path: Path, client_of: ClientOf) -> None:
    from publish.release_file import ExpectedEqual

    expect = (ExpectedEqual((0, 1), "so it is"), ExpectedEqual((2, 512), "so it is not"))
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path, {"expect": expect}, workers=1)
    assert [failure.step for failure in outcome.failed] == [512]
    assert "steps 2 and 512 are declared equal and differ" in outcome.failed[0].detail
    assert "gpt_neox.embed_in.weight" in outcome.failed[0].detail
    assert outcome.main.status == "waiting"
    assert outcome.main.detail == "updated once 1 remaining step is published"


def test_a_rehearsal_is_not_held_up_by_the_real_hubs_commit_quota(hub: RehearsalHub, tmp_path: Path) -> None:
    at_home = Client(Endpoint(hub.url, "hf_alice"), quota_dir=tmp_path)
    assert at_home.commits.limit_for(TARGET) is None
    official = Client(Endpoint("https://huggingface.co", "hf_alice"), quota_dir=tmp_path)
    assert official.commits.limit_for(TARGET) == 128


def test_what_the_repos_first_commit_holds_is_not_inherited(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo(TARGET)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="pytorch_model.bin", repo_id=TARGET)
    api.super_squash_history(TARGET)  # now the repo's first commit holds it
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)
    assert set(outcome.removed) == {(f"step{step}", ("pytorch_model.bin",)) for step in FEW}
    for revision in ("main", *(f"step{step}" for step in FEW)):
        assert "pytorch_model.bin" not in api.list_repo_files(TARGET, revision=revision)


def test_a_right_that_was_taken_away_ends_it_early(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    hub.inject([{"route": "commit", "nth": 2, "count": 99, "status": 403, "body": {"error": "Forbidden"}}])
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path, workers=1)
    assert (outcome.published, [each.step for each in outcome.failed]) == ((0,), [1])
    assert "HTTP 403: Forbidden" in outcome.failed[0].detail
    assert "write access" in outcome.failed[0].fix
    assert hub.stats().requests["lfs-batch"] == 2  # steps 2 and 512 were not begun


def test_a_step_that_the_hub_refuses_does_not_stop_the_others(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    hub.inject([{"route": "commit", "nth": 2, "status": 413, "body": {"error": "Too large"}}])
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path, workers=1)
    assert (outcome.published, [each.step for each in outcome.failed]) == ((0, 2, 512), [1])


def test_the_initial_weights_are_explained_on_the_cards(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)
    api = HfApi(endpoint=hub.url, token=False)
    for revision, stated in (("main", True), ("step0", True), ("step512", False)):
        card = Path(api.hf_hub_download(TARGET, "README.md", revision=revision)).read_text()
        assert ("## Where the initial weights come from" in card) == stated, revision
        assert ("| Values | 14,336 of 14,336 equal in every bit | recomputed |" in card) == stated, revision
