"""Converted folders, and ways to damage one after it was written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from publish.convert.folder import write_folder
from publish.convert.plan import make_plan
from publish.lineage.sketch import Sketcher
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.records.gates import Gate
from publish.sources.files import LocalFiles
from publish.verify.gates import Evidence, run_gates
from publish.verify.weights import WeightFolder


def raw_case(folder: Path) -> tuple[RawCheckpoint, NeoxConfig]:
    raw = RawCheckpoint.open(LocalFiles(folder))
    return raw, read_config(raw)


def evidence_of(raw: RawCheckpoint, config: NeoxConfig, out: Path, step: int = 16, **options: Any) -> Evidence:
    plan = make_plan(raw, config, **options)
    sketcher = Sketcher(plan)
    written = write_folder(raw, plan, None, out, sketcher)
    return Evidence(raw, config, plan, out, written, step, sketcher.counts)


def every_gate(evidence: Evidence) -> tuple[Gate, ...]:
    return run_gates(evidence, logits=True, why_skipped="")


@dataclass(frozen=True)
class Spoiler:
    """Changes the weight file in ``folder`` in place."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "model.safetensors"

    def change(self, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace a 2-byte tensor by ``how`` of it (as uint16)."""
        tensor = WeightFolder.open(self.folder).tensors[name]
        content = bytearray(self.path.read_bytes())
        end = tensor.offset + tensor.nbytes
        before = np.frombuffer(bytes(content[tensor.offset : end]), "<u2").reshape(tensor.shape)
        after = np.ascontiguousarray(how(before.copy()))
        assert after.nbytes == tensor.nbytes
        assert not np.array_equal(after.reshape(before.shape), before), "the fault changes nothing"
        content[tensor.offset : end] = after.tobytes()
        self.path.write_bytes(content)

    def read(self, name: str) -> np.ndarray:
        tensor = WeightFolder.open(self.folder).tensors[name]
        content = self.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
        return np.frombuffer(content, "<u2").reshape(tensor.shape)

    def swap(self, one: str, other: str) -> None:
        first, second = self.read(one), self.read(other)
        self.change(one, lambda _: second)
        self.change(other, lambda _: first)

    def header(self, how: Callable[[dict[str, Any]], object]) -> None:
        """Rewrite the JSON header; the tensors' bytes stay as they are."""
        content = self.path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + length])
        how(entries)
        text = json.dumps(entries).encode()
        self.path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    def config(self, changes: Mapping[str, Any]) -> None:
        path = self.folder / "config.json"
        document = {**json.loads(path.read_bytes()), **changes}
        path.write_text(json.dumps(document))
