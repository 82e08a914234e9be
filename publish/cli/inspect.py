"""``publish inspect``."""

from __future__ import annotations

import click

from publish.cli import show
from publish.explain.stored import StoredGenerator
from publish.run.inspect import Inspection, inspect
from publish.source.checkpoints import open_checkpoint
from publish.source.location import parse_location


@click.command("inspect")
@click.argument("source")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a run.")
@click.option("--tensors", is_flag=True, help="List the tensors too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(source: str, step: int | None, tensors: bool, as_json: bool) -> None:
    """What the checkpoint at SOURCE says of itself: layout, sizes, config, training state. Reads no weights."""
    checkpoint, files = open_checkpoint(parse_location(source), step)
    try:
        found = inspect(checkpoint, files)
    finally:
        files.close()
    if as_json:
        show.as_json(found.document(tensors=tensors))
        return
    click.echo(show.facts(_rows(found)))
    if tensors:
        rows = [(name, item["dtype"], "x".join(map(str, item["shape"]))) for name, item in found.tensor_list.items()]
        click.echo("\n" + show.table(("tensor", "dtype", "shape on each rank"), rows))


def _rows(found: Inspection) -> list[tuple[str, object]]:
    state = found.state
    return [
        ("checkpoint", found.where),
        ("step", found.step if found.step >= 0 else None),
        ("iteration", state.iteration),
        ("layout", f"{found.layout}, tensor parallel {found.tensor_parallel}"),
        ("architecture", found.architecture),
        ("parameters", found.parameters),
        ("tensors", found.tensors),
        ("dtype", found.dtype),
        ("weights", show.size(found.weight_bytes)),
        ("files", show.size(found.file_bytes)),
        ("learning rate", state.learning_rate),
        ("loss scale", state.loss_scale),
        ("skipped steps", state.skipped_steps),
        ("data parallel", state.data_parallel),
        ("DeepSpeed", state.deepspeed_version),
        *((f"random state {each.name} ({each.file})", _generator(each)) for each in found.generators),
        *((f"cannot be converted ({index})", text) for index, text in enumerate(found.refusals, 1)),
    ]


def _generator(stored: StoredGenerator) -> str:
    state = stored.state
    text = f"{state.generator}, seeded with {state.seed}"
    text += f" (run seed {stored.run_seed})" if stored.run_seed is not None else ""
    text += f", offset {state.offset:,}" if state.offset is not None else ""
    for each in stored.constructed:
        text += f"; as after {each.times} construction{'s' * (each.times > 1)} on {', '.join(each.devices)}"
    return text
