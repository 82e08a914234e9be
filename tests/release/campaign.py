"""The fault campaign: every fault at every call of the protocol that a whole release makes.

``python -m tests.release.campaign folder`` and ``... hub refs tree resolve cdn`` print the tables of docs/faults.md:
the source, and the routes if not all. It takes a while; the tests play a part of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from publish.errors import PublishError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint, RetryPolicy, Timeouts
from publish.records.checkpoints import Checkpoints
from publish.rehearsal.server import RehearsalHub
from publish.release.outcome import Outcome
from tests.clock import ManualClock
from tests.release.releases import TARGET, few, run_release

STEPS = (0, 1, 2)
RAW = "lab/raw"
FILES = 9  # of a step's branch, with .gitattributes
HTML = "<!doctype html><html><body><h1>We are down for maintenance</h1></body></html>"
QUOTA_TEXT = {
    "error": "You have exceeded the rate limit for repository commits (128 per hour). "
    "You can retry this action in about 1 hour."
}
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "429 Retry-After": {"status": 429, "headers": {"Retry-After": "30"}},
    "429 RateLimit": {"status": 429, "headers": {"RateLimit": '"api";r=0;t=60'}},
    "429 bare": {"status": 429, "body": {"error": "Too many requests"}},
    "429 128 an hour": {"status": 429, "body": QUOTA_TEXT},
    "500": {"status": 500},
    "502 HTML": {"status": 502, "body": HTML},
    "503": {"status": 503},
    "504 before": {"status": 504},
    "504 after": {"status": 504, "after": True},
    "200 other JSON": {"status": 200, "body": {"message": "maintenance"}},
    "200 HTML": {"status": 200, "body": HTML},
    "200 HTML after": {"status": 200, "body": HTML, "after": True},
    "reset before": {"drop": "before"},
    "reset after": {"drop": "after"},
    "stalled": {"delay": 1.0},
    "truncated": {"truncate": 20},
    "wrong bytes": {"corrupt": True},
}
READ_TIMEOUT = {"stalled": 0.5}
RIGHT, RESUMED = "right", "resumed"


def state(url: str) -> dict[str, dict[str, str]]:
    """Branch -> path -> digest, of everything that is visible; the list of checkpoints without its commits' ids."""
    api = HfApi(endpoint=url, token=False)
    if not api.repo_exists(TARGET):
        return {}
    tips = {branch.name: branch.target_commit for branch in api.list_repo_refs(TARGET).branches}
    found = {}
    for branch, tip in tips.items():
        entries = [each for each in api.list_repo_tree(TARGET, recursive=True, revision=tip) if hasattr(each, "lfs")]
        found[branch] = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in entries}
        if "checkpoints.json" in found[branch]:
            found[branch]["checkpoints.json"] = _listing(api, tip, tips)
    return found


def _listing(api: HfApi, tip: str, tips: Mapping[str, str]) -> str:
    path = api.hf_hub_download(TARGET, "checkpoints.json", revision=tip)
    listed = Checkpoints.from_bytes(Path(path).read_bytes(), tip)
    wrong = [each.branch for each in listed.checkpoints if tips.get(each.branch) != each.commit]
    document = json.dumps(
        [(each.step, each.manifest_sha256, each.manifest.card, each.weights) for each in listed.checkpoints]
    )
    return document + "".join(f" {branch} is not at its tip" for branch in wrong)


@dataclass
class Campaign:
    """A Hub, a source, and what an undisturbed release of it looks like and asks for."""

    hub: RehearsalHub
    source: str
    tokenizer: str
    folder: Path
    clock: ManualClock
    right: Mapping[str, Mapping[str, str]]
    calls: Mapping[str, int]
    runs: int = 0

    def play(self, fault: str, route: str, nth: int | None) -> str:
        """A release with one fault at the nth call of a route (None: at all of them); what became of it."""
        self.clean()
        when = {} if nth is None else {"nth": nth}
        self.hub.inject([{"route": route, **when, **FAULTS[fault]}])
        trouble = self.release(READ_TIMEOUT.get(fault, 5.0))
        self.hub.inject(None)
        if trouble is None:
            return RIGHT if self.is_right() else f"WRONG: complete, and not as undisturbed: {self.differing()}"
        if halves := {branch: sorted(files) for branch, files in state(self.hub.url).items() if partial(branch, files)}:
            return f"WRONG: partial branches {halves}"
        if "\n" in trouble or "hf_alice" in trouble:
            return f"WRONG: no clear error: {trouble}"
        if (again := self.release(5.0)) is not None:
            return f"WRONG: not resumable: {trouble}; then {again}"
        return RESUMED if self.is_right() else f"WRONG: resumed, and not as undisturbed: {self.differing()}"

    def release(self, read_timeout: float) -> str | None:
        """Run a release; None when it is complete, else what stopped it, with what to do."""
        client = Client(
            Endpoint(self.hub.url, "hf_alice"),
            clock=self.clock,
            quota_dir=self.folder / "quota",
            timeouts=Timeouts(connect=1, read=read_timeout, write=5),
            retry_policy=RetryPolicy(tries=4, longest_wait=2 * 3600),
        )
        try:
            return self._trouble(client)
        finally:
            Client(Endpoint(self.hub.url, "hf_alice"))  # its timeouts are for whoever looks at the Hub from here on

    def _trouble(self, client: Client) -> str | None:
        try:
            outcome: Outcome = run_release(self.source, client, self.folder, tokenizer=self.tokenizer, workers=1)
        except PublishError as error:
            return f"{error.what} ({error.fix})"
        if outcome.failed:
            return "; ".join(f"{each.detail} ({each.fix})" for each in outcome.failed)
        return None if outcome.main.status in ("published", "unchanged") else outcome.main.status

    def clean(self) -> None:
        """No target, no work folder, no memory of the quota."""
        self.hub.inject(None)
        HfApi(endpoint=self.hub.url, token="hf_alice").delete_repo(TARGET, missing_ok=True)
        for name in ("work", "quota"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.hub.reset_stats()
        self.runs += 1

    def is_right(self) -> bool:
        api = HfApi(endpoint=self.hub.url, token=False)
        once = all(len(api.list_repo_commits(TARGET, revision=branch)) == 2 for branch in self.right)
        return once and state(self.hub.url) == self.right

    def differing(self) -> list[str]:
        found = state(self.hub.url)
        return [branch for branch in {*found, *self.right} if found.get(branch) != self.right.get(branch)]

    def every_call(self) -> Iterator[tuple[str, int]]:
        """Each call of the protocol: its route, and its number among those of that route."""
        for route, count in self.calls.items():
            yield from ((route, nth) for nth in range(1, count + 1))


def partial(branch: str, files: Mapping[str, str]) -> bool:
    """Whether a branch shows some of its files and not all: it has the repo's first commit, or everything."""
    if branch == "main":  # it has plots, too, where they can be drawn
        return len(files) > 1 and not {"checkpoints.json", "model.safetensors", "README.md"} <= files.keys()
    return len(files) not in (1, FILES)


@contextmanager
def campaign(samples: Path, folder: Path, *, on_hub: bool) -> Iterator[Campaign]:
    """Release three steps undisturbed, from a folder or from a repo on the same Hub, and be ready for faults."""
    clock = ManualClock()
    run = few(samples, folder, STEPS)
    tokenizer = str(run / "tokenizer" / "small_250.json")
    with RehearsalHub(folder / "hub", clock=clock.now, api_quota=10**6, resolver_quota=10**6) as hub:
        made = Campaign(hub, RAW if on_hub else str(run), tokenizer, folder, clock, {}, {})
        if on_hub:
            made.release(5.0)  # so that huggingface_hub has our client, without Xet
            push_raw(hub, run)
        made.clean()
        assert made.release(5.0) is None
        made.calls = dict(sorted(Counter(hub.stats().requests).items()))
        made.right = state(hub.url)
        assert len(made.right) == len(STEPS) + 1
        yield made


def push_raw(hub: RehearsalHub, run: Path) -> None:
    """Raw checkpoints as branches, as labs keep them."""
    api = HfApi(endpoint=hub.url, token="hf_lab")
    api.create_repo(RAW)
    for step in STEPS:
        api.create_branch(RAW, branch=f"step{step}")
        api.upload_folder(repo_id=RAW, folder_path=run / f"global_step{step}", revision=f"step{step}")


def row(made: Campaign, route: str, wrong: list[str]) -> str:
    """A markdown line: of each fault, how many of the route's calls ended how, and how it ended when it stayed."""
    cells = []
    for fault in FAULTS:
        outcomes = Counter[str]()
        for nth in [*range(1, made.calls[route] + 1), None]:
            became = made.play(fault, route, nth)
            if became not in (RIGHT, RESUMED):
                wrong.append(f"{fault} at {route} {nth or 'always'}: {became}")
                became = "WRONG"
            if nth is not None:
                outcomes[became] += 1
        told = "+".join(str(outcomes[each]) for each in (RIGHT, RESUMED, "WRONG") if outcomes[each] or each == RIGHT)
        cells.append(f"{told} / {became}")
    return f"| {route} | {made.calls[route]} | {' | '.join(cells)} |"


def main(source: str, *routes: str) -> int:
    """Play faults at all calls, or at those of some routes, and print the table; 1 when something is wrong."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = resources.files("publish") / "samples" / "pythia-tiny-seed1234.tar.xz"
        with resources.as_file(archive) as path, tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
        with campaign(folder / "pythia-tiny-seed1234", folder, on_hub=source == "hub") as made:
            print(f"| call | number | {' | '.join(FAULTS)} |\n|---|---|{'---|' * len(FAULTS)}", flush=True)
            for route in routes or made.calls:
                print(row(made, route, wrong), flush=True)
            print(f"\n{made.runs} releases.")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
