"""Releases in processes of their own, as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi

from publish.rehearsal.server import RehearsalHub
from tests.release.releases import TARGET

CODE = (  # a shell's background jobs ignore Ctrl-C, and their children with them
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom publish.cli import main; main()"
)


def start(
    url: str,
    run: Path | str,
    work: Path,
    *options: str,
    target: str = TARGET,
    token: str = "hf_alice",
    code: str = CODE,
    **env: str,
) -> subprocess.Popen[str]:
    """``publish all-steps RUN alice/tiny``."""
    arguments = ["all-steps", str(run), target, "--work-dir", str(work), *options]
    everything = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": token, **env}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=everything, stdout=pipe, stderr=pipe, text=True)


def commits_of(hub: RehearsalHub) -> dict[str, int]:
    """Branch -> commits in its history, the repo's first included."""
    api = HfApi(endpoint=hub.url, token=False)
    branches = [branch.name for branch in api.list_repo_refs(TARGET).branches]
    return {branch: len(api.list_repo_commits(TARGET, revision=branch)) for branch in branches}
