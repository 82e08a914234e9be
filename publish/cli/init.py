"""``publish init``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.release.proposal import propose, release_yaml, write_release


@click.command("init")
@click.argument("location")
@click.option("--target", help="The repo to release to; default: the name of LOCATION under your-name/.")
@click.option("--tokenizer", help="Repo, folder or tokenizer.json.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("release.yaml"),
    show_default=True,
    help="The file to write; - prints it.",
)
def command(location: str, target: str | None, tokenizer: str | None, output: Path) -> None:
    """Write a release file for the run at LOCATION from its own config, for you to edit."""
    name = location.rstrip("/").split("/")[-1].partition("@")[0]
    release = propose(location, target or f"your-name/{name}")
    if str(output) == "-":
        click.echo(release_yaml(release, tokenizer), nl=False)
        return
    write_release(release, tokenizer, output)
    click.echo(f"wrote {output}; check every line, then run: publish plan {output}")
