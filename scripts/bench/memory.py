"""Peak memory of one conversion against the model's size: synthetic pipeline checkpoints at tensor parallel 2, fp16.

Usage: python scripts/bench/memory.py [WORK_FOLDER]

Each model is written by this script in GPT-NeoX's pipeline layout, converted by the command in a process of its own,
and removed. Printed: weights, largest tensor, peak resident memory of the whole process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from models import SHAPES, write

RANKS = 2


def measure(folder: Path, *options: str) -> float:
    """Peak resident megabytes of one conversion in a process of its own."""
    out = folder.with_name("out")
    code = (
        "import resource, sys\nfrom publish.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", str(folder), "--out", str(out), "--tokenizer", "none", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    return int(done.stderr.split()[-1]) / 1024


def main(work: Path) -> None:
    print(f"{'model':6} {'weights MB':>11} {'largest MB':>11} {'peak MB':>9} {'without logits':>15}")
    for name in ("14M", "410M", "1.4B"):
        folder = work / "global_step0"
        # in a process of its own: a child's peak counts what its parent had in memory when it forked
        subprocess.run([sys.executable, __file__, "write", str(folder), name], check=True)
        weights = sum(path.stat().st_size for path in folder.glob("layer_*")) / 1e6
        whole, plain = measure(folder), measure(folder, "--no-verify-logits")
        largest = SHAPES[name].largest_bytes / 1e6
        print(f"{name:6} {weights:11.1f} {largest:11.1f} {whole:9.0f} {plain:15.0f}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), SHAPES[sys.argv[3]], ranks=RANKS)
        sys.exit()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
