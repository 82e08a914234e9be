"""The two layouts that GPT-NeoX writes, told apart by file names, and the names inside them made one.

Sequential (``pipe-parallel-size: 0``): all weights in ``mp_rank_XX_model_states.pt``. Pipeline (1 or more):
``layer_NN-model_XX-model_states.pt``, with ``mp_rank_*`` files that hold no weights, as many as PP x TP.
Layer files start at 02: 00 is the embedding, 01 and L+2 are functions without weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publish.errors import CheckpointError

_LAYER_FILE = re.compile(r"layer_([0-9]{2,5})-model_([0-9]{2,4})-model_states\.pt")
_RANK_FILE = re.compile(r"mp_rank_([0-9]{2,5})_model_states\.pt")
_SEQUENTIAL_NAME = re.compile(r"sequential\.([0-9]{1,5})\.(.+)")
_SCAFFOLD = 10_000  # more layers than any model has


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files hold what: ``layers[rank][file number]`` for pipelines, ``ranks`` for the ``mp_rank_*`` files."""

    name: str  # sequential, pipeline
    tensor_parallel: int
    ranks: tuple[str, ...]
    layers: tuple[Mapping[int, str], ...]

    @property
    def pipeline_parallel(self) -> int:
        """Pipeline stages; 0 for the sequential layout, as GPT-NeoX counts."""
        return 0 if self.name == "sequential" else max(1, len(self.ranks) // self.tensor_parallel)


def is_checkpoint(names: Mapping[str, int] | set[str]) -> bool:
    """Whether these file names are those of a raw checkpoint."""
    return any(_LAYER_FILE.fullmatch(name) or _RANK_FILE.fullmatch(name) for name in names)


def find_layout(names: Mapping[str, int], where: str) -> Layout:
    """The layout that the file names show.

    Raises:
        CheckpointError: no checkpoint, or files missing from it.
    """
    ranks = {int(found[1]): name for name in names if (found := _RANK_FILE.fullmatch(name))}
    layers: dict[int, dict[int, str]] = {}
    for name in names:
        if found := _LAYER_FILE.fullmatch(name):
            layers.setdefault(int(found[2]), {})[int(found[1])] = name
    if not ranks and not layers:
        raise CheckpointError(
            "no GPT-NeoX checkpoint here: neither mp_rank_*_model_states.pt nor layer_*-model_*-model_states.pt",
            where,
            "name a folder (or a revision) that GPT-NeoX's save_checkpoint wrote",
        )
    _complete(ranks, "mp_rank", where)
    _complete(layers, "tensor-parallel rank", where)
    if not layers:
        return Layout("sequential", len(ranks), tuple(ranks[rank] for rank in sorted(ranks)), ())
    _same_layers(layers, where)
    by_rank = tuple(layers[rank] for rank in sorted(layers))
    return Layout("pipeline", len(layers), tuple(ranks[rank] for rank in sorted(ranks)), by_rank)


def _complete(found: Mapping[int, object], kind: str, where: str) -> None:
    if missing := sorted(set(range(max(found, default=-1) + 1)) - set(found))[:8]:
        raise CheckpointError(
            f"files of {kind} {', '.join(map(str, missing))} are missing", where, "fetch the missing files"
        )


def _same_layers(layers: Mapping[int, Mapping[int, str]], where: str) -> None:
    everywhere = set().union(*layers.values())
    for rank, files in layers.items():
        if missing := sorted(everywhere - set(files)):
            raise CheckpointError(
                f"layer file {missing[0]:02} of rank {rank:02} is missing", where, "fetch the missing file"
            )
    numbers = sorted(everywhere)
    if numbers[0] != 0 or numbers[-1] > _SCAFFOLD:
        raise CheckpointError("the embedding's file layer_00 is missing", where, "fetch the missing file")
    gaps = [number for number in range(2, max(numbers)) if number not in everywhere]
    if len(gaps) != 1 or gaps[0] not in (numbers[-1] - 1, numbers[-1] - 2):
        missing = [number for number in gaps if number < numbers[-1] - 2] or gaps or [numbers[-1] + 1]
        raise CheckpointError(
            f"layer file {missing[0]:02} is missing: found {_ranges(numbers)}",
            where,
            "fetch the missing file; a checkpoint has 00, 02 to L+1, L+3 and (untied) L+4",
        )


def _ranges(numbers: list[int]) -> str:
    return ", ".join(f"{number:02}" for number in numbers[:4]) + (f" ... {numbers[-1]:02}" if len(numbers) > 4 else "")


def sequential_names(names: Mapping[str, object], where: str) -> Iterator[tuple[str, str]]:
    """(name in the file, canonical name) for the ``module`` of a sequential checkpoint."""
    numbered = {}
    for name in names:
        found = _SEQUENTIAL_NAME.fullmatch(name)
        if found is None or int(found[1]) > _SCAFFOLD:
            raise CheckpointError(
                f"{name!r} is no weight of a GPT-NeoX model",
                where,
                "only language models of GPT-NeoX can be read",
            )
        numbered[name] = (int(found[1]), found[2])
    norm = max((number for number, local in numbered.values() if local.startswith("norm.")), default=None)
    for name, (number, local) in numbered.items():
        yield name, canonical(number, local, norm, where)


def canonical(number: int, local: str, norm: int | None, where: str) -> str:
    """The canonical name of ``local`` in layer file (or sequential index) ``number``.

    ``norm`` is the number of the final norm's, L + 3.
    """
    if number == 0:
        return {
            "word_embeddings.weight": "embedding.weight",
            "position_embeddings.weight": "position_embedding.weight",
        }.get(local, f"embedding_layer.{local}")
    if norm is not None and number == norm:
        return f"final_norm.{local.removeprefix('norm.')}"
    if norm is not None and number == norm + 1 and local == "final_linear.weight":
        return "unembedding.weight"
    if number >= 2 and (norm is None or number <= norm - 2):
        return f"layers.{number - 2}.{local}"
    raise CheckpointError(
        f"{local!r} stands at place {number}, where a GPT-NeoX model has no weights",
        where,
        "fetch the files again",
    )
