"""``publish status``."""

from __future__ import annotations

from dataclasses import replace

import click

from publish.cli import output
from publish.cli.options import read_or_propose, release_arguments
from publish.hub.client import Client
from publish.release.facts import hub_address
from publish.release.job import apply_overrides, make_job
from publish.release.state import read_state


@click.command("status")
@release_arguments
@click.option("--tokenizer", help="The one that the release was made with, if it was named then.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    release_or_source: str,
    target: str | None,
    steps: str | None,
    schedule: str | None,
    tokenizer: str | None,
    as_json: bool,
) -> None:
    """Show the state of each step: published, stale, missing or foreign, with the reason. Changes nothing."""
    client = Client()
    given, index = read_or_propose(release_or_source, target, client)
    release = apply_overrides(given, schedule=schedule)
    job = make_job(release, steps=steps, tokenizer=tokenizer, client=client, index=index, need_tokenizer=False)
    state = read_state(replace(job, hub=hub_address(client.endpoint)), client, steps=job.chosen)
    branches = list(state.steps.values())
    counts: dict[str, list[int]] = {}
    for branch in branches:
        counts.setdefault(branch.state, []).append(branch.step)
    ok = set(counts) <= {"published"}
    if as_json:
        rows = [
            {
                "repo": job.model.repo,
                "branch": branch.branch,
                "step": branch.step,
                "state": branch.state,
                "reason": branch.reason,
                "commit": branch.commit,
            }
            for branch in branches
        ]
        output.as_json({"target": release.target, "schedule": release.schedule, "steps": rows, "ok": ok})
    else:
        known = [(state, output.steps(numbers)) for state, numbers in counts.items()]
        click.echo(output.facts([("schedule", output.schedule(release.schedule)), *known]))
        odd = [
            (branch.step, branch.state, branch.reason) for branch in branches if branch.state in ("stale", "foreign")
        ]
        if odd:
            click.echo("\n" + output.table(("step", "state", "reason"), odd))
    ctx.exit(0 if ok else 1)
