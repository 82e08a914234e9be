"""Checks of ``config.json``, against the weights' headers and against the other steps."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.audit.records import CONFIG, Branch, Series, Suite, shorten
from publish.dtypes import BY_SAFETENSORS
from publish.formats.safetensors import TensorInfo
from publish.records.findings import Finding

MAY_DIFFER = frozenset({"transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype", "use_cache"})
MAX_SHOWN = 60  # characters of a config's value
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")  # the layer's number in a tensor's name
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_in|embed_tokens|wte)\.weight")
_OUTPUT_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_out|lm_head)\.weight$")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A number of the config that is a dimension of a tensor, in GPT-NeoX's and Llama's naming."""

    key: str
    tensor: re.Pattern[str]
    axis: int


DIMENSIONS = (
    Dimension("vocab_size", _EMBEDDING, 0),
    Dimension("hidden_size", _EMBEDDING, 1),
    Dimension("intermediate_size", re.compile(r".*layers\.0\.mlp\.(?:dense_h_to_4h|up_proj)\.weight"), 0),
)


def config_mismatch(suite: Suite) -> Iterator[Finding]:
    """Configs that are missing, unreadable, contradict the weights, or differ from those of most other steps.

    One finding for each problem, with all branches that have it.
    """
    problems: dict[str, list[Branch]] = {}
    usual = _usual_configs(suite)
    for branch in suite.branches:
        if branch.headers or CONFIG in branch.files or branch.label:
            for what in _problems(branch, usual.get(branch.series)):
                problems.setdefault(what, []).append(branch)
    for what, branches in problems.items():
        evidence = [branch.evidence(CONFIG, what) for branch in branches]
        yield suite.finding("config-mismatch", branches, f"{shorten(branches)}: {what}", evidence)


def _usual_configs(suite: Suite) -> dict[Series, Mapping[str, Any]]:
    """Series -> the config that more than half of its steps have."""
    counts: dict[Series, Counter[str]] = {}
    for branch in suite.steps:
        if branch.config is not None:
            relevant = {key: value for key, value in branch.config.items() if key not in MAY_DIFFER}
            counts.setdefault(branch.series, Counter())[json.dumps(relevant, sort_keys=True)] += 1
    usual: dict[Series, Mapping[str, Any]] = {}
    for series, configs in counts.items():
        text, count = configs.most_common(1)[0]
        if 2 * count > configs.total() > 2:
            usual[series] = json.loads(text)
    return usual


def _problems(branch: Branch, usual: Mapping[str, Any] | None) -> Iterator[str]:
    if CONFIG not in branch.files:
        if branch.headers:  # a branch without weights is reported as a missing step
            yield f"{CONFIG} is missing"
        return
    config = branch.config
    if config is None:
        yield f"{CONFIG} is not a JSON object"
        return
    tensors = _tensors(branch)
    found = list(contradictions(config, tensors)) if tensors else []
    yield from found
    if usual is not None and not found:
        for key in sorted((config.keys() | usual.keys()) - MAY_DIFFER):
            if config.get(key) != usual.get(key):
                yield f"{key[:40]} is {_shown(config.get(key))}, but {_shown(usual.get(key))} on most other steps"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _tensors(branch: Branch) -> dict[str, TensorInfo]:
    """All tensors by name; none where a file is missing or truncated, which is reported as a size mismatch."""
    headers = list(branch.headers.values())
    if branch.safetensors is None or branch.safetensors.missing or not all(header.tensors for header in headers):
        return {}
    return {tensor.name: tensor for header in headers for tensor in header.tensors}


def contradictions(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """Values of the config that contradict the tensors' shapes, names or dtypes; what either side lacks is skipped."""
    for dimension in DIMENSIONS:
        tensor = next((tensor for name, tensor in tensors.items() if dimension.tensor.search(name)), None)
        stated = config.get(dimension.key)
        if tensor is None or len(tensor.shape) != 2 or type(stated) is not int:
            continue
        if stated != tensor.shape[dimension.axis]:
            yield f"{dimension.key} is {stated}, but {tensor.name} has the shape {list(tensor.shape)}"

    layers = {int(found[1]) for name in tensors if (found := LAYER.search(name))}
    stated = config.get("num_hidden_layers")
    if layers and type(stated) is int and (len(layers), max(layers)) != (stated, stated - 1):
        yield f"num_hidden_layers is {stated}, but the weights have {len(layers)} layers up to number {max(layers)}"

    yield from _attention_heads(config, tensors)

    has_input = any(_EMBEDDING.search(name) for name in tensors)
    has_output = any(_OUTPUT_EMBEDDING.search(name) for name in tensors)
    if config.get("tie_word_embeddings") is False and has_input and not has_output:
        yield "tie_word_embeddings is false, but the weights have no output embedding"

    stated = config.get("dtype") or config.get("torch_dtype")
    stored = {tensor.dtype for tensor in tensors.values()}
    dtypes = {BY_SAFETENSORS[dtype].name if dtype in BY_SAFETENSORS else dtype for dtype in stored}
    if isinstance(stated, str) and len(dtypes) == 1 and dtypes != {stated.removeprefix("torch.")}:
        yield f"dtype is {stated}, but the weights are {dtypes.pop()}"


def _attention_heads(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if type(hidden) is not int or type(heads) is not int or heads < 1:
        return
    groups, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    if config.get("head_dim") is None and hidden % heads:
        yield f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}"
    key = next((tensor for name, tensor in tensors.items() if name.endswith("layers.0.self_attn.k_proj.weight")), None)
    if key is not None and len(key.shape) == 2 and groups * size != key.shape[0]:
        yield (
            f"num_key_value_heads {groups} times head_dim {size} is {groups * size}, "
            f"but {key.name} has the shape {list(key.shape)}"
        )
