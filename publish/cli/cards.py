"""``publish cards``."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

import click

from publish.cli import output
from publish.hub.client import Client
from publish.release.cards import Pushed, differences, make_cards, push_cards, write_cards
from publish.release.progress import progress
from publish.release_file import read_release

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("cards")
@click.argument("release", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=_FOLDER, help="Write all cards below this folder, each as BRANCH/README.md.")
@click.option("--check", is_flag=True, help="Compare with the published cards and show the differences (the default).")
@click.option("--push", is_flag=True, help="Commit the cards that changed, one commit per branch.")
@click.option("--templates", type=_FOLDER, help="A folder whose templates come before our own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    release: Path,
    out: Path | None,
    check: bool,
    push: bool,
    templates: Path | None,
    as_json: bool,
) -> None:
    """Regenerate the cards of a published release from its manifests: write, compare or push them.

    Reads no checkpoint. Exit code 1 if a card differs from the published one; with --push, if one cannot be pushed.
    """
    if sum((out is not None, check, push)) > 1:
        raise click.UsageError("choose one of --out, --check and --push")
    stop, bar = threading.Event(), progress()
    client = Client(stop=stop, notify=bar.wait)
    cards = make_cards(read_release(release), client, templates)
    for branch, finding in cards.findings:
        click.echo(f"warning: card of {branch}, line {finding.line}: {finding.detail}", err=True)
    try:
        pushed = push_cards(cards, client, bar) if push else None
    finally:
        bar.stop()
    if out is not None:
        write_cards(cards, out)
    ok = out is not None or not (pushed.failed if pushed else cards.changed)
    if as_json:
        rows = [
            {"repo": cards.release.target, "branch": card.branch, "changed": card.changed, "reason": card.reason}
            for card in cards.cards
        ]
        output.as_json({"cards": rows, "ok": ok, **(_pushed(pushed) if pushed else {})})
    else:
        click.echo(_summary(len(cards.cards), len(cards.changed), out, pushed))
        if not push and out is None:
            click.echo("".join(f"\n{text}" for text in differences(cards, client)), nl=False)
    ctx.exit(0 if ok else 1)


def _pushed(pushed: Pushed) -> dict[str, object]:
    failed = [asdict(failure) for failure in pushed.failed]
    return {"pushed": list(pushed.branches), "failed": failed}


def _summary(cards: int, changed: int, out: Path | None, pushed: Pushed | None) -> str:
    rows: list[tuple[str, object]] = [("cards", cards), ("changed", changed)]
    if out is not None:
        rows.append(("written below", out))
    if pushed is not None:
        rows.append(("commits", len(pushed.branches)))
    text = output.facts(rows)
    if pushed and pushed.failed:
        failures = [(failure.branch, failure.kind, failure.detail, failure.fix) for failure in pushed.failed]
        text += "\n\n" + output.table(("branch", "kind", "what", "fix"), failures)
    return text
