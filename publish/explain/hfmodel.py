"""A model in Hugging Face format: its tensors, the sizes that its config states, the tables that name its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publish.convert.architecture import CLASSES, GPT_NEOX
from publish.convert.merge import Heads
from publish.convert.rules import Tables, llama_tables, neox_tables
from publish.convert.sizes import Sizes
from publish.errors import ConfigError
from publish.explain.methods import DEFAULTS
from publish.explain.tensorfile import FileTensor, file_tensors
from publish.source.files import CheckpointFiles

CONFIG = "config.json"
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class HfModel:
    """The tensors of a model, and the sizes that its config states."""

    where: str
    tensors: Mapping[str, FileTensor]
    neox: bool
    layers: int
    tied: bool
    sigma: float
    sizes: Sizes
    heads: Heads

    def tables(self, era: str) -> Tables:
        """The rules that made the model, biases and norms apart."""
        if self.neox:
            return neox_tables(era=era, attention_biases=False, shared_norm=False, tied=self.tied, parallel=True)
        return llama_tables(era=era, attention_biases=False, tied=self.tied, parallel=True)


def read_model(files: CheckpointFiles) -> HfModel:
    """The model's tensors and sizes; no weight is read.

    Raises:
        ConfigError: no config, another architecture, or sizes that these tensors cannot have.
        CheckpointError: a broken file.
    """
    config = _config(files)
    kind = config.get("model_type")
    if kind not in CLASSES:
        raise ConfigError(
            f"model_type is {kind!r}", f"{files.where}/{CONFIG}", f"it should be one of {', '.join(CLASSES)}"
        )
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    layers, hidden, count, intermediate, vocabulary = (_size(config, name, files.where) for name in names)
    groups = _size(config, "num_key_value_heads", files.where, count)
    tensors = file_tensors(files)
    if hidden % count or layers > len(tensors):
        what = f"{layers:,} layers, {hidden:,} wide, with {count:,} heads do not fit {len(tensors):,} tensors"
        raise ConfigError(what, f"{files.where}/{CONFIG}", "fetch the model again")
    heads = Heads(count, groups, hidden // count)
    neox = kind == GPT_NEOX
    sigma = config.get("initializer_range")
    return HfModel(
        where=files.where,
        tensors=tensors,
        neox=neox,
        layers=layers,
        tied=("embed_out.weight" if neox else "lm_head.weight") not in tensors,
        sigma=float(sigma) if isinstance(sigma, float) else DEFAULTS[2],
        sizes=Sizes(vocabulary, hidden, (count + 2 * groups) * heads.size, intermediate),
        heads=heads,
    )


def _size(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    number = config.get(name)
    number = default if number is None else number
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise ConfigError(
            f"{name} is {number!r}", f"{where}/{CONFIG}", "a positive number is due; fetch the config again"
        )
    return number


def _config(files: CheckpointFiles) -> dict[str, Any]:
    where = f"{files.where}/{CONFIG}"
    if CONFIG not in files.sizes or files.sizes[CONFIG] > _MAX_CONFIG:
        raise ConfigError("no config.json beside the weights", where, "fetch the config as well")
    try:
        config = json.loads(bytes(files.open(CONFIG).read(0, files.sizes[CONFIG])))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}", where, "fetch the config again") from error
    if not isinstance(config, dict):
        raise ConfigError("no JSON object", where, "fetch the config again")
    return config
