"""``publish init``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.release.job import propose, release_yaml, write_release


@click.command("init")
@click.argument("source")
@click.option("--target", help="The repo to release to; default: the source's name under your-name/.")
@click.option("--tokenizer", help="Repo, folder or tokenizer.json.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("release.yaml"),
    show_default=True,
    help="The file to write; - prints it.",
)
def command(source: str, target: str | None, tokenizer: str | None, output: Path) -> None:
    """Write a release file for the run at SOURCE from its own config, to be edited."""
    name = source.rstrip("/").split("/")[-1].partition("@")[0]
    release = propose(source, target or f"your-name/{name}")
    if str(output) == "-":
        click.echo(release_yaml(release, tokenizer), nl=False)
        return
    write_release(release, tokenizer, output)
    click.echo(f"{output} is written; check every line of it, then: publish plan {output}")
