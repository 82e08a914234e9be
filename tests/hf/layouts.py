"""One model written in every layout that ``from_pretrained`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from tests.compare.models import Arrays, safetensors


def _whole(folder: Path, tensors: Arrays, single: str) -> None:
    if single.endswith(".safetensors"):
        (folder / single).write_bytes(safetensors(tensors))
    else:
        torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, folder / single)


def _sharded(folder: Path, tensors: Arrays, single: str) -> None:
    stem, ending = single.split(".")
    names = list(tensors)
    places = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"{stem}-0000{number}-of-00002.{ending}"
        _whole(folder, {name: tensors[name] for name in part}, file)
        places |= dict.fromkeys(part, file)
    (folder / f"{single}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


LAYOUTS: dict[str, tuple[Callable[[Path, Arrays, str], None], str]] = {
    "safetensors": (_whole, "model.safetensors"),
    "sharded safetensors": (_sharded, "model.safetensors"),
    "bin": (_whole, "pytorch_model.bin"),
    "sharded bin": (_sharded, "pytorch_model.bin"),
}


def write(folder: Path, tensors: Arrays, layout: str) -> Path:
    """The model's folder in one of `LAYOUTS`."""
    folder.mkdir(parents=True)
    save, single = LAYOUTS[layout]
    save(folder, tensors, single)
    return folder
