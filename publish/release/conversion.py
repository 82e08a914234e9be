"""One checkpoint converted into a folder and verified there: shared by a release and by ``publish convert``."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from publish.cards.sentences import sentence
from publish.convert.folder import staged_folder, write_folder
from publish.convert.plan import ConversionPlan, make_plan
from publish.convert.tokenizer import Tokenizer, find_tokenizer, not_found
from publish.convert.writer import Written
from publish.errors import ReleaseError
from publish.lineage.sketch import Sketcher, StepSketch
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.records.files import FileRecord
from publish.records.gates import FAILED, Gate
from publish.release.claims import check_step
from publish.release.job import fetch_tokenizer
from publish.sources.files import CheckpointFiles
from publish.sources.runs import CheckpointRef
from publish.verify.gates import GATES, Evidence, run_gates


@dataclass(frozen=True, slots=True)
class Checks:
    """Which gates a converted checkpoint is put through; ``why_skipped`` explains a skipped logits gate."""

    logits: bool = True
    why_skipped: str = "turned off"
    gates: Collection[str] = GATES


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint in a folder, and what the gates found.

    ``bytes_read`` is what the conversion read from the source; a gate that reads weights again does not add to it.
    """

    config: NeoxConfig
    plan: ConversionPlan
    written: Written
    sketch: StepSketch
    gates: tuple[Gate, ...]
    bytes_read: int


def convert_and_verify(
    checkpoint: RawCheckpoint,
    config: NeoxConfig,
    plan: ConversionPlan,
    tokenizer: Tokenizer | None,
    folder: Path,
    *,
    step: int | None,
    checks: Checks = Checks(),
    stop: threading.Event | None = None,
) -> Converted:
    """Write the Hugging Face checkpoint into ``folder`` and run the gates on it.

    A gate that fails is in the result; the caller decides what follows. ``step`` is None where the location names none.

    Raises:
        PublishError: the checkpoint cannot be read, converted or written. Interrupted: ``stop`` was set.
    """
    checkpoint.prefetch()
    sketcher = Sketcher(plan)
    written = write_folder(checkpoint, plan, tokenizer, folder, observer=sketcher, stop=stop)
    bytes_read = checkpoint.files.bytes_read
    evidence = Evidence(
        checkpoint=checkpoint,
        config=config,
        plan=plan,
        folder=folder,
        written=written,
        step=step,
        counts=sketcher.counts,
        vocabulary=tokenizer.ids if tokenizer else None,
    )
    gates = run_gates(evidence, logits=checks.logits, why_skipped=checks.why_skipped, only=checks.gates, stop=stop)
    return Converted(config, plan, written, sketcher.result(), gates, bytes_read)


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """The options of ``publish convert``."""

    tokenizer: str | None = None
    dtype: str | None = None
    architecture: str | None = None
    overwrite: bool = False
    checks: Checks = Checks()


@dataclass(frozen=True)
class Conversion:
    """The result of ``publish convert``. ``notes`` name deviations and a missing tokenizer.

    ``bytes_read_again`` is what the logits gate read of weights that the conversion had read before.
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
        """The JSON of ``publish convert`` (docs/cli.md)."""
        return {
            "step": self.step,
            "out": str(self.out),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "bytes_read": self.bytes_read,
            "bytes_read_again": self.bytes_read_again,
            "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files],
            "gates": [asdict(gate) for gate in self.gates],
            "notes": list(self.notes),
        }


def parse_gates(text: str | None) -> tuple[str, ...]:
    """The gates of a comma-separated list; all gates without one.

    Raises:
        ReleaseError: an unknown gate.
    """
    names = GATES if text is None else tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in GATES]:
        raise ReleaseError(f"unknown gate {unknown[0]!r}", "--gates", f"choose from {', '.join(GATES)}")
    return names


def convert_one(ref: CheckpointRef, files: CheckpointFiles, out: Path, options: ConvertOptions) -> Conversion:
    """Convert into a folder beside ``out``, run the gates, and rename the folder to ``out`` when all of them pass.

    When a gate fails the folder is removed and the failed gates are in the result.

    Raises:
        PublishError: the checkpoint cannot be read, converted or written; nothing is left under ``out``.
    """
    checkpoint = RawCheckpoint.open(files)
    check_step(ref, checkpoint)
    config = read_config(checkpoint)
    plan = make_plan(checkpoint, config, options.dtype, options.architecture)
    folder = Path(files.where) if ref.commit is None else None
    tokenizer = find_tokenizer(options.tokenizer, config, folder, fetch_tokenizer)
    notes = [sentence(note) for note in plan.notes]
    if tokenizer is None and options.tokenizer != "none":
        notes.append(f"written without tokenizer files: {not_found(config).what}; name one with --tokenizer")
    with staged_folder(out, options.overwrite) as stage:
        converted = convert_and_verify(
            checkpoint, config, plan, tokenizer, stage.path, step=ref.step, checks=options.checks
        )
        conversion = Conversion(
            out=out,
            step=checkpoint.state.iteration if ref.step is None else ref.step,
            tensors=len(plan.recipes),
            parameters=plan.parameters,
            dtype=plan.dtype,
            bytes_read=converted.bytes_read,
            bytes_read_again=files.bytes_read - converted.bytes_read,
            files=converted.written.files,
            gates=converted.gates,
            notes=tuple(notes),
        )
        if not conversion.failed:
            stage.keep()
    return conversion
