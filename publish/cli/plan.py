"""``publish plan``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli import output
from publish.cli.options import quota_option, read_or_propose, release_arguments, workers_option
from publish.hub.client import Client
from publish.release.executors import default_in_flight
from publish.release.job import apply_overrides, make_job
from publish.release.preflight import ReleasePlan, plan_release
from publish.text import count


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
    in_flight = workers or default_in_flight(job, Path())
    planned = plan_release(job, in_flight)
    if as_json:
        output.as_json({"schedule": release.schedule, **planned.document()})
    else:
        click.echo(_text(planned, output.schedule(release.schedule), in_flight))


def _text(planned: ReleasePlan, schedule: str, in_flight: int) -> str:
    return output.facts(
        [
            ("source", planned.source),
            ("target", planned.target),
            ("schedule", schedule),
            ("steps", output.steps(planned.steps)),
            ("architecture", planned.architecture),
            ("weights to read", output.size(planned.weight_bytes)),
            (
                "to upload",
                f"{output.size(planned.upload_bytes)}, which the suite takes on the Hub: steps share no bytes",
            ),
            ("commits", f"{planned.commits:,}"),
            ("commit quota", f"{_waiting(planned.hours_at_quota)} at {planned.commits_per_hour} commits an hour"),
            ("disk in flight", f"{output.size(planned.disk_bytes)} at most, for {count(in_flight, 'step')}"),
            ("tokenizer", planned.tokenizer or "none"),
            ("assumed", "every step is as large as the first, and no commit was made in the last hour"),
        ]
    )


def _waiting(hours: float) -> str:
    """How long commits wait for the quota."""
    minutes = round(hours * 60)
    if minutes == 0:
        return "no wait"
    return f"at least {count(minutes, 'minute')}" if minutes < 120 else f"at least {hours:.1f} hours"
