"""``publish status``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli import output
from publish.cli.options import given_release, of_a_release
from publish.hub.client import Client
from publish.release.job import Wishes, adopt, make_job
from publish.release.state import look_at


@click.command("status")
@of_a_release
@click.option("--tokenizer", help="The one that the release was made with, where it was named then.")
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), help="Where its ledger lies.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    release_or_source: str,
    target: str | None,
    steps: str | None,
    schedule: str | None,
    tokenizer: str | None,
    work_dir: Path | None,
    as_json: bool,
) -> None:
    """Each step of a release: published, stale, missing or foreign, with the reason. Changes nothing."""
    client = Client()
    plan = adopt(given_release(release_or_source, target, client), schedule=schedule)
    job = make_job(plan, Wishes(steps, tokenizer), client, need_tokenizer=False)
    found = look_at(job, client, work_dir)
    counts: dict[str, list[int]] = {}
    for each in found:
        counts.setdefault(each.state, []).append(each.step)
    ok = set(counts) <= {"published"}
    if as_json:
        rows = [{"step": s.step, "state": s.state, "reason": s.reason, "commit": s.commit} for s in found]
        output.as_json({"target": plan.target, "steps": rows, "ok": ok})
    else:
        click.echo(output.facts([(state, output.steps(numbers)) for state, numbers in counts.items()]))
        odd = [(each.step, each.state, each.reason) for each in found if each.state not in ("published", "missing")]
        if odd:
            click.echo("\n" + output.table(("step", "state", "reason"), odd))
    ctx.exit(0 if ok else 1)
