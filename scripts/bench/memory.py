"""Peak memory of one conversion against the model's size: synthetic pipeline checkpoints, tensor parallel, fp16.

Usage: python scripts/bench/memory.py [WORK_FOLDER [MODEL:RANKS...]]; by default 14M:2 410M:2 1.4B:2

The script writes each model in GPT-NeoX's pipeline layout, converts it with ``publish convert`` in a separate process,
and removes it. The peak is that of the resident memory of the whole process. Models beyond 5 GB are converted without
logits only, since two passes of a 12B model take a CPU a quarter of an hour.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from models import SHAPES, write

DEFAULT = ("14M:2", "410M:2", "1.4B:2")
SMALL = 5e9  # bytes


def measure(folder: Path, *options: str) -> tuple[float, float]:
    """Peak resident megabytes and seconds of one conversion in a process of its own."""
    out = folder.with_name("out")
    code = (
        "import resource, sys\nfrom publish.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", str(folder), "--out", str(out), "--tokenizer", "none", *options]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = time.perf_counter() - begin
    shutil.rmtree(out)
    return int(done.stderr.split()[-1]) / 1024, taken


def main(work: Path, models: Sequence[str]) -> None:
    print("| model | weights MB | largest tensor MB | peak MB | peak MB without logits | seconds without logits |")
    print("|---|---:|---:|---:|---:|---:|")
    for model in models:
        name, _, ranks = model.partition(":")
        folder = work / "global_step0"
        # in a process of its own: a child's peak counts what its parent had in memory when it forked
        subprocess.run([sys.executable, __file__, "write", str(folder), name, ranks], check=True)
        weights = sum(path.stat().st_size for path in folder.glob("layer_*"))
        whole = f"{measure(folder)[0]:.0f}" if weights < SMALL else "-"
        plain, seconds = measure(folder, "--verify-logits", "off")
        largest = SHAPES[name].largest_bytes / 1e6
        cells = f"{name}, TP {ranks} | {weights / 1e6:,.1f} | {largest:,.1f} | {whole} | {plain:.0f} | {seconds:.1f}"
        print(f"| {cells} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), SHAPES[sys.argv[3]], ranks=int(sys.argv[4]))
        sys.exit()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        main(Path(place), sys.argv[2:] or DEFAULT)
