"""From a job and a converted step to the manifest of the step's branch, and to the facts of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from publish import __version__
from publish.cards.facts import HUB
from publish.convert.hfconfig import hf_config, without_overrides
from publish.convert.plan import ConversionPlan
from publish.hub.branch_files import BranchFile
from publish.hub.endpoint import Endpoint
from publish.lineage.sketch import StepSketch, document
from publish.neox.checkpoint import RawCheckpoint
from publish.records.files import README, FileRecord
from publish.records.gates import Gate
from publish.records.manifest import (
    ComparisonRecord,
    ConfigOverride,
    Converter,
    Explanation,
    Manifest,
    Source,
    SourceFile,
    Tensors,
    Training,
)
from publish.records.run import RunFacts, Sizes, config_facts
from publish.release.job import Job
from publish.release.statistics import layer_types
from publish.schedule import branch_of
from publish.sources.runs import CheckpointRef

_EMBEDDINGS = ("embed_in.weight", "embed_out.weight", "embed_tokens.weight", "lm_head.weight")


def step_manifest(
    job: Job,
    source: CheckpointRef,
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    files: Sequence[FileRecord],
    gates: Sequence[Gate],
    *,
    tensors_digest: str,
    tokenizer: str | None,
    sketch: StepSketch,
    comparisons: tuple[ComparisonRecord, ...],
    explanation: Explanation | None,
) -> Manifest:
    """The manifest of a step's branch; ``files`` are all its files except card and manifest."""
    assert source.step is not None
    weight_files = dict.fromkeys(tensor.file for rank in checkpoint.ranks for tensor in rank.values())
    own = hf_config(without_overrides(plan), None, None)
    return Manifest(
        step=source.step,
        branch=branch_of(source.step),
        tokens=None if job.tokens_per_step is None else job.tokens_per_step * source.step,
        source=Source(
            location=source_name(job),
            commit=source.commit,
            files=tuple(
                SourceFile(name, checkpoint.files.sizes[name], checkpoint.files.digest(name)) for name in weight_files
            ),
        ),
        plan=plan.digest,
        converter=Converter("publish", __version__),
        files=tuple(files),
        dtype=plan.dtype,
        source_dtype=plan.source_dtype,
        architecture=plan.architecture,
        parameters=plan.parameters,
        tensors=Tensors(len(plan.recipes), tensors_digest),
        gates=tuple(gates),
        training=_training(checkpoint),
        tokenizer=tokenizer,
        layer_types=layer_types(sketch),
        sketch=document(sketch),
        overrides=tuple(ConfigOverride(key, value, own[key]) for key, value in plan.overrides),
        comparisons=comparisons,
        explanation=explanation,
    )


def source_name(job: Job) -> str:
    """The source as a reader can know it: a repo's name, or a folder's without this machine's path to it."""
    return job.run.where if job.run.on_hub else Path(job.run.where).resolve().name


def _training(checkpoint: RawCheckpoint) -> Training:
    state = checkpoint.state
    return Training(
        iteration=state.iteration,
        learning_rate=state.learning_rate,
        loss_scale=state.loss_scale,
        skipped_steps=state.skipped_steps,
        deepspeed_version=state.deepspeed_version,
        tensor_parallel=checkpoint.tensor_parallel,
        pipeline_parallel=checkpoint.pipeline_parallel,
        data_parallel=state.data_parallel,
        random_states=state.random_states,
    )


def with_card(manifest: Manifest, card: BranchFile) -> Manifest:
    """``manifest`` with this card among its files, in place of any other."""
    others = [file for file in manifest.files if file.path != README]
    record = FileRecord(README, card.size, card.sha256)
    return replace(manifest, files=tuple(sorted([*others, record], key=lambda file: file.path)))


def run_facts(job: Job) -> RunFacts:
    """What the job knows of the whole run."""
    plan = job.plan
    sizes = Sizes(
        architecture=plan.architecture,
        dtype=plan.dtype,
        parameters=plan.parameters,
        embedding_parameters=sum(r.elements for r in plan.recipes if r.name.endswith(_EMBEDDINGS)),
        vocabulary=plan.vocabulary,
        tokens_per_step=job.tokens_per_step,
        data_parallel=job.data_parallel,
    )
    return RunFacts(config_facts(job.config.options), sizes, plan.notes)


def hub_address(endpoint: Endpoint) -> str:
    """Where links in cards lead: a rehearsal writes the same cards as a release on the Hub."""
    return HUB if endpoint.loopback else endpoint.url
