"""From a job and a converted step to the manifest that leaves with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from publish import __version__
from publish.card.details import Sizes
from publish.convert.hfconfig import hf_config, plain
from publish.convert.recipes import ConversionPlan
from publish.hub.manifest import (
    ComparisonRecord,
    Converter,
    FileRecord,
    GateRecord,
    Manifest,
    Source,
    SourceFile,
    Tensors,
    Training,
)
from publish.neox.checkpoint import RawCheckpoint
from publish.run.job import Job
from publish.source.checkpoints import CheckpointSource, HubRun
from publish.verify.gate import GateResult

_EMBEDDINGS = ("embed_in.weight", "embed_out.weight", "embed_tokens.weight", "lm_head.weight")


def source_name(job: Job) -> str:
    """The source as the world sees it: a repo's name, or a folder's without the machine's path to it."""
    return job.run.where if isinstance(job.run, HubRun) else Path(job.run.where).resolve().name


def tokens_at(job: Job, step: int) -> int | None:
    """Tokens seen by ``step``, where the config tells how many a step sees."""
    return None if job.tokens_per_step is None else job.tokens_per_step * step


def sizes_of(job: Job, plan: ConversionPlan) -> Sizes:
    """What the details table takes from the plan."""
    embeddings = sum(recipe.elements for recipe in plan.recipes if recipe.name.endswith(_EMBEDDINGS))
    tensor_parallel = 1 + max(part.rank for recipe in plan.recipes for part in recipe.parts)
    return Sizes(
        architecture={"gpt_neox": "GPT-NeoX", "llama": "Llama", "mistral": "Mistral"}[plan.architecture],
        dtype=plan.dtype,
        parameters=plan.parameters,
        embedding_parameters=embeddings,
        vocabulary=plan.vocabulary,
        tensor_parallel=tensor_parallel,
        tokens_per_step=job.tokens_per_step,
        data_parallel=job.data_parallel,
    )


def weight_files(checkpoint: RawCheckpoint) -> tuple[str, ...]:
    """The source files that hold weights, in order."""
    return tuple(dict.fromkeys(tensor.file for rank in checkpoint.ranks for tensor in rank.values()))


def step_manifest(
    job: Job,
    source: CheckpointSource,
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    files: Sequence[FileRecord],
    results: Sequence[GateResult],
    *,
    tensors_digest: str,
    tokenizer: str | None,
    statistics: Mapping[str, Any],
    comparisons: tuple[ComparisonRecord, ...],
) -> Manifest:
    """The manifest of a step's branch; ``files`` are all its files but card and manifest."""
    names, own = weight_files(checkpoint), hf_config(plain(plan), None, None)
    return Manifest(
        step=source.step,
        branch=f"step{source.step}",
        tokens=tokens_at(job, source.step),
        source=Source(
            location=source_name(job),
            repo=job.run.where if source.commit and not source.commit.startswith("index:") else None,
            commit=source.commit,
            files=tuple(
                SourceFile(name, checkpoint.files.sizes[name], oid=checkpoint.files.digest(name)) for name in names
            ),
        ),
        plan=plan.digest,
        converter=Converter("publish", __version__),
        files=tuple(files),
        dtype=plan.dtype,
        architecture=plan.architecture,
        parameters=plan.parameters,
        tensors=Tensors(len(plan.recipes), tensors_digest),
        gates=tuple(GateRecord(each.name, each.outcome, each.detail, dict(each.figures)) for each in results),
        training=training_record(checkpoint),
        tokenizer=tokenizer,
        statistics=statistics,
        comparisons=comparisons,
        source_dtype=plan.source_dtype,
        overrides={key: {"value": value, "instead_of": own[key]} for key, value in plan.overrides},
    )


def training_record(checkpoint: RawCheckpoint) -> Training:
    """What ``publish.json`` keeps of the checkpoint's state."""
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
