"""One step, from its checkpoint to the branches that publish it. Runs in a thread here and in a task of a cluster."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from publish.cards.facts import StepFacts
from publish.cards.render import render_step
from publish.compare.model import provenance_of
from publish.errors import PublishError
from publish.explain.explain import explanation_of
from publish.hub.branch_files import BranchFile
from publish.interrupt import Interrupted
from publish.lineage.sketch import StepSketch
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.records import manifest as manifests
from publish.records.files import README
from publish.records.gates import Gate, require
from publish.records.manifest import Manifest
from publish.release.claims import check_same_run, check_step, claims
from publish.release.comparisons import comparisons_of
from publish.release.conversion import Checks, Converted, convert_and_verify
from publish.release.facts import run_facts, step_manifest, with_card
from publish.release.job import Job, plan_of
from publish.release.outcome import Failure
from publish.schedule import branch_of
from publish.sources.runs import CheckpointRef


@dataclass(frozen=True)
class VerifiedBranch:
    """A branch whose content passed every gate, not yet pushed. Its files lie in ``folder`` or in memory.

    Whoever takes it closes it exactly once. That puts it on ``released``, from where the executor that made it frees
    the folder and begins the next step.
    """

    repo: str
    name: str
    step: int
    folder: Path
    files: tuple[BranchFile, ...]
    manifest: Manifest
    fingerprint: str
    sketch: StepSketch
    bytes_read: int
    released: SimpleQueue[Any] = field(default_factory=SimpleQueue, compare=False, repr=False)

    def close(self) -> None:
        """The files are no longer needed."""
        self.released.put(self)


def make_step(job: Job, ref: CheckpointRef, folder: Path, stop: threading.Event) -> Iterator[VerifiedBranch | Failure]:
    """Convert and verify one step in the new folder ``folder``: a verified branch for each publication, or a failure.

    Nothing is pushed. The caller removes ``folder``.

    Raises:
        Interrupted: ``stop`` was set.
    """
    assert ref.step is not None
    try:
        files = job.run.open(ref)
        try:
            yield _make_model(job, ref, RawCheckpoint.open(files), folder, stop)
        finally:
            files.close()
    except Interrupted:
        raise
    except PublishError as error:
        yield Failure.of(branch_of(ref.step), ref.step, error)


def _make_model(
    job: Job, ref: CheckpointRef, checkpoint: RawCheckpoint, folder: Path, stop: threading.Event
) -> VerifiedBranch:
    assert ref.step is not None
    config = read_config(checkpoint)
    check_same_run(job.config, config)
    plan = plan_of(job.release, checkpoint, config)
    check_step(ref, checkpoint, must_say=True)
    checks = _checks(job, ref.step, config, plan.digest)
    converted = convert_and_verify(
        checkpoint, config, plan, job.tokenizer, folder, step=ref.step, checks=checks, stop=stop
    )
    gates = (*converted.gates, claims(job.release, config, plan, ref.step))
    require(gates, checkpoint.where)
    manifest = _manifest(job, ref, checkpoint, converted, gates, folder)
    card = render_step(StepFacts(job.release, run_facts(job), job.steps, manifest, job.hub), job.templates)
    readme = BranchFile.of_bytes(README, card.encode())
    manifest = with_card(manifest, readme)
    written = (BranchFile(file.path, folder / file.path, file.size, file.sha256) for file in converted.written.files)
    return VerifiedBranch(
        repo=job.model.repo,
        name=manifest.branch,
        step=ref.step,
        folder=folder,
        files=(*written, readme, BranchFile.of_bytes(manifests.NAME, manifest.to_bytes())),
        manifest=manifest,
        fingerprint=checkpoint.fingerprint,
        sketch=converted.sketch,
        bytes_read=converted.bytes_read,
    )


def _checks(job: Job, step: int, config: NeoxConfig, plan: str) -> Checks:
    """Logits cost most of a step: by default the first and the last step are asked, and where plan or config differ."""
    changed = plan != job.plan.digest or config.options != job.config.options
    first_or_last = step in (job.steps[0], job.steps[-1])
    logits = job.verify_logits == "all" or (job.verify_logits == "changed" and (changed or first_or_last))
    return Checks(logits, "same plan and config as the first step" if job.verify_logits == "changed" else "turned off")


def _manifest(
    job: Job, ref: CheckpointRef, checkpoint: RawCheckpoint, converted: Converted, gates: Sequence[Gate], folder: Path
) -> Manifest:
    assert ref.step is not None
    tensors = "".join(f"{tensor.name} {tensor.xxh3}\n" for tensor in converted.written.tensors)
    return step_manifest(
        job,
        ref,
        checkpoint,
        converted.plan,
        converted.written.files,
        gates,
        tensors_digest=hashlib.sha256(tensors.encode()).hexdigest(),
        tokenizer=job.tokenizer.fingerprint() if job.tokenizer else None,
        sketch=converted.sketch,
        explanation=explanation_of(checkpoint, ref) if ref.step == 0 else None,
        comparisons=comparisons_of(
            job, ref.step, folder, partial(provenance_of, checkpoint, converted.config, converted.plan)
        ),
    )
