"""All of ``hostile.BOMBS``, one by one, under the audit hook: ``python -m tests.formats.bombs`` prints JSON."""

from __future__ import annotations

import json

from tests.formats.fuzz import peak_mb, watch
from tests.formats.hostile import BOMBS

NAME = "mp_rank_00_model_states.pt"


def main() -> dict[str, object]:
    """By bomb: whether it was refused, its seconds, and the memory it added in MB; then what the audit hook saw."""
    seen, examined = watch()
    results = {}
    for name, make in BOMBS.items():
        data = make()
        before = peak_mb()
        refused, seconds = examined({NAME: data})
        results[name] = {"refused": refused, "seconds": round(seconds, 3), "mb": peak_mb() - before}
    return {"bombs": results, "audit": sorted(seen)}


if __name__ == "__main__":
    print(json.dumps(main()))
