"""``publish audit``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from publish.audit.collect import Wanted
from publish.audit.examine import examine
from publish.audit.reader import Cache, Reader
from publish.audit.records import MEANINGS
from publish.audit.report import document, markdown, ranges, shown
from publish.cli import output
from publish.errors import HubError, ReleaseError
from publish.hub.client import Client
from publish.hub.failures import Patience
from publish.hub.rate_limits import Wait
from publish.records.findings import AuditReport
from publish.release_file import Release, read_release, schedule_named
from publish.schedule import parse_steps
from publish.sources.runs import parse_location

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
    repos = [_repo(target) for target in targets]
    wanted = Wanted(schedule_named(schedule) if schedule else None, _release(release, repos), pattern)
    client = Client(patience=PATIENCE, notify=_tell)
    reader = Reader(client, Cache.of(client.endpoint.url))
    report = examine(reader, repos, wanted, parse_steps(deep) if deep else ())
    if as_json:
        output.as_json(document(report))
    else:
        click.echo(markdown(report) if as_markdown else text(report), nl=not as_markdown)
    ctx.exit(0 if report.ok else 1)


def _tell(wait: Wait) -> None:
    """What is waited for, on a terminal: an audit may reach the quota of requests without a token."""
    if sys.stderr.isatty():
        until = time.strftime("%H:%M:%S", time.localtime(wait.until))
        click.echo(f"waiting for {shown(wait.reason)} until {until}", err=True)


def _release(path: Path | None, repos: Sequence[str]) -> Release | None:
    if path is None:
        return None
    release = read_release(path)
    if release.target not in repos:
        fix = f"audit {release.target}, or give the release file of {repos[0]}"
        raise ReleaseError(f"the release file is of {release.target}, not of {', '.join(repos)}", path, fix)
    return release


def _repo(target: str) -> str:
    location = parse_location(target)
    if location.repo is None or location.revision is not None:
        raise HubError("an audit takes a whole repo on a Hub", target, "name it owner/name, without a revision")
    return location.repo


def text(report: AuditReport) -> str:
    """The report for people."""
    rows: list[tuple[str, object]] = [("repo", report.repo), ("branches", report.branches)]
    rows += [("schedule", each.schedule) for each in report.repos]
    rows += [("note", note) for each in report.repos for note in each.notes]
    rows += [
        ("requests", report.requests),
        ("downloaded", f"{output.size(report.bytes_downloaded)}, {output.size(report.weight_bytes)} of them weights"),
        ("time", f"{report.seconds:.1f} s"),
        ("findings", len(report.findings) or "none"),
    ]
    lines = [output.facts([(name, shown(str(value))) for name, value in rows])]
    if report.findings:
        table = [(each.kind, ranges(each.steps), shown(each.detail)) for each in report.findings]
        lines += ["", output.table(("kind", "steps", "what"), table)]
        meanings = dict.fromkeys((each.kind, MEANINGS[each.kind]) for each in report.findings)
        lines += ["", *(f"{kind}: {meaning}" for kind, meaning in meanings)]
    return "\n".join(lines)
