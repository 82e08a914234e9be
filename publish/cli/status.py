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
    plan = apply_overrides(given, schedule=schedule)
    job = make_job(plan, steps=steps, tokenizer=tokenizer, client=client, index=index, need_tokenizer=False)
    state = read_state(replace(job, hub=hub_address(client.endpoint)), client, steps=job.chosen)
    found = list(state.steps.values())
    counts: dict[str, list[int]] = {}
    for row in found:
        counts.setdefault(row.state, []).append(row.step)
    ok = set(counts) <= {"published"}
    if as_json:
        rows = [
            {
                "repo": job.model.repo,
                "branch": s.branch,
                "step": s.step,
                "state": s.state,
                "reason": s.reason,
                "commit": s.commit,
            }
            for s in found
        ]
        output.as_json({"target": plan.target, "steps": rows, "ok": ok})
    else:
        click.echo(output.facts([(state, output.steps(numbers)) for state, numbers in counts.items()]))
        wrong = [(row.step, row.state, row.reason) for row in found if row.state not in ("published", "missing")]
        if wrong:
            click.echo("\n" + output.table(("step", "state", "reason"), wrong))
    ctx.exit(0 if ok else 1)
