"""One step, whole: open, plan, convert, prove, describe, push. It names its own inputs and can run anywhere."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from publish.card.render import render_step
from publish.compare.neox_side import account_of
from publish.compare.sketch import Sketcher, StepSketch
from publish.convert.folder import Converted, convert
from publish.convert.recipes import ConversionPlan
from publish.hub import manifest as manifests
from publish.hub.branchfile import BranchFile
from publish.hub.manifest import FileRecord, Manifest
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.run.cardfacts import README, run_facts, step_facts, with_card
from publish.run.claims import check_same_run, check_step, claims
from publish.run.comparisons import comparisons_of
from publish.run.explain import explanation_of
from publish.run.facts import step_manifest
from publish.run.job import Job, plan_of
from publish.run.lineage import statistics_of
from publish.run.prove import prove
from publish.run.stopping import StoppingFiles
from publish.source.checkpoints import CheckpointSource
from publish.verify.gate import GateResult, require
from publish.verify.gates import Evidence


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


def make_step(
    job: Job, source: CheckpointSource, work: Path, *, logits: str, tokenizer: str | None, stop: threading.Event
) -> ProvenStep:
    """Convert and prove one step into ``work``; nothing is pushed.

    ``logits``: ``all``, ``off``, or ``changed`` (first and last step, and where plan or config differ from the job's).
    ``tokenizer`` is the fingerprint of the job's.

    Raises:
        GateError: a gate found something. PublishError: as the stages do. Interrupted: ``stop`` was set.
        Nothing is left behind.
    """
    files = StoppingFiles(job.run.open(source), stop)
    folder = work / f"step{source.step}"
    try:
        checkpoint = RawCheckpoint.open(files)
        config = read_config(checkpoint)
        check_same_run(job.config, config)
        plan = plan_of(job.release, checkpoint, config)
        check_step(source, checkpoint, must_say=True)
        checkpoint.want()
        sketcher = Sketcher(plan)
        converted = convert(checkpoint, plan, job.tokenizer, folder, overwrite=True, observer=sketcher)
        bytes_read = files.bytes_read  # gates may look at a weight again; that is no other byte
        results = _proven(job, source, checkpoint, config, plan, converted, sketcher, logits)
        made = _Made(source, checkpoint, config, plan, converted, sketcher.result(), results)
        return _described(job, made, tokenizer, bytes_read)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        files.close()


def _proven(
    job: Job,
    source: CheckpointSource,
    checkpoint: RawCheckpoint,
    config: NeoxConfig,
    plan: ConversionPlan,
    converted: Converted,
    sketcher: Sketcher,
    logits: str,
) -> tuple[GateResult, ...]:
    ends = source.step in (job.steps[0], job.steps[-1])
    changed = plan.digest != job.plan.digest or config.options != job.config.options
    evidence = Evidence(
        checkpoint,
        config,
        plan,
        converted.folder,
        converted.written,
        source.step,
        counts=sketcher.counts,
        vocabulary=job.tokenizer.ids if job.tokenizer else None,
    )
    results = prove(
        evidence,
        with_logits=logits == "all" or (logits == "changed" and (ends or changed)),
        why_not="same plan and config as the first step" if logits == "changed" else "turned off",
    )
    results = (*results, claims(job.release, config, plan, source.step))
    require(results, checkpoint.where)
    return results


@dataclass(frozen=True)
class _Made:
    """All that is known of a step once its gates have passed."""

    source: CheckpointSource
    checkpoint: RawCheckpoint
    config: NeoxConfig
    plan: ConversionPlan
    converted: Converted
    sketch: StepSketch
    results: Sequence[GateResult]


def _described(job: Job, made: _Made, tokenizer: str | None, bytes_read: int) -> ProvenStep:
    written, folder = made.converted.written, made.converted.folder
    account = partial(account_of, made.checkpoint, made.config, made.plan)
    records = [FileRecord(file.path, file.size, file.sha256) for file in written.files]
    digest = hashlib.sha256("".join(f"{each.name} {each.xxh3}\n" for each in written.tensors).encode()).hexdigest()
    manifest = step_manifest(
        job,
        made.source,
        made.checkpoint,
        made.plan,
        records,
        made.results,
        tensors_digest=digest,
        tokenizer=tokenizer,
        statistics=statistics_of(made.sketch),
        explanation=explanation_of(made.checkpoint, made.source),
        comparisons=comparisons_of(job, made.source.step, folder, account),
    )
    card = render_step(step_facts(job.release, run_facts(job), job.steps, manifest, hub=job.hub), job.templates)
    readme = BranchFile.of_bytes(README, card.encode())
    manifest = with_card(manifest, readme)
    small = BranchFile.of_bytes(manifests.NAME, manifest.to_bytes())
    large = [BranchFile(each.path, folder / each.path, each.size, each.sha256) for each in written.files]
    return ProvenStep(
        step=made.source.step,
        folder=folder,
        files=(*large, readme, small),
        manifest=manifest,
        fingerprint=made.checkpoint.fingerprint,
        sketch=made.sketch,
        bytes_read=bytes_read,
    )
