"""A conversion compared with its floor: a loop that reads the weight bytes with pread, hashes them with SHA-256, and
writes them. Both run in one process, and imports are not counted.

Usage: python scripts/bench/convert.py [WORK_FOLDER [MODEL...]]

Floor and conversion take turns, step by step. A ratio is the median over the steps, with its quartiles. ``weights`` is
the conversion alone; ``verified`` adds everything that a step of a release needs except logits and upload (gates,
sketch, card, manifest); ``logits`` adds the logits gate, which a release runs on its first and last step, and wherever
plan or config change. ``two threads`` is ``verified`` for two steps at once: the seconds of all steps divided by those
of all floors.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from models import SHAPES, VOCABULARY, Shape, write

from publish.convert.folder import write_folder
from publish.convert.plan import ConversionPlan, make_plan
from publish.interrupt import Stop
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.release.job import make_job
from publish.release.step import VerifiedBranch, make_step
from publish.release_file import CardMetadata, Release
from publish.sources.files import LocalFiles
from publish.sources.runs import CheckpointRef

CHUNK = 2 << 20
USUAL = 5.1  # seconds of the usual converter for one 14M step, a process a step, as measured for this project


def pieces(plan: ConversionPlan) -> Iterator[tuple[str, int, int]]:
    """(file, offset, length) of every tensor that the plan reads."""
    for recipe in plan.recipes:
        for part in recipe.slices:
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


@dataclass(frozen=True)
class Taken:
    """Seconds of every step by way, and of all of them in two threads."""

    ways: Mapping[str, list[float]]
    together: float

    def ratios(self, way: str) -> list[float]:
        return [mine / floor for mine, floor in zip(self.ways[way], self.ways["floor"], strict=True)]


def measure(work: Path, shape: Shape, steps: int, ranks: int) -> Taken:
    run = work / f"run-{shape.name}"
    for step in range(1, steps + 1):  # no step 0: its initialisation would be explained, once a release
        write(run / f"global_step{step}", shape, ranks=ranks, step=step, seed=step)
    schedule = tuple(range(1, steps + 1))
    job = make_job(Release(str(run), "bench/bench", CardMetadata("bench"), schedule), tokenizer="none")
    sources = [job.run.steps[step] for step in job.steps]

    def verified(ref: CheckpointRef, logits: str = "off") -> None:
        for branch in make_step(replace(job, verify_logits=logits), ref, work / f"verified-{ref.name}", Stop()):
            assert isinstance(branch, VerifiedBranch), branch

    def clean() -> None:  # not part of a measurement
        for path in work.iterdir():
            if path != run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    verified(sources[0], "all")  # imports torch, builds the model
    clean()
    taken: dict[str, list[float]] = {"floor": [], "weights": [], "verified": [], "logits": []}
    for number, source in enumerate(sources):
        folder = run / source.name
        checkpoint = RawCheckpoint.open(LocalFiles(folder))
        ranges = list(pieces(make_plan(checkpoint, read_config(checkpoint))))
        ways: dict[str, Callable[[], object]] = {
            "floor": partial(floor, folder, ranges, work / "floor.bin"),
            "weights": partial(plain, folder, work / "out"),
            "verified": partial(verified, source),
            "logits": partial(verified, source, "all"),
        }
        for name in [*list(ways)[number % 4 :], *list(ways)[: number % 4]]:
            taken[name].append(seconds(ways[name]))
            clean()
    with ThreadPoolExecutor(2) as pool:
        together = seconds(lambda: list(pool.map(verified, sources)))
    shutil.rmtree(run)
    return Taken(taken, together)


def plain(folder: Path, out: Path) -> None:
    checkpoint = RawCheckpoint.open(LocalFiles(folder))
    write_folder(checkpoint, make_plan(checkpoint, read_config(checkpoint)), None, out)


def main(work: Path, models: list[str]) -> None:
    print("| model | steps | weights MB | floor s | weights/floor | verified/floor | two threads | logits/floor |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    after = []
    for title, name, steps, ranks in (("14M", "14M", 20, 1), ("1.4B", "1.4B", 4, 1), ("1.4B, TP 2", "1.4B", 4, 2)):
        if models and title not in models:
            continue
        taken = measure(work, SHAPES[name], steps, ranks)
        weights, verified, logits = (quartiles(taken.ratios(way)) for way in ("weights", "verified", "logits"))
        together = f"{taken.together / sum(taken.ways['floor']):.2f}"
        cells = [title, steps, f"{weight_megabytes(SHAPES[name]):,.1f}", f"{median(taken.ways['floor']):.3f}"]
        print("|", " | ".join(map(str, [*cells, weights, verified, together, logits])), "|", flush=True)
        if name == "14M":
            whole = 154 / steps * taken.together + 2 * median(taken.ways["logits"])
            usual = 154 * USUAL
            after.append(
                f"154 steps of 14M with all gates, in two threads: {whole:.1f} s. The usual converter, one process per "
                f"step: {usual:.0f} s, {usual / whole:.0f} times as long."
            )
    print("\n" + "\n".join(after))


def quartiles(ratios: list[float]) -> str:
    low, _, high = quantiles(ratios)
    return f"{median(ratios):.2f} ({low:.2f} to {high:.2f})"


def weight_megabytes(shape: Shape) -> float:
    layer = 12 * shape.hidden**2 + 13 * shape.hidden
    return 2 * (shape.layers * layer + 2 * VOCABULARY * shape.hidden + 2 * shape.hidden) / 1e6


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        main(Path(place), sys.argv[2:])
