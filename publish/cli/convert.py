"""``publish convert``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.checkpoints import find_checkpoint
from publish.cli import output
from publish.convert.architecture import CLASSES
from publish.dtypes import WEIGHT_DTYPES
from publish.release.conversion import Checks, Conversion, ConvertOptions, convert_one, parse_gates
from publish.sources.runs import parse_location


@click.command("convert")
@click.argument("location")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a run.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write.")
@click.option("--tokenizer", help="Repo, folder or tokenizer.json; none: write none. Default: the config's vocab-file.")
@click.option(
    "--dtype",
    type=click.Choice(WEIGHT_DTYPES),
    help="Cast to this dtype. Default: keep the tensors' own.",
)
@click.option(
    "--architecture",
    type=click.Choice(tuple(CLASSES)),
    help="Convert to this architecture. Default: the one that the config describes.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
@click.option("--verify-logits", type=click.Choice(["all", "off"]), default="all", show_default=True)
@click.option("--gates", help="Run only these gates, separated by commas: identity,finite,...; default: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    location: str,
    step: int | None,
    out: Path,
    tokenizer: str | None,
    dtype: str | None,
    architecture: str | None,
    overwrite: bool,
    verify_logits: str,
    gates: str | None,
    as_json: bool,
) -> None:
    """Convert one step at LOCATION to a folder that from_pretrained loads, and verify it."""
    checks = Checks(logits=verify_logits == "all", gates=parse_gates(gates))
    options = ConvertOptions(tokenizer, dtype, architecture, overwrite, checks)
    ref, files = find_checkpoint(parse_location(location), step)
    try:
        done = convert_one(ref, files, out, options)
    finally:
        files.close()
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
    output.as_json(done.document()) if as_json else click.echo(_text(done))
    ctx.exit(1 if done.failed else 0)


def _text(done: Conversion) -> str:
    head = output.facts(
        [
            ("folder", done.out),
            ("step", done.step),
            ("parameters", done.parameters),
            ("tensors", done.tensors),
            ("dtype", done.dtype),
            ("read", output.size(done.bytes_read)),
        ]
    )
    files = output.table(("file", "bytes", "sha256"), [(file.path, file.size, file.sha256[:16]) for file in done.files])
    gates = output.table(("gate", "outcome", "what was found"), [(g.name, g.outcome, g.detail) for g in done.gates])
    return f"{head}\n\n{files}\n\n{gates}"
