"""Run every benchmark and write docs/benchmarks.md. Takes a quarter of an hour and 10 GB of disk.

Usage: python scripts/bench/report.py [WORK_FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEAD = """\
# Benchmarks

Written by `python scripts/bench/report.py` on an otherwise idle machine with {cores} cores. Both sides of a ratio take
turns in one run, so ratios hold on other machines; seconds do not.
"""
SECTIONS = (
    ("Conversion compared with its floor", "convert.py", True),
    ("A release compared with huggingface_hub", "release.py", False),
    ("A source on a Hub", "remote.py", False),
    ("Memory", "memory.py", True),
    ("Comparing two models", "compare.py", True),
    ("Auditing a suite", "audit.py", False),
    ("Start-up", "startup.py", False),
)


def about(script: str) -> str:
    """What a script's docstring says after its usage."""
    text = (HERE / script).read_text("utf-8").split('"""')[1]
    first, _, *rest = text.strip().split("\n\n")
    return "\n\n".join([first, *rest])


def main(work: list[str]) -> None:
    for folder in work:
        Path(folder).mkdir(parents=True, exist_ok=True)
    parts = [HEAD.format(cores=len(os.sched_getaffinity(0)))]
    for title, script, takes_folder in SECTIONS:
        command = [sys.executable, str(HERE / script), *(work if takes_folder else [])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        parts.append(f"## {title}\n\n{about(script)}\n\n{done.stdout.strip()}\n")
        print(done.stdout, flush=True)
    (HERE.parents[1] / "docs" / "benchmarks.md").write_text("\n".join(parts), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:2])
