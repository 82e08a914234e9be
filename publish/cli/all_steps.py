"""``publish all-steps``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from publish.cli import output
from publish.cli.options import (
    executor_options,
    quota_option,
    read_or_propose,
    release_arguments,
    slurm_options,
    workers_option,
)
from publish.cli.rehearse import rehearsal_client
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.interrupt import Stop
from publish.release.executors import Executor, LocalExecutor
from publish.release.job import Job, apply_overrides, make_job
from publish.release.outcome import Outcome
from publish.release.progress import Progress, progress
from publish.release.repair import read_repair
from publish.release.runner import Options, release
from publish.release.work_dir import WorkDir, default_folder, open_work_dir
from publish.slurm.commands import Settings, Slurm
from publish.text import count


@click.command("all-steps")
@release_arguments
@quota_option
@workers_option
@click.option("--tokenizer", help="Repo, folder or tokenizer.json; none: publish without one.")
@click.option("--rehearse", is_flag=True, help="Release to a rehearsal Hub in the work folder instead of the Hub.")
@click.option("--private", is_flag=True, help="Create the repo private.")
@click.option(
    "--verify-logits",
    type=click.Choice(["changed", "all", "off"]),
    default="changed",
    show_default=True,
    help="Which steps; changed: the first, the last, and whenever plan or config differ.",
)
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), help="Where steps in flight are kept.")
@click.option(
    "--templates",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder whose card templates come before our own.",
)
@click.option(
    "--only-findings",
    "audit",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Publish again what `publish audit --json` found wrong, and nothing else.",
)
@executor_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    release_or_source: str,
    target: str | None,
    steps: str | None,
    schedule: str | None,
    commits_per_hour: int | None,
    workers: int | None,
    tokenizer: str | None,
    rehearse: bool,
    private: bool,
    verify_logits: str,
    work_dir: Path | None,
    templates: Path | None,
    audit: Path | None,
    executor: str,
    as_json: bool,
    **slurm: Any,
) -> None:
    """Release every step of a run, each as its own branch, verified before it is pushed.

    Takes a RELEASE file, or a SOURCE and a TARGET. Steps that are published already are skipped.
    """
    cluster = slurm_options(executor, slurm)
    stop, bar = Stop(), progress()
    hub = Client(stop=stop, notify=bar.wait)
    given, index = read_or_propose(release_or_source, target, hub)
    plan = apply_overrides(given, schedule=schedule, commits_per_hour=commits_per_hour)
    repair = read_repair(audit, plan.target) if audit else None
    job = make_job(plan, steps=steps, tokenizer=tokenizer, client=hub, index=index)
    job = replace(job, templates=templates, verify_logits=verify_logits)
    with (
        rehearsal_client(work_dir, hub, plan.target) if rehearse else nullcontext(hub) as client,
        open_work_dir(work_dir or default_folder(client.endpoint.url, plan.target)) as folder,
    ):
        try:
            maker = _executor(job, folder, workers, cluster, client, bar)
            outcome = release(job, client, folder, Options(private, repair), maker, stop, bar)
        finally:
            bar.stop()
    if as_json:
        output.as_json({"schedule": plan.schedule, **outcome.document()})
    else:
        click.echo(summary(outcome, plan.schedule))
    ctx.exit(1 if outcome.failed or outcome.left else 0)


def _executor(
    job: Job,
    folder: WorkDir,
    workers: int | None,
    cluster: tuple[Slurm, Settings] | None,
    client: Client,
    bar: Progress,
) -> Executor:
    if cluster is None:
        return LocalExecutor.for_job(job, folder, workers, bar)
    from publish.slurm.executor import DEFAULT_TASKS, SlurmExecutor

    preupload = client.endpoint.url == Endpoint.from_environment().url
    tasks = workers or min(DEFAULT_TASKS, len(job.chosen))
    slurm, settings = cluster
    return SlurmExecutor(slurm, tasks, folder.folder, preupload, bar, settings)


def summary(outcome: Outcome, schedule: str | Sequence[int]) -> str:
    """The result of a release, for people."""
    lineage = [gate for gate in outcome.main.lineage if gate.outcome != "failed"]
    text = output.facts(
        [
            ("target", outcome.address),
            ("schedule", output.schedule(schedule)),
            ("published", count(len(outcome.published), "step")),
            ("already published", count(len(outcome.skipped), "step")),
            ("failed", len(outcome.failed)),
            *((gate.name, f"{gate.outcome}: {gate.detail}") for gate in lineage),
            ("main", f"{outcome.main.status}: {outcome.main.detail}"),
            ("commits", outcome.commits),
            ("read", output.size(outcome.bytes_read)),
            ("uploaded", output.size(outcome.bytes_uploaded)),
            ("time", f"{outcome.seconds:.1f} s"),
        ]
    )
    if outcome.failed:
        rows = [(failure.branch, failure.kind, failure.detail, failure.fix) for failure in outcome.failed]
        text += "\n\n" + output.table(("branch", "kind", "what", "fix"), rows)
    if outcome.left:
        text += "\n\n" + "\n".join(f"needs manual action: {finding}" for finding in outcome.left)
    if outcome.removed:
        removed = [(branch, ", ".join(paths)) for branch, paths in outcome.removed]
        text += "\n\n" + output.table(("branch", "removed files that no manifest names"), removed)
    return text
