"""``publish audit``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from publish.audit.collect import AuditOptions
from publish.audit.examine import examine
from publish.audit.reader import Cache, Reader
from publish.audit.report import MAX_STEPS, MEANINGS, markdown, names_used, printable, report_to_json
from publish.cli import output
from publish.errors import HubError, ReleaseError
from publish.hub.client import Client
from publish.hub.endpoint import RetryPolicy
from publish.hub.rate_limits import Wait
from publish.records.findings import AuditReport
from publish.release_file import Release, read_release, schedule_named
from publish.schedule import parse_steps
from publish.sources.runs import parse_location
from publish.text import some

RETRIES = RetryPolicy(tries=5, base=0.5, cap=8.0)  # fewer than a release makes: an audit is easily run again


@click.command("audit")
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@click.option(
    "--schedule", help="The steps to expect: a name, or a list of steps. [default: the release's, else a guess]"
)
@click.option("--release", type=click.Path(dir_okay=False, path_type=Path), help="The release file of a SUITE.")
@click.option("--branches", "pattern", help="How step branches are named: ckpt_{step}, or a regular expression.")
@click.option("--deep", metavar="STEPS", help="Sample the weights of these steps and their neighbours: 0,1,32000.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a report for an issue tracker.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(
    ctx: click.Context,
    suites: tuple[str, ...],
    schedule: str | None,
    release: Path | None,
    pattern: str | None,
    deep: str | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Examine published suites without downloading weights.

    Finds duplicate weights, mixed shards, missing steps, stale cards and more. A SUITE is a repo with a branch for
    each step; several are also compared with each other. The exit code is 1 if anything was found.
    """
    repos = [_repo(suite) for suite in suites]
    options = AuditOptions(
        schedule=schedule_named(schedule) if schedule else None,
        release=_release(release, repos) if release else None,
        pattern=pattern,
        deep=parse_steps(deep) if deep else (),
    )
    client = Client(retry_policy=RETRIES, notify=_show_wait)
    report = examine(Reader(client, Cache.of(client.endpoint.url)), repos, options)
    if as_json:
        output.as_json(report_to_json(report))
    else:
        click.echo(markdown(report) if as_markdown else _text(report), nl=not as_markdown)
    ctx.exit(0 if report.ok else 1)


def _show_wait(wait: Wait) -> None:
    """Say on a terminal what is waited for: without a token an audit may reach the quota of requests."""
    if sys.stderr.isatty():
        until = time.strftime("%H:%M:%S", time.localtime(wait.until))
        click.echo(f"waiting until {until} for {printable(wait.reason)}", err=True)


def _release(path: Path, repos: Sequence[str]) -> Release:
    release = read_release(path)
    if release.target not in repos:
        fix = f"audit {release.target}, or give the release file of {repos[0]}"
        raise ReleaseError(f"the release file is for {release.target}, not for {', '.join(repos)}", path, fix)
    return release


def _repo(suite: str) -> str:
    location = parse_location(suite)
    if location.repo is None or location.revision is not None:
        raise HubError("an audit takes a whole repo on a Hub", suite, "name it owner/name, without a revision")
    return location.repo


def _text(report: AuditReport) -> str:
    """The report for a terminal."""
    rows: list[tuple[str, object]] = [("repo", report.repo), ("branches", report.branches)]
    rows += [("names", names_used(audited)) for audited in report.repos]
    rows += [("schedule", audited.schedule) for audited in report.repos]
    rows += [("note", note) for audited in report.repos for note in audited.notes]
    rows += [
        ("requests", report.requests),
        ("downloaded", f"{output.size(report.bytes_downloaded)}, {output.size(report.weight_bytes)} of them weights"),
        ("time", f"{report.seconds:.1f} s"),
        ("findings", len(report.findings) or "none"),
    ]
    lines = [output.facts([(name, printable(str(value))) for name, value in rows])]
    if report.findings:
        found = [(item.kind, some(item.steps, MAX_STEPS), printable(item.detail)) for item in report.findings]
        lines += ["", output.table(("kind", "steps", "what"), found)]
        lines += ["", *(f"{kind}: {MEANINGS[kind]}" for kind in dict.fromkeys(item.kind for item in report.findings))]
    return "\n".join(lines)
