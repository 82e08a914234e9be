"""One step, whole: open, plan, convert, prove, describe, push. It names its own inputs and can run anywhere."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from publish.cards.render import render_step
from publish.compare.side import account_of
from publish.convert.folder import write_folder
from publish.explain.explain import explanation_of
from publish.hub.branch_files import BranchFile
from publish.lineage.sketch import Sketcher, StepSketch
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.records import manifest as manifests
from publish.records.gates import Gate, require
from publish.records.manifest import Manifest
from publish.release.card_facts import README, run_facts, step_facts, step_manifest, with_card
from publish.release.claims import check_same_run, check_step, claims
from publish.release.comparisons import comparisons_of
from publish.release.job import Job, plan_of
from publish.release.lineage import statistics_of
from publish.sources.files import CheckpointFiles
from publish.sources.runs import CheckpointRef
from publish.verify.gates import Evidence, run_gates


@dataclass(frozen=True)
class ProvenStep:
    """A step that passed its gates: the files of its branch, not yet pushed."""

    step: int
    folder: Path
    files: tuple[BranchFile, ...]
    manifest: Manifest
    fingerprint: str
    sketch: StepSketch
    bytes_read: int

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class BegunStep:
    """A step that is converted, and passed over by every gate that needs no model. Its folder is on the disk.

    It owns that folder, and files that may be open: it ends by :meth:`finish` or :meth:`discard`.
    """

    job: Job
    source: CheckpointRef
    files: CheckpointFiles
    evidence: Evidence
    sketch: StepSketch
    stop: threading.Event
    logits: str
    bytes_read: int

    @property
    def step(self) -> int:
        assert self.source.step is not None
        return self.source.step

    @property
    def asks_for_logits(self) -> bool:
        """Whether ``logits``, the wish, means this step."""
        job, evidence = self.job, self.evidence
        ends = self.source.step in (job.steps[0], job.steps[-1])
        changed = evidence.plan.digest != job.plan.digest or evidence.config.options != job.config.options
        return self.logits == "all" or (self.logits == "changed" and (ends or changed))

    @property
    def reads_on(self) -> bool:
        """Whether the raw checkpoint will be looked at again."""
        step = self.source.step
        return self.asks_for_logits or step == 0 or any(each.step == step for each in self.job.release.compare)

    def finish(self, tokenizer: str | None) -> ProvenStep:
        """Ask the other gates, and describe what passed them all; ``tokenizer`` is the fingerprint of the job's.

        Raises:
            GateError: a gate found something. PublishError: as the stages do. Nothing is left behind.
        """
        try:
            return _described(self, _proven(self), tokenizer)
        except BaseException:
            self.discard()
            raise
        finally:
            self.files.close()

    def discard(self) -> None:
        """Close the files and remove the folder."""
        self.files.close()
        shutil.rmtree(self.evidence.folder, ignore_errors=True)


def make_step(
    job: Job, source: CheckpointRef, work: Path, *, logits: str, tokenizer: str | None, stop: threading.Event
) -> ProvenStep:
    """Convert and prove one step into ``work``; nothing is pushed.

    ``logits``: ``all``, ``off``, or ``changed`` (first and last step, and where plan or config differ from the job's).
    ``tokenizer`` is the fingerprint of the job's.

    Raises:
        GateError: a gate found something. PublishError: as the stages do. Interrupted: ``stop`` was set.
        Nothing is left behind.
    """
    return begin_step(job, source, work, logits=logits, stop=stop).finish(tokenizer)


def begin_step(job: Job, source: CheckpointRef, work: Path, *, logits: str, stop: threading.Event) -> BegunStep:
    """The first part of :func:`make_step`.

    Raises:
        PublishError: as the stages do. Interrupted: ``stop`` was set. Nothing is left behind.
    """
    files = job.run.open(source)
    folder = work / f"step{source.step}"
    try:
        checkpoint = RawCheckpoint.open(files)
        config = read_config(checkpoint)
        check_same_run(job.config, config)
        plan = plan_of(job.release, checkpoint, config)
        check_step(source, checkpoint, must_say=True)
        checkpoint.prefetch()
        sketcher = Sketcher(plan)
        shutil.rmtree(folder, ignore_errors=True)
        written = write_folder(checkpoint, plan, job.tokenizer, folder, sketcher, stop)
        bytes_read = files.bytes_read  # gates may look at a weight again; that is no other byte
        evidence = Evidence(
            checkpoint,
            config,
            plan,
            folder,
            written,
            source.step,
            counts=sketcher.counts,
            vocabulary=job.tokenizer.ids if job.tokenizer else None,
        )
        begun = BegunStep(job, source, files, evidence, sketcher.result(), stop, logits, bytes_read)
    except BaseException:
        files.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not begun.reads_on:
        files.close()
    return begun


def _proven(begun: BegunStep) -> tuple[Gate, ...]:
    evidence = begun.evidence
    why_not = "same plan and config as the first step" if begun.logits == "changed" else "turned off"
    results = (
        *run_gates(evidence, logits=begun.asks_for_logits, why_skipped=why_not, stop=begun.stop),
        claims(begun.job.release, evidence.config, evidence.plan, begun.step),
    )
    require(results, evidence.checkpoint.where)
    return results


def _described(begun: BegunStep, results: Sequence[Gate], tokenizer: str | None) -> ProvenStep:
    job, source, written, folder = begun.job, begun.source, begun.evidence.written, begun.evidence.folder
    checkpoint, config, plan = begun.evidence.checkpoint, begun.evidence.config, begun.evidence.plan
    explained = explanation_of(checkpoint, source) if source.step == 0 else None
    digest = hashlib.sha256("".join(f"{each.name} {each.xxh3}\n" for each in written.tensors).encode()).hexdigest()
    manifest = step_manifest(
        job,
        source,
        checkpoint,
        plan,
        written.files,
        results,
        tensors_digest=digest,
        tokenizer=tokenizer,
        statistics=statistics_of(begun.sketch),
        explanation=explained,
        comparisons=comparisons_of(job, begun.step, folder, partial(account_of, checkpoint, config, plan)),
    )
    card = render_step(step_facts(job.release, run_facts(job), job.steps, manifest, hub=job.hub), job.templates)
    readme = BranchFile.of_bytes(README, card.encode())
    manifest = with_card(manifest, readme)
    small = BranchFile.of_bytes(manifests.NAME, manifest.to_bytes())
    large = [BranchFile(each.path, folder / each.path, each.size, each.sha256) for each in written.files]
    return ProvenStep(
        step=begun.step,
        folder=folder,
        files=(*large, readme, small),
        manifest=manifest,
        fingerprint=checkpoint.fingerprint,
        sketch=begun.sketch,
        bytes_read=begun.bytes_read,
    )
