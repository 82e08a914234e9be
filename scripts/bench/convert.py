"""Conversion against its floor, in one process, imports apart: a plain loop that preads the weight bytes, takes their
SHA-256 and writes them.

Usage: python scripts/bench/convert.py [WORK_FOLDER]

Floor and conversion take turns, step by step; a ratio is the median over the steps, with its quartiles. ``weights`` is
the conversion without any gate, ``proven`` with those that every step of a release passes, ``logits`` with the
comparison of logits as well (a release does that at its first and its last step, and where plan or config change).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles

from models import SHAPES, Shape, write

from publish.convert.folder import convert
from publish.convert.plan import make_plan
from publish.convert.recipes import ConversionPlan
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.release import CardText, Release
from publish.run.job import Wishes, make_job
from publish.run.step import make_step
from publish.source.files import LocalFiles

CHUNK = 2 << 20
STOP = threading.Event()
USUAL = 5.1  # seconds of the usual converter for one 14M step, a process a step, as measured for this project


def pieces(checkpoint: RawCheckpoint, plan: ConversionPlan) -> Iterator[tuple[str, int, int]]:
    """(file, offset, length) of every tensor that the plan reads."""
    for recipe in plan.recipes:
        for part in recipe.parts:
            yield part.tensor.file, part.tensor.offset, part.tensor.nbytes


def floor(folder: Path, ranges: list[tuple[str, int, int]], out: Path) -> None:
    digest, descriptors = hashlib.sha256(), {}
    with out.open("wb") as target:
        for name, offset, length in ranges:
            if name not in descriptors:
                descriptors[name] = os.open(folder / name, os.O_RDONLY)
            for at in range(0, length, CHUNK):
                data = os.pread(descriptors[name], min(CHUNK, length - at), offset + at)
                digest.update(data)
                target.write(data)
    for descriptor in descriptors.values():
        os.close(descriptor)


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def rows(work: Path, shape: Shape, steps: int, ranks: int) -> dict[str, list[float]]:
    """Seconds of every step: the floor, and each way to convert."""
    run = work / f"run-{shape.name}"
    for step in range(steps):
        write(run / f"global_step{step}", shape, ranks=ranks, step=step, seed=step)
    job = make_job(Release(str(run), "bench/bench", CardText("bench"), tuple(range(steps))), Wishes(tokenizer="none"))
    taken: dict[str, list[float]] = {"floor": [], "weights": [], "proven": [], "logits": []}
    sources = [job.run.steps[step] for step in job.steps]
    make_step(job, sources[0], work, logits="all", tokenizer=None, stop=STOP).discard()  # imports, the model's skeleton
    for number, source in enumerate(sources):
        folder = run / source.name
        checkpoint = RawCheckpoint.open(LocalFiles(folder))
        plan = make_plan(checkpoint, read_config(checkpoint))
        ranges = list(pieces(checkpoint, plan))

        def plain(folder: Path = folder) -> None:
            checkpoint = RawCheckpoint.open(LocalFiles(folder))
            convert(checkpoint, make_plan(checkpoint, read_config(checkpoint)), None, work / "out", overwrite=True)

        ways: dict[str, Callable[[], object]] = {
            "floor": lambda folder=folder, ranges=ranges: floor(folder, ranges, work / "floor.bin"),
            "weights": plain,
            "proven": lambda source=source: make_step(
                job, source, work, logits="off", tokenizer=None, stop=STOP
            ).discard(),
            "logits": lambda source=source: make_step(
                job, source, work, logits="all", tokenizer=None, stop=STOP
            ).discard(),
        }
        order = list(ways)[number % 4 :] + list(ways)[: number % 4]
        for name in order:
            taken[name].append(seconds(ways[name]))
            shutil.rmtree(work / "out", ignore_errors=True)
            (work / "floor.bin").unlink(missing_ok=True)
    shutil.rmtree(run)
    return taken


def main(work: Path) -> None:
    print("| model | steps | weights MB | floor s | weights / floor | proven / floor | logits / floor |")
    print("|---|---|---|---|---|---|---|")
    for name, steps, ranks in (("14M", 20, 1), ("1.4B", 4, 1), ("1.4B", 4, 2)):
        taken = rows(work, SHAPES[name], steps, ranks)
        ratios = [
            [way / floor for way, floor in zip(taken[name], taken["floor"], strict=True)]
            for name in ("weights", "proven", "logits")
        ]
        shown = [f"{median(each):.2f} ({quantiles(each)[0]:.2f} to {quantiles(each)[2]:.2f})" for each in ratios]
        megabytes = _weights(SHAPES[name])
        title = name if ranks == 1 else f"{name}, TP {ranks}"
        print(
            f"| {title} | {steps} | {megabytes:,.1f} | {median(taken['floor']):.3f} | {' | '.join(shown)} |", flush=True
        )
        if name == "14M":
            whole = 154 * median(taken["proven"]) + 2 * median(taken["logits"])
            print(
                f"\n154 steps of 14M, one after another: {whole:.1f} s; the usual way {154 * USUAL:.0f} s, "
                f"{154 * USUAL / whole:.0f} x\n"
            )


def _weights(shape: Shape) -> float:
    layer = 12 * shape.hidden**2 + 13 * shape.hidden
    return 2 * (shape.layers * layer + 2 * 50_432 * shape.hidden + 2 * shape.hidden) / 1e6


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        main(Path(place))
