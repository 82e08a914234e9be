"""From the records of a release to the facts of its cards: the same for a release under way and for one that is out.

Nothing here reads a checkpoint: a step's figures come from its manifest, the run's from :class:`RunFacts`, words from
the release file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from publish import __version__
from publish.cards.details import Fact, Sizes, count, decimal
from publish.cards.facts import HUB, Comparison, Deviation, Explanation, Plot, RunFacts, StepFacts, StepLine, SuiteFacts
from publish.cards.run_config import config_facts
from publish.convert.hfconfig import hf_config, without_overrides
from publish.convert.plan import ConversionPlan
from publish.hub.branch_files import BranchFile
from publish.hub.failures import Endpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.records.checkpoints import NO_REMARKS, Remarks, sentences
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.records.manifest import ComparisonRecord, Converter, Manifest, Source, SourceFile, Tensors, Training
from publish.release.job import Job
from publish.release_file import Release
from publish.sources.runs import CheckpointRef

# From a job and a converted step to the manifest that leaves with it.


_EMBEDDINGS = ("embed_in.weight", "embed_out.weight", "embed_tokens.weight", "lm_head.weight")


def source_name(job: Job) -> str:
    """The source as the world sees it: a repo's name, or a folder's without the machine's path to it."""
    return job.run.where if job.run.on_hub else Path(job.run.where).resolve().name


def tokens_at(job: Job, step: int) -> int | None:
    """Tokens seen by ``step``, where the config tells how many a step sees."""
    return None if job.tokens_per_step is None else job.tokens_per_step * step


def sizes_of(job: Job, plan: ConversionPlan) -> Sizes:
    """What the details table takes from the plan."""
    embeddings = sum(recipe.elements for recipe in plan.recipes if recipe.name.endswith(_EMBEDDINGS))
    tensor_parallel = 1 + max(part.rank for recipe in plan.recipes for part in recipe.slices)
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
    source: CheckpointRef,
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    files: Sequence[FileRecord],
    gates: Sequence[Gate],
    *,
    tensors_digest: str,
    tokenizer: str | None,
    statistics: Mapping[str, Any],
    comparisons: tuple[ComparisonRecord, ...],
    explanation: Explanation | None,
) -> Manifest:
    """The manifest of a step's branch; ``files`` are all its files but card and manifest."""
    assert source.step is not None
    names, own = weight_files(checkpoint), hf_config(without_overrides(plan), None, None)
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
        gates=tuple(gates),
        training=training_record(checkpoint),
        tokenizer=tokenizer,
        explanation=explanation,
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


README = "README.md"
_NOT_HERE = "not measured at this step, but at the first and the last one"


def with_card(manifest: Manifest, card: BranchFile) -> Manifest:
    """``manifest`` with this card among its files, in place of any other."""
    others = [file for file in manifest.files if file.path != README]
    record = FileRecord(README, card.size, card.sha256)
    return replace(manifest, files=tuple(sorted([*others, record], key=lambda file: file.path)))


def run_facts(job: Job) -> RunFacts:
    """What the job knows of the whole run."""
    return RunFacts(config_facts(job.config.options), sizes_of(job, job.plan), job.plan.notes)


def hub_address(endpoint: Endpoint) -> str:
    """Where links in cards lead: a rehearsal writes the very cards that the Hub will get."""
    return HUB if endpoint.loopback else endpoint.url


def training_facts(training: Training, tokens: int | None) -> tuple[Fact, ...]:
    """What the checkpoint says of its own training."""
    rows = (
        ("Iteration", training.iteration, "checkpoint"),
        ("Tokens seen", tokens, "iteration x tokens in a step"),
        ("Learning rate", training.learning_rate, "checkpoint"),
        ("Loss scale", training.loss_scale, "checkpoint"),
        ("Updates skipped so far", training.skipped_steps, "checkpoint; the loss scale had overflowed"),
    )
    return tuple(Fact(name, _shown(value), source) for name, value, source in rows if value is not None)


def _shown(value: float | int) -> str:
    """Whole numbers exactly, others to six digits."""
    return count(int(value)) if value == int(value) else decimal(float(f"{value:.6g}"))


def step_facts(
    release: Release, run: RunFacts, steps: Sequence[int], manifest: Manifest, *, hub: str = HUB
) -> StepFacts:
    """The facts of a step's card. ``steps`` are the release's; of ``manifest``'s files all but the card are listed."""
    listed = sorted((each for each in manifest.files if each.path != README), key=lambda file: file.path)
    return StepFacts(
        repo=release.target,
        branch=manifest.branch,
        step=manifest.step,
        steps=tuple(steps),
        text=replace(release.card, results=()),  # they are of the final step, which main shows
        details=run.details(steps[-1]),
        training=training_facts(manifest.training, manifest.tokens),
        tokens=manifest.tokens,
        has_tokenizer=manifest.tokenizer is not None,
        files=tuple(listed),
        gates=manifest.gates,
        comparisons=_comparisons(manifest),
        explanation=manifest.explanation,
        source=manifest.source.location,
        source_commit=manifest.source.commit,
        source_files=tuple(file.path for file in manifest.source.files),
        converter=_converter(manifest),
        deviations=run.deviations,
        overrides=_overrides(release, manifest, [manifest]),
        expected=_expected(release, manifest.step),
        hub=hub,
    )


def suite_facts(
    release: Release,
    run: RunFacts,
    manifests: Mapping[int, Manifest],
    *,
    plots: Sequence[Plot] = (),
    remarks: Remarks = NO_REMARKS,
    hub: str = HUB,
) -> SuiteFacts:
    """The facts of ``main``'s card, from the manifests of all steps, in order, and what they show together.

    ``plots`` are all that ``main`` has; those of comparisons stand with them.
    """
    steps = list(manifests)
    shown = {plot.path: plot for plot in plots}
    comparisons = tuple(
        replace(each, plots=tuple(shown.pop(path) for path in [ratio_path(step, number)] if path in shown))
        for step, manifest in manifests.items()
        for number, each in enumerate(_comparisons(manifest), 1)
    )
    final = manifests[steps[-1]]
    return SuiteFacts(
        repo=release.target,
        text=replace(release.card, errata=(*release.card.errata, *sentences(remarks.errata))),
        details=run.details(steps[-1]),
        lines=tuple(map(_line, manifests.values())),
        has_tokenizer=final.tokenizer is not None,
        gates=(
            *_counted(manifests.values()),
            *remarks.lineage,
        ),
        source=final.source.location,
        converter=_converter(final),
        expected=_expected(release),
        deviations=run.deviations,
        comparisons=comparisons,
        explanation=manifests[steps[0]].explanation,
        overrides=_overrides(release, final, manifests.values()),
        plots=tuple(shown.values()),
        hub=hub,
    )


def ratio_path(step: int, number: int) -> str:
    """Where ``main`` keeps the plot of a step's comparison, numbered from 1."""
    return f"plots/ratios-step{step}-{number}.svg"


def _comparisons(manifest: Manifest) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(each.title, each.verdict, each.reasons, each.columns, each.rows) for each in manifest.comparisons
    )


def _line(manifest: Manifest) -> StepLine:
    weights = manifest.weights[0] if manifest.weights else ""
    return StepLine(manifest.step, manifest.branch, manifest.tokens, weights, manifest.source.commit)


def _converter(manifest: Manifest) -> str:
    return f"{manifest.converter.name} {manifest.converter.version}"


def _expected(release: Release, step: int | None = None) -> tuple[str, ...]:
    """The declared equalities in words: all of them, or those of ``step``."""
    return tuple(
        f"{' and '.join(f'step{each}' for each in expected.steps)} hold the same weights: {expected.because}."
        for expected in release.expect
        if step is None or step in expected.steps
    )


def _overrides(release: Release, one: Manifest, measured: Iterable[Manifest]) -> tuple[Deviation, ...]:
    """What ``one`` overrides in ``config.json``, and why; the effect is the largest of those ``measured``."""
    figures = [gate.figures.get("override_effect") for manifest in measured for gate in manifest.gates]
    effects = [figure for figure in figures if isinstance(figure, float)]
    effect = f"logits change by up to {max(effects):.1e}" if effects else _NOT_HERE
    reasons = {each.key: each.because for each in release.overrides}
    return tuple(
        Deviation(
            f"{key} is {given['value']} where the run's own config makes it {given['instead_of']}",
            reasons.get(key, "the release file does not say"),
            effect,
        )
        for key, given in one.overrides.items()
    )


def _counted(manifests: Iterable[Manifest]) -> tuple[Gate, ...]:
    """Each gate with the number of checkpoints it passed on and was skipped on."""
    counts: dict[str, dict[str, int]] = {}
    for manifest in manifests:
        for gate in manifest.gates:
            outcomes = counts.setdefault(gate.name, {})
            outcomes[gate.outcome] = outcomes.get(gate.outcome, 0) + 1
    return tuple(
        Gate(name, "passed", ", ".join(f"{outcome} on {count:,}" for outcome, count in sorted(outcomes.items())))
        for name, outcomes in counts.items()
    )
