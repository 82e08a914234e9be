"""One checkpoint to one folder, proven before the folder gets its name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from publish.convert.folder import staged_folder, write_folder
from publish.convert.plan import make_plan
from publish.convert.tokenizer import find_tokenizer, not_found
from publish.errors import ReleaseError
from publish.lineage.sketch import Sketcher
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.records.files import FileRecord
from publish.records.gates import FAILED, Gate
from publish.release.claims import check_step
from publish.release.job import fetch_tokenizer
from publish.sources.files import CheckpointFiles
from publish.sources.runs import CheckpointRef
from publish.verify.gates import GATES, Evidence, run_gates


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``publish convert`` is asked for."""

    tokenizer: str | None = None
    dtype: str | None = None
    architecture: str | None = None
    overwrite: bool = False
    logits: bool = True
    gates: tuple[str, ...] = GATES


@dataclass(frozen=True)
class Conversion:
    """What was written and what the gates found. ``notes`` are for people: deviations, a missing tokenizer.

    ``bytes_read`` is what the conversion took from the source; the logits gate reads the weights again.
    """

    out: Path
    step: int | None
    tensors: int
    parameters: int
    dtype: str
    bytes_read: int
    bytes_read_again: int
    files: tuple[FileRecord, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return any(gate.outcome == FAILED for gate in self.gates)

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``."""
        return {
            "step": self.step,
            "out": str(self.out),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "bytes_read": self.bytes_read,
            "bytes_read_again": self.bytes_read_again,
            "files": [asdict(file) for file in self.files],
            "gates": [asdict(gate) for gate in self.gates],
            "notes": list(self.notes),
        }


def gates_named(text: str | None) -> tuple[str, ...]:
    """The gates in a list with commas; all where there is none.

    Raises:
        ReleaseError: no gate of that name.
    """
    names = GATES if text is None else tuple(name.strip() for name in text.split(","))
    if odd := [name for name in names if name not in GATES]:
        raise ReleaseError(f"{odd[0]!r} is no gate", "--gates", f"the gates are {', '.join(GATES)}")
    return names


def convert_one(source: CheckpointRef, files: CheckpointFiles, out: Path, wanted: Wanted) -> Conversion:
    """Convert into a folder beside ``out``, run the gates on it, and give it its name when they pass.

    When a gate fails the folder is removed and the failed gates are in the result.

    Raises:
        PublishError: as the stages do; nothing is left under ``out``.
    """
    checkpoint = RawCheckpoint.open(files)
    check_step(source, checkpoint)
    config = read_config(checkpoint)
    plan = make_plan(checkpoint, config, wanted.dtype, wanted.architecture)
    folder = Path(files.where) if source.commit is None else None
    tokenizer = find_tokenizer(wanted.tokenizer, config, folder, fetch_tokenizer)
    notes = list(plan.notes)
    if tokenizer is None and wanted.tokenizer != "none":
        notes.append(f"written without tokenizer files: {not_found(config).what}; name one with --tokenizer")
    sketcher = Sketcher(plan)
    with staged_folder(out, wanted.overwrite) as staged:
        checkpoint.prefetch()
        written = write_folder(checkpoint, plan, tokenizer, staged.path, sketcher)
        bytes_read = files.bytes_read
        ids = tokenizer.ids if tokenizer else None
        evidence = Evidence(checkpoint, config, plan, staged.path, written, source.step, sketcher.counts, ids)
        gates = run_gates(evidence, logits=wanted.logits, why_skipped="turned off", only=wanted.gates)
        if not any(gate.outcome == FAILED for gate in gates):
            staged.keep()
    return Conversion(
        out=out,
        step=checkpoint.state.iteration if source.step is None else source.step,
        tensors=len(plan.recipes),
        parameters=plan.parameters,
        dtype=plan.dtype,
        bytes_read=bytes_read,
        bytes_read_again=files.bytes_read - bytes_read,
        files=written.files,
        gates=gates,
        notes=tuple(notes),
    )
