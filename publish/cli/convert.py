"""``publish convert``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cli import output
from publish.release.convert import Conversion, Wanted, convert_one, gates_named
from publish.sources.runs import open_ref, parse_location


@click.command("convert")
@click.argument("source")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a run.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--tokenizer", help="Repo, folder or tokenizer.json; none to do without. Default: the config's vocab-file."
)
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Cast; default: the tensors' own.")
@click.option("--architecture", type=click.Choice(["gpt_neox", "llama", "mistral"]), help="Override what was found.")
@click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
@click.option("--verify-logits/--no-verify-logits", "logits", default=True, show_default=True)
@click.option("--gates", help="Only these, with commas between: identity, finite, ...; default: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    step: int | None,
    out: Path,
    tokenizer: str | None,
    dtype: str | None,
    architecture: str | None,
    overwrite: bool,
    logits: bool,
    gates: str | None,
    as_json: bool,
) -> None:
    """Convert one step of SOURCE to a folder that from_pretrained loads, and prove it."""
    wanted = Wanted(tokenizer, dtype, architecture, overwrite, logits, gates_named(gates))
    checkpoint, files = open_ref(parse_location(source), step)
    try:
        done = convert_one(checkpoint, files, out, wanted)
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
    files = output.table(("file", "bytes", "sha256"), [(each.path, each.size, each.sha256[:16]) for each in done.files])
    gates = output.table(("gate", "outcome", "what was found"), [(g.name, g.outcome, g.detail) for g in done.gates])
    return f"{head}\n\n{files}\n\n{gates}"
