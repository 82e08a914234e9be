"""``publish audit``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.audit.cache import Cache
from publish.audit.collect import Wanted
from publish.audit.examine import examine
from publish.audit.fetch import Reader
from publish.audit.report import Report, markdown, ranges, shown
from publish.cli import show
from publish.errors import HubError
from publish.release import read_release, schedule_named
from publish.schedule import parse_steps
from publish.source.location import parse_location
from publish.wire.client import Client
from publish.wire.endpoint import Patience

PATIENCE = Patience(tries=5, base=0.5, cap=8.0)  # an audit changes nothing: it may as well be run again


@click.command("audit")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--schedule", help="A name, or a list of steps; else the release's, or what the names let guess.")
@click.option("--release", type=click.Path(dir_okay=False, path_type=Path), help="The release file it was made from.")
@click.option("--branches", "pattern", help="How step branches are named: ckpt_{step}, or a regular expression.")
@click.option("--deep", metavar="STEPS", help="Read some tensors of these steps and their neighbours: 0,1,32000.")
@click.option("--markdown", "as_markdown", is_flag=True, help="A report for an issue tracker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    targets: tuple[str, ...],
    schedule: str | None,
    release: Path | None,
    pattern: str | None,
    deep: str | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Examine published suites, weights not downloaded: duplicates, mixed shards, missing steps, stale cards, and more.

    Several TARGETs are also compared with each other. Exit code 1 where anything was found.
    """
    wanted = Wanted(schedule_named(schedule) if schedule else None, read_release(release) if release else None, pattern)
    client = Client(patience=PATIENCE)
    reader = Reader(client, Cache.of(client.endpoint.url))
    report = examine(reader, [_repo(target) for target in targets], wanted, parse_steps(deep) if deep else ())
    if as_json:
        show.as_json(report.document())
    else:
        click.echo(markdown(report) if as_markdown else text(report), nl=not as_markdown)
    ctx.exit(0 if report.ok else 1)


def _repo(target: str) -> str:
    location = parse_location(target)
    if location.repo is None or location.revision is not None:
        raise HubError("an audit takes a whole repo on a Hub", target, "name it owner/name, without a revision")
    return location.repo


def text(report: Report) -> str:
    """The report for people."""
    rows: list[tuple[str, object]] = [("repo", report.repo), ("branches", report.branches)]
    rows += [("schedule", each.schedule) for each in report.examined]
    rows += [("note", note) for each in report.examined for note in each.notes]
    rows += [
        ("requests", report.requests),
        ("downloaded", f"{show.size(report.bytes_downloaded)}, {show.size(report.weight_bytes)} of them weights"),
        ("time", f"{report.seconds:.1f} s"),
        ("findings", len(report.findings) or "none"),
    ]
    lines = [show.facts([(name, shown(str(value))) for name, value in rows])]
    if report.findings:
        table = [(each.kind, ranges(each.steps), shown(each.detail)) for each in report.findings]
        lines += ["", show.table(("kind", "steps", "what"), table)]
        meanings = dict.fromkeys((each.kind, each.meaning) for each in report.findings)
        lines += ["", *(f"{kind}: {meaning}" for kind, meaning in meanings)]
    return "\n".join(lines)
