"""``publish all-steps``."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import click

from publish.cli import output
from publish.cli.options import commit_quota, given_release, in_flight, of_a_release, on_an_engine
from publish.cli.rehearse import hub_of
from publish.hub.client import Client
from publish.release.executors import Engine
from publish.release.job import Wishes, adopt, make_job
from publish.release.outcome import Outcome
from publish.release.progress import progress
from publish.release.repair import read_repair
from publish.release.runner import Options, release
from publish.release.work_dir import default_folder, workplace


@click.command("all-steps")
@of_a_release
@commit_quota
@in_flight
@click.option("--tokenizer", help="Repo, folder or tokenizer.json; none to do without.")
@click.option("--rehearse", is_flag=True, help="Onto a rehearsal Hub in the work folder, not onto the Hub.")
@click.option("--private", is_flag=True, help="Create the repo private.")
@click.option(
    "--verify-logits",
    "logits",
    type=click.Choice(["changed", "all", "off"]),
    default="changed",
    show_default=True,
    help="changed: first, last, and whenever plan or config differ.",
)
@click.option(
    "--work-dir", type=click.Path(file_okay=False, path_type=Path), help="For the ledger and steps in flight."
)
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
@on_an_engine
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    release_or_source: str,
    target: str | None,
    steps: str | None,
    schedule: str | None,
    commits_per_hour: int | None,
    workers: int | None,
    tokenizer: str | None,
    rehearse: bool,
    private: bool,
    logits: str,
    work_dir: Path | None,
    templates: Path | None,
    audit: Path | None,
    engine: Engine,
    as_json: bool,
) -> None:
    """Release every step of a run, each as its own branch, proven before it leaves.

    Takes a release file, or a SOURCE and a TARGET; what is there already is skipped.
    """
    stop, bar = threading.Event(), progress()
    here = Client(interrupt=stop, notify=bar.wait)
    given = given_release(release_or_source, target, here)
    plan = adopt(given, schedule=schedule, commits_per_hour=commits_per_hour)
    repair = read_repair(audit, plan.target) if audit else None
    job = replace(make_job(plan, Wishes(steps, tokenizer), here), templates=templates)
    with hub_of(rehearse, work_dir, here, plan.target) as client:
        folder = work_dir or default_folder(client.endpoint.url, plan.target)
        with workplace(folder) as place:
            options = Options(workers or engine.usual_workers(job, folder), logits, private, repair, engine)
            try:
                outcome = release(job, client, place, options, bar, stop)
            finally:
                bar.stop()
    output.as_json(outcome.document()) if as_json else click.echo(summary(outcome))
    ctx.exit(1 if outcome.failed or outcome.left else 0)


def summary(outcome: Outcome) -> str:
    """What a run did, for people."""
    rows = [
        ("target", outcome.address),
        ("published", f"{len(outcome.published):,} steps"),
        ("already there", f"{len(outcome.skipped):,} steps"),
        ("failed", f"{len(outcome.failed):,} steps"),
        *((gate.name, f"{gate.outcome}: {gate.detail}") for gate in outcome.lineage if gate.outcome != "failed"),
        ("main", outcome.main),
        ("commits", outcome.commits),
        ("read", output.size(outcome.bytes_read)),
        ("uploaded", output.size(outcome.bytes_uploaded)),
        ("time", f"{outcome.seconds:.1f} s"),
    ]
    text = output.facts(rows)
    if outcome.failed:
        failures = [(each.step, each.kind, each.detail, each.fix) for each in outcome.failed]
        text += "\n\n" + output.table(("step", "kind", "what", "fix"), failures)
    if outcome.left:
        text += "\n\n" + "\n".join(f"left to you: {each}" for each in outcome.left)
    if outcome.removed:
        removed = [(each.branch, ", ".join(each.paths)) for each in outcome.removed]
        text += "\n\n" + output.table(("branch", "held files that nothing here put there; they are gone"), removed)
    return text
