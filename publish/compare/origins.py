"""Where two models come from, by what they say themselves: seeds, init methods, precision, data, random states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.compare.comparison import SideFacts
from publish.explain.difference import differences as state_differences

# of GPT-NeoX; what decides the initial weights and what they were then trained on
_OPTIONS = (
    *("seed", "init_method", "output_layer_init_method", "init_method_std", "precision", "fp16", "bf16"),
    *("model_parallel_size", "pipe_parallel_size", "train_data_paths", "data_path"),
    *("num_layers", "hidden_size", "num_attention_heads", "optimizer", "train_iters"),
)
# of a Hugging Face config; spellings of both transformers 4 and 5 name the same thing, so one of each
_CONFIG = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "vocab_size", "max_position_embeddings", "hidden_act", "use_parallel_residual"),
    *("tie_word_embeddings", "torch_dtype"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that both sides state, and state otherwise."""

    name: str
    left: str
    right: str


def differences(left: SideFacts, right: SideFacts) -> tuple[Difference, ...]:
    """What the sides say of themselves and do not agree on: options, where both have them, else configs."""
    ours, theirs = left.account, right.account
    both_raw = bool(ours.options and theirs.options)
    pairs = (ours.options, theirs.options) if both_raw else (ours.config, theirs.config)
    return tuple(_differences(*pairs, _OPTIONS if both_raw else _CONFIG))


def _differences(left: Mapping[str, Any], right: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Difference]:
    for name in names:
        one, other = left.get(name), right.get(name)
        if one != other and not (one is None or other is None):
            yield Difference(name, _short(one), _short(other))


def origin_reasons(left: SideFacts, right: SideFacts) -> tuple[str, ...]:
    """What explains a verdict, in sentences: differing statements, equal seeds, random states."""
    found = [f"{each.name} differs: {each.left} / {each.right}" for each in differences(left, right)]
    return (*found, *_seed(left, right), *_states(left, right))


def _seed(left: SideFacts, right: SideFacts) -> Iterator[str]:
    seeds = (left.account.options.get("seed"), right.account.options.get("seed"))
    if seeds[0] is not None and seeds[0] == seeds[1]:
        yield f"both configs have seed {seeds[0]}"


def _states(left: SideFacts, right: SideFacts) -> Iterator[str]:
    """Training without dropout never draws from the tracker, so its state is that of the start, at any step."""
    for name in sorted(left.account.states.keys() & right.account.states.keys()):
        if name.startswith("tracker:"):
            same = left.account.states[name] == right.account.states[name]
            yield f"the stored state of {name.removeprefix('tracker:')} is {'the same' if same else 'another'}"
    origins = (left.account.origin, right.account.origin)
    if origins[0] is not None and origins[1] is not None:
        yield from state_differences(origins[0], origins[1])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
