"""The safetensors format: an 8-byte length, a JSON header, the tensors' bytes without gaps.

Source: https://huggingface.co/docs/safetensors, and safetensors' ``serialize``, whose output this equals byte for
byte: tensors sorted by name (they have one dtype), ``__metadata__`` first, spaces up to a multiple of 8 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from publish.convert.dtypes import SAFETENSORS
from publish.convert.recipes import ConversionPlan, WeightFile

FORMAT_PT = {"format": "pt"}  # transformers refuses files without it


def header(file: WeightFile) -> bytes:
    """The bytes before the tensors: length (8, little endian) and padded JSON."""
    entries: dict[str, object] = {"__metadata__": FORMAT_PT}
    at = 0
    for recipe in file.recipes:
        entries[recipe.name] = {
            "dtype": SAFETENSORS[recipe.dtype],
            "shape": list(recipe.shape),
            "data_offsets": [at, at + recipe.nbytes],
        }
        at += recipe.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def file_size(file: WeightFile) -> int:
    """Bytes of the whole file, known before anything is written."""
    return len(header(file)) + sum(recipe.nbytes for recipe in file.recipes)


def index(plan: ConversionPlan) -> bytes:
    """``model.safetensors.index.json`` as transformers writes it: canonical JSON, names sorted."""
    places: Mapping[str, str] = {recipe.name: file.name for file in plan.files for recipe in file.recipes}
    document = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": places}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
