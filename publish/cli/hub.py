"""``publish hub``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.rehearsal import RehearsalHub


@click.command("hub")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where its repos lie.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free port.")
def command(root: Path, port: int) -> None:
    """Run a rehearsal Hub on loopback until it is stopped. Any token is a user of its own."""
    hub = RehearsalHub(root, port=port)
    click.echo(f"listening on {hub.url}")
    hub.serve()
