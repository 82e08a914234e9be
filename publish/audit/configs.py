"""``config.json`` against the weights' headers, and against the other steps'."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.audit.records import Branch, Suite, evidence_of, named, steps_of
from publish.audit.weights import SAFETENSORS, weight_sets
from publish.formats.safetensors import HeaderTensor
from publish.records.findings import Evidence, Finding

CONFIG = "config.json"
FREE = frozenset({"transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype", "use_cache"})
SHOWN = 60  # characters of a config's value
DTYPES: Mapping[str, str] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)(?:embed_out|lm_head)\.weight$")


@dataclass(frozen=True, slots=True)
class Size:
    """A number of the config that is a dimension of some tensor, in GPT-NeoX's and Llama's naming."""

    key: str
    tensor: re.Pattern[str]
    dimension: int


SIZES = (
    Size("vocab_size", re.compile(r"(?:^|\.)(?:embed_in|embed_tokens|wte)\.weight"), 0),
    Size("hidden_size", re.compile(r"(?:^|\.)(?:embed_in|embed_tokens|wte)\.weight"), 1),
    Size("intermediate_size", re.compile(r".*layers\.0\.mlp\.(?:dense_h_to_4h|up_proj)\.weight"), 0),
)


def read_config(branch: Branch) -> dict[str, Any] | None:
    """The branch's config; None where it is absent or no JSON object."""
    try:
        config = json.loads(branch.texts.get(CONFIG, b""))
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def config_mismatch(suite: Suite) -> Iterator[Finding]:
    """Configs that are absent, unreadable, contradict the weights, or differ from those of most other steps."""
    problems: dict[str, list[Branch]] = {}
    usual = _usual(suite)
    for branch in (*suite.steps, *([suite.main] if suite.main else [])):
        if branch.headers or CONFIG in branch.files or branch.label:
            for what in _problems(branch, usual.get(branch.series)):
                problems.setdefault(what, []).append(branch)
    for what, branches in problems.items():
        evidence = tuple(_evidence(branch, what) for branch in branches)
        yield Finding("config-mismatch", steps_of(branches), f"{named(branches)}: {what}", evidence, suite.repo)


def _evidence(branch: Branch, what: str) -> Evidence:
    if CONFIG in branch.files:
        return evidence_of(branch, branch.files[CONFIG], what)
    return Evidence(branch.name, branch.commit, CONFIG, note=what)


def _problems(branch: Branch, usual: Mapping[str, Any] | None) -> Iterator[str]:
    if CONFIG not in branch.files:
        if branch.headers:  # without weights the step is missing, which is told as such
            yield f"there is no {CONFIG}"
        return
    config = read_config(branch)
    if config is None:
        yield f"{CONFIG} is no JSON object"
        return
    tensors = _tensors(branch)
    against_weights = list(contradictions(config, tensors)) if tensors else []
    yield from against_weights
    if usual is not None and not against_weights:
        for key in sorted((config.keys() | usual.keys()) - FREE):
            if config.get(key) != usual.get(key):
                yield f"{key[:40]} is {_short(config.get(key))}, and {_short(usual.get(key))} in most other steps"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _tensors(branch: Branch) -> dict[str, HeaderTensor]:
    """All tensors by name; none where a file is missing or cut short, which is told as such."""
    weights = weight_sets(branch).get(SAFETENSORS)
    headers = list(branch.headers.values())
    if weights is None or weights.missing or not all(header.tensors for header in headers):
        return {}
    return {tensor.name: tensor for header in headers for tensor in header.tensors}


def contradictions(config: Mapping[str, Any], tensors: Mapping[str, HeaderTensor]) -> Iterator[str]:
    """Numbers of the config that the tensors' shapes, names or types contradict. What one side lacks is not judged."""
    for size in SIZES:
        found = next((tensor for name, tensor in tensors.items() if size.tensor.search(name)), None)
        stated = config.get(size.key)
        known = found is not None and len(found.shape) == 2 and type(stated) is int
        if found is not None and known and stated != found.shape[size.dimension]:
            yield f"{size.key} is {stated}, and {found.name} is {list(found.shape)}"
    for check in (_layers, _heads, _tied, _dtype):
        yield from check(config, tensors)


def _layers(config: Mapping[str, Any], tensors: Mapping[str, HeaderTensor]) -> Iterator[str]:
    layers = {int(found[1]) for name in tensors if (found := _LAYER.search(name))}
    stated = config.get("num_hidden_layers")
    if layers and type(stated) is int and (len(layers), max(layers)) != (stated, stated - 1):
        yield f"num_hidden_layers is {stated}, and the weights have {len(layers)} layers up to number {max(layers)}"


def _heads(config: Mapping[str, Any], tensors: Mapping[str, HeaderTensor]) -> Iterator[str]:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if type(hidden) is not int or type(heads) is not int or heads < 1:
        return
    groups, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    if config.get("head_dim") is None and hidden % heads:
        yield f"hidden_size {hidden} is no multiple of num_attention_heads {heads}"
    key = next((t for name, t in tensors.items() if name.endswith("layers.0.self_attn.k_proj.weight")), None)
    if key is not None and len(key.shape) == 2 and groups * size != key.shape[0]:
        yield f"num_key_value_heads {groups} of {size} make {groups * size}, and {key.name} is {list(key.shape)}"


def _tied(config: Mapping[str, Any], tensors: Mapping[str, HeaderTensor]) -> Iterator[str]:
    head = any(_HEAD.search(name) for name in tensors)
    model = any(size.tensor.search(name) for name in tensors for size in SIZES[:1])
    if config.get("tie_word_embeddings") is False and model and not head:
        yield "tie_word_embeddings is false, and the weights have no output embedding"


def _dtype(config: Mapping[str, Any], tensors: Mapping[str, HeaderTensor]) -> Iterator[str]:
    stated = config.get("dtype") or config.get("torch_dtype")
    types = {DTYPES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()}
    if isinstance(stated, str) and len(types) == 1 and types.isdisjoint({stated.removeprefix("torch.")}):
        yield f"dtype is {stated}, and the weights are {types.pop()}"


def _usual(suite: Suite) -> dict[str, Mapping[str, Any]]:
    """The config that most steps of each series have, where more than half have the same."""
    texts: dict[str, Counter[str]] = {}
    for branch in suite.steps:
        config = read_config(branch)
        if config is not None:
            relevant = {key: value for key, value in config.items() if key not in FREE}
            texts.setdefault(branch.series, Counter())[json.dumps(relevant, sort_keys=True)] += 1
    usual = {series: counts.most_common(1)[0] + (counts.total(),) for series, counts in texts.items()}
    return {series: json.loads(text) for series, (text, count, total) in usual.items() if 2 * count > total > 2}
