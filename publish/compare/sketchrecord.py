"""A sketch as ``publish.json`` keeps it."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from publish.compare.sketch import StepSketch, TensorSketch
from publish.convert.dtypes import SAFETENSORS
from publish.errors import HubError


def document(sketch: StepSketch) -> dict[str, Any]:
    """A sketch for ``publish.json``, the sampled bits in base64."""
    return {
        name: {
            "dtype": SAFETENSORS[each.dtype],
            "elements": each.elements,
            "xxh3": each.digest,
            **({"xxh3_unsigned_zeros": each.unsigned} if each.unsigned != each.digest else {}),
            "mean": None if math.isnan(each.mean) else each.mean,
            "std": None if math.isnan(each.std) else each.std,
            "sample": base64.b64encode(each.bits).decode(),
        }
        for name, each in sketch.items()
    }


def from_document(found: Mapping[str, Any], where: object) -> dict[str, TensorSketch]:
    """The sketch that :func:`document` made.

    Raises:
        HubError: it is another one's, or was edited.
    """
    names = {short: long for long, short in SAFETENSORS.items()}
    try:
        return {name: _tensor(name, names[each["dtype"]], each) for name, each in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise HubError(f"the statistics cannot be read: {error!r}", where, "publish the step again") from error


def _tensor(name: str, dtype: str, each: Mapping[str, Any]) -> TensorSketch:
    digest, mean, std = str(each["xxh3"]), each["mean"], each["std"]
    return TensorSketch(
        name,
        dtype,
        int(each["elements"]),
        digest,
        str(each.get("xxh3_unsigned_zeros", digest)),
        math.nan if mean is None else float(mean),
        math.nan if std is None else float(std),
        base64.b64decode(each["sample"], validate=True),
    )
