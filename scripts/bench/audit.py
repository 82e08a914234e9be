"""An audit of a published suite, compared with only listing the same branches.

Usage: python scripts/bench/audit.py

The sample release, 154 branches, is on a rehearsal Hub. ``publish audit`` reads refs, trees, configs, cards, manifests
and headers, and checks them; the listing is a loop with huggingface_hub over the refs and the tree of each branch. Each
runs three times, in turn, in a separate process, imports included; the second audit finds the answers of the first in
its cache. Requests and bytes are what the audit reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from release import OURS, TARGET, samples

from publish.rehearsal.server import RehearsalHub

LISTING = """
from huggingface_hub import HfApi
api = HfApi()
for branch in api.list_repo_refs("alice/bench").branches:
    list(api.list_repo_tree("alice/bench", revision=branch.target_commit, recursive=True))
"""


def timed(code: str, environment: dict[str, str], *arguments: str) -> tuple[float, str]:
    """Seconds of the process, and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - begin, done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        run = samples(work)
        with RehearsalHub(work / "hub", api_quota=10**9, resolver_quota=10**9, enforce_quota=False) as hub:
            environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(work / "home")}
            timed(OURS, environment, "all-steps", str(run), TARGET, "--work-dir", str(work / "work"), "--json")
            first, again, listing, printed = [], [], [], ""
            for turn in range(3):
                own = {**environment, "HF_HOME": str(work / f"home{turn}")}
                seconds, printed = timed(OURS, own, "audit", TARGET, "--json")
                first.append(seconds)
                again.append(timed(OURS, own, "audit", TARGET, "--json")[0])
                listing.append(timed(LISTING, own)[0])
        document = json.loads(printed)
        ratio = median(one / other for one, other in zip(first, listing, strict=True))
        print("| branches | requests | MB | audit, s | again, s | listing, s | audit / listing |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        cells = f"{document['branches']} | {document['requests']} | {document['bytes_downloaded'] / 1e6:.1f}"
        print(f"| {cells} | {median(first):.1f} | {median(again):.1f} | {median(listing):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
