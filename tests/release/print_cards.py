"""Release a run onto a Hub of its own and print its cards.

python -m tests.release.print_cards RUN ROOT WORKERS TIME
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from tests.release.releases import FEW, TARGET, run_release


def main(run: str, root: Path, workers: int) -> None:
    with RehearsalHub(root, api_quota=10**6, resolver_quota=10**6) as hub:
        client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=root, commits_per_hour=10**6)
        assert not run_release(run, client, root, workers=workers, verify_logits="off").failed
        api = HfApi(endpoint=hub.url, token=False)
        for branch in ("main", *(f"step{step}" for step in FEW)):
            print(Path(api.hf_hub_download(TARGET, "README.md", revision=branch)).read_text("utf-8"))


if __name__ == "__main__":
    now = float(sys.argv[4])
    time.time = lambda: now
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
