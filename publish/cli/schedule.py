"""``publish schedule``."""

from __future__ import annotations

import click

from publish.cli import output
from publish.neox.schedule import check_schedule
from publish.release_file import schedule_named
from publish.sources.runs import open_run, parse_location


@click.command("schedule")
@click.argument("location")
@click.option("--schedule", default="from-config", show_default=True, help="A name, from-config, or a list of steps.")
@click.option("--names-only", is_flag=True, help="Compare names only; do not open checkpoints.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, location: str, schedule: str, names_only: bool, as_json: bool) -> None:
    """Check that exactly the right steps are at LOCATION, and that each is the step that its name says.

    Opens the index of every checkpoint (no weights) and compares its iteration and sizes with its name and config.
    """
    report = check_schedule(open_run(parse_location(location)), schedule_named(schedule), names_only=names_only)
    if as_json:
        output.as_json({"schedule": schedule, **report.document()})
    else:
        click.echo(report.text(schedule))
    ctx.exit(0 if report.ok else 1)
