"""``publish inspect``: the metadata of a checkpoint, and why it cannot be converted, if so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from publish.checkpoints import find_checkpoint, open_raw_checkpoint
from publish.cli import output
from publish.convert.plan import make_plan
from publish.errors import PublishError
from publish.explain.stored import StoredGenerator, stored_generators
from publish.neox import config
from publish.neox.config import read_config
from publish.neox.state import TrainingState
from publish.sources.files import CheckpointFiles
from publish.sources.runs import CheckpointRef, parse_location
from publish.text import count


@dataclass(frozen=True)
class Inspection:
    """What ``publish inspect`` shows; ``architecture`` and ``parameters`` are None where no plan can be made."""

    where: str
    step: int | None
    layout: str
    tensor_parallel: int
    pipeline_parallel: int
    dtype: str
    architecture: str | None
    parameters: int | None
    tensors: int
    weight_bytes: int
    file_bytes: int
    config: Mapping[str, Any]
    state: TrainingState
    tensor_list: Mapping[str, Mapping[str, Any]]
    refusals: tuple[str, ...]
    generators: tuple[StoredGenerator, ...] = ()

    def document(self, *, tensors: bool) -> dict[str, Any]:
        """The JSON of ``publish inspect`` (docs/cli.md); with the tensors by name where they are asked for."""
        state = self.state
        return {
            "step": state.iteration if self.step is None else self.step,
            "layout": self.layout,
            "tensor_parallel": self.tensor_parallel,
            "pipeline_parallel": self.pipeline_parallel,
            "iteration": state.iteration,
            "dtype": self.dtype,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "tensors": self.tensors,
            "weight_bytes": self.weight_bytes,
            "file_bytes": self.file_bytes,
            "config": dict(self.config),
            "training": {
                "learning_rate": state.learning_rate,
                "loss_scale": state.loss_scale,
                "skipped_steps": state.skipped_steps,
                "data_parallel": state.data_parallel,
                "deepspeed_version": state.deepspeed_version,
                "random_states": dict(state.random_states),
            },
            "generators": [generator.document() for generator in self.generators],
            "refusals": list(self.refusals),
            **({"tensor_list": {name: dict(item) for name, item in self.tensor_list.items()}} if tensors else {}),
        }


def inspect(ref: CheckpointRef, files: CheckpointFiles) -> Inspection:
    """Read the index of a checkpoint and try to plan its conversion.

    Raises:
        CheckpointError: there is no checkpoint, or it is broken. A config that cannot be converted is a refusal.
    """
    checkpoint = open_raw_checkpoint(files)
    architecture, parameters, refusals = None, None, []
    try:
        plan = make_plan(checkpoint, read_config(checkpoint))
        architecture, parameters = plan.architecture, plan.parameters
    except PublishError as error:
        refusals.append(f"{error.what} (at {error.where})")
    return Inspection(
        where=files.where,
        step=ref.step,
        layout=checkpoint.layout,
        tensor_parallel=checkpoint.tensor_parallel,
        pipeline_parallel=checkpoint.pipeline_parallel,
        dtype=checkpoint.dtype,
        architecture=architecture,
        parameters=parameters,
        tensors=len(checkpoint.ranks[0]),
        weight_bytes=checkpoint.weight_bytes,
        file_bytes=sum(files.sizes.values()),
        config=_options(files, refusals),
        state=checkpoint.state,
        tensor_list={
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "file": tensor.file, "offset": tensor.offset}
            for name, tensor in sorted(checkpoint.ranks[0].items())
        },
        refusals=tuple(dict.fromkeys(refusals)),
        generators=stored_generators(checkpoint),
    )


def _options(files: CheckpointFiles, refusals: list[str]) -> Mapping[str, Any]:
    try:
        return config.merge(config.config_files(files), files.where)
    except PublishError as error:
        refusals.append(f"{error.what} (at {error.where})")
        return {}


@click.command("inspect")
@click.argument("location")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a run.")
@click.option("--tensors", is_flag=True, help="List the tensors as well.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(location: str, step: int | None, tensors: bool, as_json: bool) -> None:
    """Show the metadata of the checkpoint at LOCATION: layout, sizes, config, training state. Reads no weights."""
    ref, files = find_checkpoint(parse_location(location), step)
    try:
        found = inspect(ref, files)
    finally:
        files.close()
    if as_json:
        output.as_json(found.document(tensors=tensors))
        return
    click.echo(output.facts(_rows(found)))
    if tensors:
        rows = [(name, item["dtype"], "x".join(map(str, item["shape"]))) for name, item in found.tensor_list.items()]
        click.echo("\n" + output.table(("tensor", "dtype", "shape on each rank"), rows))


def _rows(found: Inspection) -> list[tuple[str, object]]:
    state = found.state
    return [
        ("checkpoint", found.where),
        ("step", found.step),
        ("iteration", state.iteration),
        ("layout", f"{found.layout}, tensor parallel {found.tensor_parallel}"),
        ("architecture", found.architecture),
        ("parameters", found.parameters),
        ("tensors", found.tensors),
        ("dtype", found.dtype),
        ("weights", output.size(found.weight_bytes)),
        ("files", output.size(found.file_bytes)),
        ("learning rate", state.learning_rate),
        ("loss scale", state.loss_scale),
        ("skipped steps", state.skipped_steps),
        ("data parallel", state.data_parallel),
        ("DeepSpeed", state.deepspeed_version),
        *(
            (f"random state {generator.name} ({generator.file})", _generator(generator))
            for generator in found.generators
        ),
        *((f"cannot be converted ({index})", text) for index, text in enumerate(found.refusals, 1)),
    ]


def _generator(stored: StoredGenerator) -> str:
    state = stored.state
    text = f"{state.generator}, seeded with {state.seed}"
    text += f" (run seed {stored.run_seed})" if stored.run_seed is not None else ""
    text += f", offset {state.offset:,}" if state.offset is not None else ""
    for construction in stored.constructions:
        times, devices = count(construction.times, "construction"), ", ".join(construction.devices)
        text += f"; as after {times} on {devices}"
    return text
