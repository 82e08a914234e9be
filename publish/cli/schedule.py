"""``publish schedule``."""

from __future__ import annotations

import click

from publish.cli import output
from publish.neox.schedule import check_schedule
from publish.release_file import schedule_named
from publish.sources.runs import open_run, parse_location


@click.command("schedule")
@click.argument("location")
@click.option(
    "--schedule", "wanted", default="pythia", show_default=True, help="A name, from-config, or a list of steps."
)
@click.option("--names-only", is_flag=True, help="Compare names only; do not open each checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, location: str, wanted: str, names_only: bool, as_json: bool) -> None:
    """Are exactly the right steps at LOCATION, and is each the step it claims?

    Opens every checkpoint's index (no weights) and compares its own iteration and sizes with its name and config.
    """
    report = check_schedule(open_run(parse_location(location)), schedule_named(wanted), names_only=names_only)
    if as_json:
        output.as_json({"schedule": wanted, **report.document()})
    else:
        click.echo(report.text(wanted))
    ctx.exit(0 if report.ok else 1)
