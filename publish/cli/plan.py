"""``publish plan``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli import output
from publish.cli.options import commit_quota, given_release, in_flight, of_a_release
from publish.release.job import Wishes, adopt, make_job
from publish.release.preflight import ReleasePlan, plan_release, sane_workers


@click.command("plan")
@of_a_release
@commit_quota
@in_flight
@click.option("--tokenizer", help="Repo, folder or tokenizer.json; none to do without.")
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
    """Dry run of a release: steps, bytes, commits, hours under the quota, disk. Changes nothing, writes nothing."""
    given = given_release(release_or_source, target)
    release = adopt(given, schedule=schedule, commits_per_hour=commits_per_hour)
    job = make_job(release, Wishes(steps, tokenizer))
    planned = plan_release(job, workers or sane_workers(job, Path()))
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
