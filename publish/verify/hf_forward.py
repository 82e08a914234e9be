"""What transformers makes of a converted folder: does it load strictly, and which logits does it give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from publish.errors import GateError
from publish.verify.gate import GateResult, could_not_read, failed, passed, some
from publish.verify.hf_model import config_of, hollow_model
from publish.verify.models import Models
from publish.verify.weightfile import WeightFolder, opened

if TYPE_CHECKING:
    import torch

STRICT_LOAD = "strict-load"


def hf_logits(folder: Path, tokens: NDArray[np.int64], config: bytes | None = None) -> torch.Tensor:
    """Logits (batch, seq, vocabulary), float32: those of ``from_pretrained(folder, dtype=float32)``.

    ``config`` stands for the folder's ``config.json``.
    Bit for bit where no matrix has more than `hf_model.BLOCK` elements; larger ones are multiplied in blocks of rows,
    which may round otherwise. Memory is that of a block and the logits, not of the model.

    Raises:
        GateError: the folder cannot be loaded.
    """
    import torch

    with hollow_model(folder, config) as hollow:
        return hollow.logits(WeightFolder.open(folder), torch.from_numpy(tokens))


def strict_load(folder: Path | WeightFolder, models: Models | None = None) -> GateResult:
    """The files' tensors are exactly those of the transformers model: names (tied ones once) and shapes."""
    try:
        written = opened(folder)
        names = tuple(sorted(written.tensors))
        model = (models or Models()).skeleton(written.folder, config_of(written.folder), names)
        found, expected = model.loaded(written), model.expected
    except GateError as error:
        return could_not_read(STRICT_LOAD, error)
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found[name].name for name in found.keys() - expected.keys())
    mismatched = [
        f"{name} is {list(found[name].shape)} where {list(expected[name])} is due"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name]
    ]
    figures = {
        "tensors": len(expected),
        "missing": len(missing),
        "unexpected": len(unexpected),
        "mismatched": len(mismatched),
    }
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    if wrong := [f"{kind}: {some(names)}" for kind, names in kinds if names]:
        return failed(STRICT_LOAD, f"{model.architecture}: {'; '.join(wrong)}", **figures)
    return passed(
        STRICT_LOAD, f"{model.architecture} loads all {len(expected)} tensors, none missing or left over", **figures
    )
