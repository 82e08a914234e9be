"""``publish hub``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli.rehearse import UNLIMITED, load_rehearsal_hub


@click.command("hub")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for its repos.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free port.")
@click.option(
    "--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Faults to inject, YAML or JSON."
)
@click.option(
    "--api-quota",
    type=click.IntRange(min=1),
    help="Enforce this many API requests in five minutes, as the Hub does; default: no limit.",
)
def command(root: Path, port: int, faults: Path | None, api_quota: int | None) -> None:
    """Run a rehearsal Hub on loopback until it is stopped. Each token is a separate user."""
    quota = api_quota or UNLIMITED
    hub_class = load_rehearsal_hub()
    hub_class(
        root, port=port, faults=faults, api_quota=quota, resolver_quota=5 * quota, enforce_quota=api_quota is not None
    ).serve()
