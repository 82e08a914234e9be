"""``publish plan``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli import output
from publish.cli.options import quota_option, read_or_propose, release_arguments, workers_option
from publish.hub.client import Client
from publish.release.executors import default_workers
from publish.release.job import apply_overrides, make_job
from publish.release.preflight import ReleasePlan, plan_release


@click.command("plan")
@release_arguments
@quota_option
@workers_option
@click.option("--tokenizer", help="Repo, folder or tokenizer.json; none: publish without one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    release_or_source: str,
    target: str | None,
    steps: str | None,
    schedule: str | None,
    commits_per_hour: int | None,
    workers: int | None,
    tokenizer: str | None,
    as_json: bool,
) -> None:
    """Show what a release takes: steps, bytes, commits, time under the quota, disk. Changes nothing."""
    client = Client()
    given, index = read_or_propose(release_or_source, target, client)
    release = apply_overrides(given, schedule=schedule, commits_per_hour=commits_per_hour)
    job = make_job(release, steps=steps, tokenizer=tokenizer, client=client, index=index)
    planned = plan_release(job, workers or default_workers(job, Path()))
    output.as_json(planned.document()) if as_json else click.echo(_text(planned))


def _text(planned: ReleasePlan) -> str:
    return output.facts(
        [
            ("source", planned.source),
            ("target", planned.target),
            ("steps", output.steps(planned.steps)),
            ("architecture", planned.architecture),
            ("weights to read", output.size(planned.weight_bytes)),
            ("to upload", output.size(planned.upload_bytes)),
            ("commits", f"{planned.commits:,}"),
            ("time under the commit quota", f"{planned.hours_at_quota:.1f} h at least"),
            ("disk at most", output.size(planned.disk_bytes)),
            ("tokenizer", planned.tokenizer or "none"),
        ]
    )
