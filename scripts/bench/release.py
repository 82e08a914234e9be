"""A release of the sample run to a rehearsal Hub, compared with huggingface_hub committing the same finished folders.

Usage: python scripts/bench/release.py [STEPS]

Each runs three times, in turn, in a separate process, to a fresh Hub. ``publish all-steps`` starts from the raw
checkpoints: imports, reading, converting, verifying, cards, ``main``. The other side is a loop of ``create_branch`` and
``create_commit`` over folders that are already converted. huggingface_hub uploads by Xet, its default, or by LFS; this
tool uploads by LFS, except to huggingface.co. ``imports`` is a process that only imports what a release needs, torch
and transformers included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib import resources
from pathlib import Path
from statistics import median

from publish.rehearsal.server import RehearsalHub

TARGET = "alice/bench"
PLAIN = """
import sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, HfApi
api, root = HfApi(), Path(sys.argv[1])
api.create_repo("alice/bench")
first = api.list_repo_commits("alice/bench")[-1].commit_id
for folder in sorted(root.iterdir(), key=lambda each: int(each.name[4:])):
    operations = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir())]
    api.create_branch("alice/bench", branch=folder.name, revision=first)
    api.create_commit("alice/bench", operations, commit_message=folder.name, revision=folder.name)
"""
OURS = "from publish.cli import main; main()"
IMPORTS = (
    "import publish.cli.all_steps, huggingface_hub.hf_api, jinja2\n"
    "import matplotlib.backends.backend_svg, matplotlib.figure\n"
    "from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM"
)


def samples(folder: Path) -> Path:
    archive = resources.files("publish") / "samples" / "pythia-tiny-seed1234.tar.xz"
    with resources.as_file(archive) as path, tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    return folder / "pythia-tiny-seed1234"


def on_a_fresh_hub(work: Path, code: str, *arguments: str, xet: bool = True) -> float:
    """Seconds of the process. huggingface_hub uploads by Xet unless an environment variable turns that off."""
    root = work / "hub"
    with RehearsalHub(root, api_quota=10**9, resolver_quota=10**9, enforce_quota=False) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(work / "home")}
        environment |= {} if xet else {"HF_HUB_DISABLE_XET": "1"}
        taken = timed([sys.executable, "-c", code, *arguments], environment)
    shutil.rmtree(root)
    return taken


def importing(code: str) -> float:
    """Seconds of a process that only imports, the median of three."""
    return median(timed([sys.executable, "-c", code]) for _ in range(3))


def timed(command: list[str], environment: dict[str, str] | None = None) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.perf_counter() - begin


def ready_made(work: Path, run: Path, release: list[str]) -> Path:
    """The folders of a finished release, one for each step."""
    folders = work / "folders"
    code = (
        "import sys\nfrom pathlib import Path\nfrom huggingface_hub import snapshot_download\n"
        "for name in sys.argv[2:]:\n"
        "    snapshot_download('alice/bench', revision=name, local_dir=Path(sys.argv[1]) / name)"
    )
    steps = [f"step{path.name.removeprefix('global_step')}" for path in run.glob("global_step*")]
    with RehearsalHub(work / "hub", api_quota=10**9, resolver_quota=10**9, enforce_quota=False) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(work / "home")}
        subprocess.run([sys.executable, "-c", OURS, *release], check=True, env=environment, capture_output=True)
        subprocess.run(
            [sys.executable, "-c", code, str(folders), *steps], check=True, env=environment, capture_output=True
        )
    shutil.rmtree(work / "hub")
    for folder in folders.iterdir():
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        (folder / ".gitattributes").unlink()
    return folders


def main(steps: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        run = samples(work)
        for folder in sorted(run.glob("global_step*"), key=lambda each: int(each.name[11:]))[steps:]:
            shutil.rmtree(folder)
        release = ["all-steps", str(run), TARGET, "--work-dir", str(work / "work"), "--json"]
        folders = ready_made(work, run, release)
        ours: list[float] = []
        plain: dict[str, list[float]] = {"Xet": [], "LFS": []}
        for _ in range(3):
            shutil.rmtree(work / "work", ignore_errors=True)
            ours.append(on_a_fresh_hub(work, OURS, *release))
            for way, taken in plain.items():
                taken.append(on_a_fresh_hub(work, PLAIN, str(folders), xet=way == "Xet"))
        imports = importing(IMPORTS)
        print("| steps | imports, s | `publish all-steps`, s | `create_commit`, s | ratio |")
        print("|---:|---:|---:|---:|---:|")
        for way, taken in plain.items():
            ratio = median(one / other for one, other in zip(ours, taken, strict=True))
            print(f"| {steps} | {imports:.1f} | {median(ours):.1f} | {median(taken):.1f} by {way} | {ratio:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 154)
