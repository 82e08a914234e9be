"""``publish.json``, the record in every branch: what was read, what was written, what was verified.

A pure function of facts: canonical JSON (sorted keys, two spaces, a newline at the end), no clock. Everything in it is
a value; sentences and table cells are made of the values by ``cards/``. Reading ignores unknown keys, so that an older
tool reads what a newer one wrote.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.records.codec import canonical, read_record
from publish.records.files import README, FileRecord
from publish.records.gates import Gate

NAME = "publish.json"
SCHEMA = 1
WEIGHTS = ".safetensors"
MODEL = "model"  # a kind of branch
HF = "hf"  # a format of its files: Hugging Face's
NOT_FINITE = ("nan", "inf", "-inf")  # how a note has such figures
REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not-reproduced"  # outcomes of an explanation


@dataclass(frozen=True, slots=True)
class Note:
    """A statement: what is stated, as a code, and the figures in it. ``publish.cards.sentences`` has the sentences."""

    code: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def note(code: str, **figures: Any) -> Note:
    """A note with figures as JSON has them: names as a list, a float to six digits, or as text if it is not finite."""
    return Note(code, {name: _figure(value) for name, value in figures.items()})


def _figure(value: Any) -> Any:
    if isinstance(value, float):
        return six_digits(value) if math.isfinite(value) else str(value)
    return list(value) if isinstance(value, tuple) else value


def six_digits(value: float) -> float:
    """``value`` to six significant digits: more of them depend on the machine that summed."""
    return float(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source file. ``digest`` is the store's digest of it, ``sha256:...`` or ``git:...``; None for a folder."""

    path: str
    size: int
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the raw checkpoint is: a Hub repo at a commit, or a folder.

    For a folder ``location`` is its name and ``commit`` is ``index:`` and a fingerprint of its files, or None.
    """

    location: str
    commit: str | None = None
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Converter:
    """What wrote the branch."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Training:
    """What the checkpoint says about its training; ``random_states`` maps a generator to a SHA-256 of its state."""

    iteration: int | None = None
    learning_rate: float | None = None
    loss_scale: float | None = None
    skipped_steps: int | None = None
    deepspeed_version: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    random_states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensors:
    """How many tensors were written, and a digest over the digests of them."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class LayerType:
    """The standard deviation of all weights of one layer type."""

    name: str
    std: float


@dataclass(frozen=True, slots=True)
class ConfigOverride:
    """A key of ``config.json`` that holds ``value``, where the run's own config makes it ``instead_of``."""

    key: str
    value: Any
    instead_of: Any


@dataclass(frozen=True, slots=True)
class ComparedLayerType:
    """One layer type of two models: standard deviations, their ratio, and its standard error if both were drawn alike.

    ``ratio`` and ``ratio_error`` are None if a side is constant. ``expected_std`` is what the init method predicts,
    None if that is unknown or neither model is at initialisation.
    """

    name: str
    elements: int
    left_std: float | None
    right_std: float | None
    ratio: float | None
    ratio_error: float | None
    expected_std: float | None


@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """The step (left) compared with the model at ``location`` (right); counts are of tensors.

    ``limit``: the standard errors that chance exceeds in any test of only 1 in 1,000 comparisons.
    """

    location: str
    verdict: str
    tensors: int
    bitwise_equal: int
    equal_up_to_zero_sign: int
    different: int
    only_left: int
    only_right: int
    shape_mismatch: int
    limit: float
    layer_types: tuple[ComparedLayerType, ...] = ()
    reasons: tuple[Note, ...] = ()

    @property
    def ratios(self) -> tuple[tuple[str, float, float], ...]:
        """Layer type, ratio of standard deviations, its standard error; of those that vary in both models."""
        return tuple(
            (kind.name, kind.ratio, kind.ratio_error)
            for kind in self.layer_types
            if kind.ratio is not None and kind.ratio_error is not None
        )

    def margin(self, layer_type: ComparedLayerType) -> float | None:
        """How far the ratio may be from 1 by chance if both models are drawn alike, corrected for all tests."""
        if not layer_type.ratio or layer_type.ratio_error is None:
            return None
        return self.limit * layer_type.ratio_error / layer_type.ratio


@dataclass(frozen=True, slots=True)
class Preceding:
    """What was drawn before the first tensor: ``position`` numbers (CPU), or up to that offset of the generator (CUDA).

    ``constructions``: the number of whole models of this shape that draw as much (0: nothing was drawn), or None.
    ``tensors``: the tensors of which any one draws as much.
    """

    position: int
    constructions: int | None = None
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RngState:
    """The random state that a model's initial weights come from, as far as it is known.

    ``generator`` is ``cpu-mt19937`` or ``cuda-philox``; ``seed`` is the run's, ``seeds`` are those of the
    tensor-parallel ranks' generators. ``threads`` and ``devices`` are of the GPU: None and all possible ones if no
    tensor reveals them. ``after`` is the offset that the checkpoint stores of a GPU's generator.
    """

    generator: str
    seed: int | None
    seeds: tuple[int, ...]
    preceding: Preceding | None = None
    threads: int | None = None
    devices: tuple[str, ...] = ()
    after: int | None = None

    @property
    def position(self) -> int | None:
        """Where the first tensor was drawn; None where only a later state is known."""
        return self.preceding.position if self.preceding else None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which random state made the initial weights, and how far recomputing them proves it.

    ``rng_state`` is None where nothing was reproduced. ``tensors``
    and ``values`` count what was drawn; ``stored_state`` (``equal``, ``different``, ``absent``) compares the state that
    the checkpoint stores with the one that drawing ends in. ``layout`` is GPT-NeoX's (``sequential``, ``pipeline``).
    """

    outcome: str
    rng_state: RngState | None
    layout: str | None
    tensors: int
    values: int
    bit_equal: int
    within_one_ulp: int
    stored_state: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``publish.json``. ``files`` are those of the branch except ``publish.json`` itself.

    ``dtype`` is the written one, ``source_dtype`` the checkpoint's; ``tokenizer`` is a fingerprint. ``sketch`` is by
    tensor, in the form of ``publish.lineage.sketch``.
    """

    step: int
    branch: str
    tokens: int | None
    source: Source
    plan: str
    converter: Converter
    files: tuple[FileRecord, ...]
    dtype: str
    source_dtype: str
    architecture: str
    parameters: int
    tensors: Tensors
    gates: tuple[Gate, ...] = ()
    training: Training = Training()
    tokenizer: str | None = None
    layer_types: tuple[LayerType, ...] = ()
    sketch: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[ConfigOverride, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()
    explanation: Explanation | None = None
    kind: str = MODEL
    format: str = HF
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
        return next((file.sha256 for file in self.files if file.path == README), None)

    @classmethod
    def from_bytes(cls, content: bytes, where: object) -> Manifest:
        """Read one.

        Raises:
            HubError: not JSON, a required key is missing, or a value has another type; it names the key.
        """
        return read_record(cls, content, where)
