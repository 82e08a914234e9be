"""How often chance misleads `publish compare`: pairs of seeds of GPT-NeoX's initialisation at Pythia-14M's size.

Usage: python scripts/bench/verdicts.py [PAIRS]

Every pair is two new seeds. Printed: the verdicts, and how far the largest departures came to the limit. Then models
with one layer type off by 2 % and by 0.1 %, each against a true one.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.compare.models import Model, report, save

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


OFF = {
    "embedding": "embed_in",
    "QKV": "query_key_value",
    "attention dense": "attention.dense",
    "MLP up": "h_to_4h",
    "MLP down": "4h_to_h",
    "unembedding": "embed_out",
}
TRIES = 10


def compared(seeds: tuple[int, int], folder: Path, factors: dict[str, float] | None = None) -> tuple[str, float, str]:
    """Verdict, largest departure as a part of the limit, first reason."""
    left, right = folder / "left", folder / "right"
    save(left, Model().draw(seeds[0]))
    save(right, Model(factors=factors or {}).draw(seeds[1]))
    found = report(left, right)
    for path in (*left.iterdir(), *right.iterdir()):
        path.unlink()
    left.rmdir()
    right.rmdir()
    tests = found.tests
    worst = max(abs(z) for test in tests.tensors for z in (test.std_z, test.mean_z, test.correlation_z))
    return found.verdict.name, worst / tests.limit, found.reasons[0]


def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = [compared((2 * pair, 2 * pair + 1), folder) for pair in range(pairs)]
        print(dict(Counter(verdict for verdict, _, _ in results)))
        print(f"largest departure: {max(worst for _, worst, _ in results):.2f} of the limit")
        for kind, end in OFF.items():
            for factor in (1.02, 1.001):
                tries = [compared((9000 + t, 9500 + t), folder, {end: factor}) for t in range(TRIES)]
                named = sum(verdict == "different-init" and why.startswith(kind) for verdict, _, why in tries)
                print(f"{kind:16} {factor}: named in {named} of {TRIES}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
