"""The whole sample run, 154 steps, under the Hub's quota of 128 commits an hour, on a clock that only waiting moves."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.hub.rate_limits import Wait
from publish.rehearsal.server import RehearsalHub
from publish.release.job import make_job
from publish.release.outcome import Outcome
from publish.release.preflight import plan_release
from publish.release.proposal import propose
from tests.clock import ManualClock
from tests.release.releases import TARGET, run_release

pytestmark = pytest.mark.slow
MANY = 10**6
STEPS = 154
PER_STEP = 8  # requests, at most, with LFS


@dataclass
class Whole:
    """A hub with the whole release on it, and what making it took."""

    hub: RehearsalHub
    clock: ManualClock
    run: Path
    folder: Path
    outcome: Outcome
    requests: Counter[str]
    commits: dict[str, int]
    waits: list[Wait]
    waited: float

    def client(self, quota: str = "quota") -> Client:
        return Client(Endpoint(self.hub.url, "hf_alice"), clock=self.clock, quota_dir=self.folder / quota)

    def again(self, work: str, **change: object) -> tuple[Outcome, Counter[str]]:
        """Run it again with the work folder of that name; what it asked for."""
        self.hub.reset_stats()
        outcome = run_release(self.run, self.client(), self.folder / work, change)
        return outcome, Counter(self.hub.stats().requests)


@pytest.fixture(scope="module")
def whole(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    clock = ManualClock()
    quota = {"api_quota": MANY, "resolver_quota": MANY}
    with RehearsalHub(folder / "hub", faults=[{"commits_per_hour": 128}], clock=clock.now, **quota) as hub:
        waits: list[Wait] = []
        client = Client(Endpoint(hub.url, "hf_alice"), clock=clock, quota_dir=folder / "quota", notify=waits.append)
        start = clock.now()
        outcome = run_release(samples, client, folder / "first", {"commits_per_hour": 128}, verify_logits="off")
        stats = hub.stats()
        commits = dict(stats.commits[TARGET])
        yield Whole(hub, clock, samples, folder, outcome, Counter(stats.requests), commits, waits, clock.now() - start)


def test_156_commits_none_rejected(whole: Whole) -> None:
    assert (len(whole.outcome.published), whole.outcome.failed, whole.outcome.main.status) == (STEPS, (), "published")
    assert sum(whole.commits.values()) == whole.requests["commit"] == STEPS + 1  # a rejected one would be one more
    assert set(whole.commits.values()) == {1}
    api = HfApi(endpoint=whole.hub.url, token=False)
    assert len(api.list_repo_commits(TARGET)) == 2  # with the repo's first: 156
    assert all(len(api.list_repo_commits(TARGET, revision=f"step{step}")) == 2 for step in (0, 1, 512, 143000))


def test_it_waited_as_planned(whole: Whole) -> None:
    plan = plan_release(make_job(propose(str(whole.run), TARGET)), in_flight=2)
    assert plan.commits == STEPS + 2
    print(f"planned {plan.hours_at_quota * 3600:.0f} s, waited {whole.waited:.0f} s")
    assert whole.waited == pytest.approx(plan.hours_at_quota * 3600, rel=0.05)
    assert whole.waits
    assert all(wait.reason == f"the quota of 128 commits an hour to {TARGET}" for wait in whole.waits)
    assert whole.waits[0].until - whole.waited <= 1_700_000_000 + 1


def test_requests_of_a_step(whole: Whole) -> None:
    per_step = {route: count / STEPS for route, count in sorted(whole.requests.items())}
    print({route: round(count, 2) for route, count in per_step.items()}, sum(per_step.values()))
    once = ("create-branch", "preupload", "lfs-batch", "lfs-upload", "lfs-verify", "commit", "tree")
    assert all(whole.requests[route] <= STEPS + 5 for route in once)
    assert sum(whole.requests.values()) <= PER_STEP * STEPS


def test_a_finished_release_run_again(whole: Whole) -> None:
    outcome, requests = whole.again("elsewhere")
    print(dict(requests))
    assert (len(outcome.skipped), outcome.commits, outcome.main.status) == (STEPS, 0, "unchanged")
    assert sum(requests.values()) <= 15


def test_a_branch_that_moved_is_looked_at_and_made_right(whole: Whole) -> None:
    api = HfApi(endpoint=whole.hub.url, token="hf_alice")
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="x.txt", repo_id=TARGET, revision="step16")
    outcome, requests = whole.again("first")
    assert (outcome.published, outcome.failed, outcome.main.status) == ((16,), (), "published")
    assert list(outcome.removed) == [("step16", ("x.txt",))]
    assert "x.txt" not in api.list_repo_files(TARGET, revision="step16")
    assert sum(requests.values()) <= 40
    assert whole.again("first")[0].commits == 0


def test_words_that_changed_reach_every_card_and_no_weight_is_read(whole: Whole) -> None:
    card = replace(propose(str(whole.run), TARGET).card, notes="Words of ours.")
    whole.clock.advance(7200)
    outcome, _ = whole.again("first", card=card, commits_per_hour=MANY)
    assert (outcome.published, outcome.bytes_read, outcome.commits, outcome.failed) == ((), 0, STEPS + 1, ())
    assert whole.again("first", card=card)[0].commits == 0
    api = HfApi(endpoint=whole.hub.url, token=False)
    for revision in ("main", "step0", "step143000"):
        assert "Words of ours." in Path(api.hf_hub_download(TARGET, "README.md", revision=revision)).read_text()


def test_a_source_that_changed_is_published_again(whole: Whole, tmp_path: Path) -> None:
    whole.clock.advance(7200)
    run = shutil.copytree(whole.run, tmp_path / whole.run.name)
    config = next((run / "global_step32" / "configs").glob("*.yml"))
    config.write_text(config.read_text() + "\n# a word more\n")
    moved = replace(whole, run=run)
    card = replace(propose(str(whole.run), TARGET).card, notes="Words of ours.")
    outcome, _ = moved.again("first", card=card)
    assert (outcome.published, outcome.failed, outcome.main.status) == ((32,), (), "published")
    assert moved.again("first", card=card)[0].commits == 0
