"""``publish.json``, the record in every branch: what was read, what was written, what was proven.

A pure function of facts: canonical JSON (sorted keys, two spaces, a newline at the end), no clock. Reading
ignores keys it does not know, so that an older tool reads what a newer one wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.cards.facts import Explanation
from publish.plots.records import Ratio
from publish.records.codec import canonical, read_record
from publish.records.files import FileRecord
from publish.records.gates import Gate

NAME = "publish.json"
SCHEMA = 1
WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source file: its sha256 where the Hub lists it or we read it whole, else its git blob id."""

    path: str
    size: int
    sha256: str | None = None
    oid: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the raw checkpoint is. `repo` and `commit` are None for a folder."""

    location: str
    repo: str | None = None
    commit: str | None = None
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Converter:
    """What wrote the branch."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Training:
    """What the checkpoint says of its training; ``random_states`` are digests by generator."""

    iteration: int | None = None
    learning_rate: float | None = None
    loss_scale: float | None = None
    skipped_steps: int | None = None
    deepspeed_version: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    random_states: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensors:
    """How many tensors, and one digest over all of them."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """The step compared with another model, as a card shows it; ``location`` is where the other one was.

    ``ratios`` are what its plot shows.
    """

    location: str
    title: str
    verdict: str
    reasons: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    ratios: tuple[Ratio, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that ``publish.json`` says. `files` are those of the branch but for ``publish.json`` itself.

    `comparisons` are of this step with other models, as its card shows them.
    `dtype` is the written one, `source_dtype` the checkpoint's; `overrides` are values of ``config.json`` that the
    release file gives instead of the run's own.
    """

    step: int
    branch: str
    tokens: int | None
    source: Source
    plan: str
    converter: Converter
    files: tuple[FileRecord, ...]
    dtype: str
    architecture: str
    parameters: int
    tensors: Tensors
    gates: tuple[Gate, ...] = ()
    training: Training = Training()
    tokenizer: str | None = None
    statistics: Mapping[str, Any] | None = None
    notes: str = ""
    source_dtype: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    comparisons: tuple[ComparisonRecord, ...] = ()
    explanation: Explanation | None = None
    schema: int = SCHEMA

    def to_bytes(self) -> bytes:
        """Canonical JSON. Raises ValueError on NaN or infinity, which JSON does not have."""
        return canonical(self)

    @property
    def digest(self) -> str:
        """The sha256 of :meth:`to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def weights(self) -> tuple[str, ...]:
        """The sha256 of the branch's weight files."""
        return tuple(file.sha256 for file in self.files if file.path.endswith(WEIGHTS))

    @property
    def card(self) -> str | None:
        """The sha256 of the branch's README.md."""
        return next((file.sha256 for file in self.files if file.path == "README.md"), None)

    @classmethod
    def from_bytes(cls, content: bytes, where: object) -> Manifest:
        """Read one.

        Raises:
            HubError: no JSON, a required key absent, or a value of another type; it names the key.
        """
        return read_record(cls, content, where)
