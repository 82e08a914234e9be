"""From a job and a converted step to the records that leave: manifest and card facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from publish import __version__
from publish.card.facts import Deviation, Fact, FileFact, Gate, Sizes, StepFacts, StepLine, SuiteFacts, Text, details
from publish.convert.hfconfig import hf_config, plain
from publish.convert.recipes import ConversionPlan
from publish.hub.checkpoints import CheckpointRecord
from publish.hub.manifest import Converter, FileRecord, GateRecord, Manifest, Source, SourceFile, Tensors, Training
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.state import TrainingState
from publish.run.job import Job
from publish.source.checkpoints import CheckpointSource, HubRun
from publish.verify.gate import GateResult

CONVERTER = f"publish {__version__}"
_EMBEDDINGS = ("embed_in.weight", "embed_out.weight", "embed_tokens.weight", "lm_head.weight")


def text_of(job: Job) -> Text:
    """What the maintainer says."""
    card = job.release.card
    return Text(card.title, card.license, card.language, card.datasets, card.tags, card.papers, card.notes)


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
    )


def training_facts(state: TrainingState, tokens: int | None) -> tuple[Fact, ...]:
    """What the checkpoint says of its own training."""
    rows = (
        ("Iteration", state.iteration, "checkpoint"),
        ("Tokens seen", tokens, "iteration x tokens in a step"),
        ("Learning rate", state.learning_rate, "checkpoint"),
        ("Loss scale", state.loss_scale, "checkpoint"),
        ("Updates skipped so far (overflow)", state.skipped_steps, "checkpoint"),
    )
    return tuple(Fact(name, _shown(value), source) for name, value, source in rows if value is not None)


def _shown(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def gates_of(results: Iterable[GateResult]) -> tuple[Gate, ...]:
    """Gates as a card shows them."""
    return tuple(Gate(result.name, result.outcome, result.detail) for result in results)


def step_facts(
    job: Job,
    source: CheckpointSource,
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    files: Sequence[FileRecord],
    results: Sequence[GateResult],
) -> StepFacts:
    """The facts of a step's card; ``files`` are those of the branch without card and manifest."""
    return StepFacts(
        repo=job.release.target,
        branch=f"step{source.step}",
        step=source.step,
        steps=job.steps,
        text=text_of(job),
        details=details(job.config.options, sizes_of(job, plan), last_step=job.steps[-1]),
        training=training_facts(checkpoint.state, tokens_at(job, source.step)),
        tokens=tokens_at(job, source.step),
        has_tokenizer=job.tokenizer is not None,
        files=tuple(FileFact(file.path, file.size, file.sha256) for file in files),
        gates=gates_of(results),
        source=source_name(job),
        source_commit=source.commit,
        source_files=weight_files(checkpoint),
        converter=CONVERTER,
        deviations=plan.notes,
        overrides=overridden(job, plan, [dict(gate.figures) for gate in results]),
    )


def overridden(job: Job, plan: ConversionPlan, figures: Iterable[Mapping[str, object]]) -> tuple[Deviation, ...]:
    """What the release file sets in ``config.json``, with the effect that the gates measured, of those ``figures``."""
    own, effects = hf_config(plain(plan), None, None), [each.get("override_effect") for each in figures]
    measured = [effect for effect in effects if isinstance(effect, float)]
    effect = f"logits change by up to {max(measured):.1e}" if measured else "not measured at this step, but at the first and the last one"
    return tuple(
        Deviation(
            f"{each.key} is {each.value} where the run's own config makes it {own[each.key]}", each.because, effect
        )
        for each in job.release.overrides
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
) -> Manifest:
    """The manifest of a step's branch; ``files`` are all its files but the manifest."""
    names = weight_files(checkpoint)
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
        source_dtype=plan.source_dtype,
        overrides=dict(plan.overrides),
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


def suite_facts(job: Job, records: Sequence[CheckpointRecord], manifests: Sequence[Manifest]) -> SuiteFacts:
    """The facts of ``main``'s card, from the records of all steps and the manifests of all of them."""
    return SuiteFacts(
        repo=job.release.target,
        text=text_of(job),
        details=details(job.config.options, sizes_of(job, job.plan), last_step=job.steps[-1]),
        lines=tuple(
            StepLine(each.step, each.branch, each.tokens, each.weights[0] if each.weights else "", each.source_commit)
            for each in records
        ),
        has_tokenizer=job.tokenizer is not None,
        gates=_counted(manifests),
        source=source_name(job),
        converter=CONVERTER,
        expected=tuple(
            f"{' and '.join(f'step{step}' for step in each.steps)} hold the same weights: {each.because}."
            for each in job.release.expect
        ),
        deviations=job.plan.notes,
        overrides=overridden(job, job.plan, [gate.figures for each in manifests for gate in each.gates]),
    )


def _counted(manifests: Sequence[Manifest]) -> tuple[Gate, ...]:
    """Each gate with the number of checkpoints it passed on and was skipped on, and why skipped."""
    counts: dict[str, dict[str, int]] = {}
    for manifest in manifests:
        for gate in manifest.gates:
            outcomes = counts.setdefault(gate.name, {})
            outcomes[gate.outcome] = outcomes.get(gate.outcome, 0) + 1
    return tuple(
        Gate(name, "passed", ", ".join(f"{outcome} on {count:,}" for outcome, count in sorted(outcomes.items())))
        for name, outcomes in counts.items()
    )
