"""Seconds of a command that does not need torch, from start to end: the best of ten processes.

Usage: python scripts/bench/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from release import OURS, samples


def best(*arguments: str) -> float:
    taken = []
    for _ in range(10):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", OURS, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def main(work: Path) -> None:
    run = str(samples(work))
    print("| command | seconds |\n|---|---:|")
    print(f"| `publish --help` | {best('--help'):.3f} |")
    print(f"| `publish schedule FOLDER --names-only`, 154 steps | {best('schedule', run, '--names-only'):.3f} |")
    print(f"| `publish schedule FOLDER`, 154 steps | {best('schedule', run):.3f} |")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
