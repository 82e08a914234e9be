"""The transformers model of a converted folder: what it expects of the files, and the logits it computes from them.

The model is built on torch's meta device and has no weights: they are read from the files while each module computes.
"""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from publish.errors import GateError
from publish.formats.dtypes import VIEWS, to_float32
from publish.formats.torch_archive import RawTensor
from publish.records.gates import Gate, could_not_read, failed, passed
from publish.text import some
from publish.verify.weights import CHUNK, WeightFolder, open_weights

if TYPE_CHECKING:
    import torch

STRICT_LOAD = "strict-load"
BLOCK = 1 << 18  # elements of a matrix that are in memory at a time
LOGITS_LOCK = threading.RLock()
"""Held by the one thread that builds a model (transformers patches torch meanwhile) or computes logits (torch's own
threads use every core)."""

_CACHED = 16  # configs whose models are kept: a run has one, unless overrides change it
_models: dict[bytes, MetaModel] = {}
_specs: dict[tuple[bytes, tuple[str, ...]], ModelSpec] = {}


def import_torch() -> None:
    """Import torch and transformers, which takes seconds during which other Python threads hardly run."""
    threshold = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)  # the import creates a million objects and no garbage: 0.4 of 5 seconds saved
    try:
        import torch  # noqa: F401
        from transformers import AutoConfig, AutoModelForCausalLM  # noqa: F401
    finally:
        gc.set_threshold(*threshold)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a transformers model expects of its files.

    ``expected`` maps the name of each parameter to its shape; of tied parameters it has the first. ``renamed`` maps the
    names of a file's tensors to those under which transformers loads them.
    """

    architecture: str
    expected: Mapping[str, tuple[int, ...]]
    renamed: Mapping[str, str]

    def loaded(self, folder: WeightFolder) -> dict[str, RawTensor]:
        """The folder's tensors by the names under which transformers loads them.

        Raises:
            GateError: two tensors of the folder load under one name.
        """
        found = dict[str, RawTensor]()
        for name, tensor in folder.tensors.items():
            if (other := found.setdefault(self.renamed[name], tensor)) is not tensor:
                what = f"{other.name} and {name} both load as {self.renamed[name]}"
                raise GateError(what, folder.folder, "drop one")
        return found


def model_spec(config: bytes, names: tuple[str, ...], where: object) -> ModelSpec:
    """The spec of the model of ``config``, the content of a ``config.json``, for files with tensors of these ``names``.

    It is computed once per config and names; other threads wait for it. ``where`` is named in errors.

    Raises:
        GateError: transformers cannot build the model.
    """
    if (known := _specs.get((config, names))) is None:  # without the lock: logits may be computed meanwhile
        with LOGITS_LOCK:
            if (known := _specs.get((config, names))) is None:
                if len(_specs) >= _CACHED:
                    _specs.clear()
                known = _specs[config, names] = meta_model(config, where).spec(names)
    return known


def meta_model(config: bytes, where: object) -> MetaModel:
    """The model of ``config``, built once. Hold :data:`LOGITS_LOCK` while you use it.

    Raises:
        GateError: transformers cannot build the model.
    """
    with LOGITS_LOCK:
        if (model := _models.get(config)) is None:
            if len(_models) >= _CACHED:
                _models.clear()
            model = _models[config] = MetaModel(_build(config, where))
        return model


class MetaModel:
    """A causal language model on the meta device. A parameter is in memory only while its own module computes.

    ``expected`` is that of :class:`ModelSpec`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.expected: dict[str, tuple[int, ...]] = {}
        self._renamed = cache(_renamer(model))
        self._canonical: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._canonical[name] = first.setdefault(id(parameter), name)
            self.expected.setdefault(self._canonical[name], tuple(parameter.shape))
        self._folder: WeightFolder | None = None
        self._files: Mapping[str, RawTensor] = {}
        self._lazy = [_LazyParameters(self, *named) for named in model.named_modules() if named[1]._parameters]

    def spec(self, names: Iterable[str]) -> ModelSpec:
        """What the model expects of files that hold tensors of these ``names``."""
        return ModelSpec(type(self.model).__name__, self.expected, {name: self._renamed(name) for name in names})

    def tensor(self, name: str) -> RawTensor:
        """The tensor from which the parameter ``name`` is read."""
        return self._files[self._canonical[name]]

    def read(self, tensor: RawTensor) -> torch.Tensor:
        """The tensor in float32, upcast chunk by chunk."""
        import torch

        assert self._folder is not None
        full = np.empty(tensor.shape, np.float32)
        flat, at = full.reshape(-1), 0
        for _, chunk in self._folder.chunks([tensor], min(CHUNK, tensor.nbytes)):
            numbers = to_float32(np.frombuffer(chunk, VIEWS[tensor.dtype]), tensor.dtype)
            flat[at : at + numbers.size] = numbers
            at += numbers.size
        return torch.from_numpy(full)

    def read_rows(self, tensor: RawTensor, start: int, count: int) -> torch.Tensor:
        """Rows of a matrix in float32."""
        width = tensor.shape[1] * tensor.itemsize
        return self.read(replace(tensor, shape=(count, tensor.shape[1]), offset=tensor.offset + start * width))

    def logits(self, folder: WeightFolder, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of ``tokens`` (batch, seq) int64: (batch, seq, vocabulary), float32.

        Raises:
            GateError: the folder lacks a tensor, a file is damaged, or transformers cannot compute with this config.
        """
        import torch

        self._folder, self._files = folder, self.spec(folder.tensors).loaded(folder)
        if missing := [name for name in self.expected if name not in self._files]:
            raise GateError(f"{missing[0]} is missing", folder.folder, "see the strict-load gate")
        try:
            with torch.no_grad():
                logits: torch.Tensor = self.model(input_ids=tokens, use_cache=False).logits
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:  # sizes that do not fit
            raise GateError(f"transformers cannot compute: {error}", folder.folder, "check config.json") from error
        finally:
            for parameters in self._lazy:
                parameters.drop()
        return logits


class _LazyParameters:
    """The parameters of one module: read from the files before it computes, dropped afterwards."""

    def __init__(self, owner: MetaModel, name: str, module: Any) -> None:
        import torch

        self.owner, self.name, self.module = owner, name, module
        self.on_meta = dict(module._parameters)
        if type(module) is torch.nn.Linear:
            vars(module)["forward"] = self._multiply
        else:
            module.register_forward_pre_hook(self._read)
            module.register_forward_hook(lambda *_: self.drop())

    def drop(self) -> None:
        self.module._parameters.update(self.on_meta)

    def _read(self, module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        import torch

        if isinstance(module, torch.nn.Embedding):  # read the rows of these tokens only, and index into those
            unique, index = arguments[0].unique(return_inverse=True)
            tensor = self.owner.tensor(f"{self.name}.weight")
            rows = torch.cat([self.owner.read_rows(tensor, row, 1) for row in unique.tolist()])
            module._parameters["weight"] = _parameter(rows)
            return (index, *arguments[1:])
        for local, value in self.module._parameters.items():
            if value is not None:
                full = f"{self.name}.{local}" if self.name else local
                module._parameters[local] = _parameter(self.owner.read(self.owner.tensor(full)))
        return None

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        """The product of torch.nn.Linear, a block of the weight's rows at a time."""
        import torch

        weight = self.owner.tensor(f"{self.name}.weight")
        bias = None if self.module.bias is None else self.owner.read(self.owner.tensor(f"{self.name}.bias"))
        out, width = weight.shape
        step = max(1, BLOCK // max(1, width))
        product = torch.empty(*x.shape[:-1], out)
        for start in range(0, out, step):
            count = min(step, out - start)
            part = None if bias is None else bias[start : start + count]
            rows = self.owner.read_rows(weight, start, count)
            product[..., start : start + count] = torch.nn.functional.linear(x, rows, part)
        return product


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(tensor, requires_grad=False)


def _build(config: bytes, where: object) -> Any:
    try:
        import_torch()
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "config.json").write_bytes(config)
            settings = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        model.eval()
        _rebuild_buffers(model)
    except Exception as error:  # transformers raises anything for a config that it does not accept
        raise GateError(
            f"transformers cannot build this model: {type(error).__name__}: {error}",
            where,
            "check the overrides of the release file against the config of this architecture",
        ) from error
    return model


def _rebuild_buffers(model: Any) -> None:
    """Create the modules with buffers that no file holds (rotary frequencies) again from the config, on the CPU."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module._buffers.values() if buffer is not None):
            parent, _, local = name.rpartition(".")
            setattr(model.get_submodule(parent), local, type(module)(config=module.config))
    if left := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise TypeError(f"the buffers {left} cannot be rebuilt")


def _renamer(model: Any) -> Callable[[str], str]:
    """How transformers renames the tensors of a file when it loads them (5.x: ``embed_out`` became ``lm_head``)."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key
    except ImportError:  # transformers 4.x renames nothing
        return str
    renamings = [renaming for renaming in get_model_conversion_mapping(model) if isinstance(renaming, WeightRenaming)]
    return lambda name: str(rename_source_key(name, renamings, [])[0])


def read_config_json(folder: Path) -> bytes:
    """The folder's ``config.json``.

    Raises:
        GateError: it cannot be read.
    """
    try:
        return (folder / "config.json").read_bytes()
    except OSError as error:
        raise GateError(f"config.json: {error.strerror}", folder, "convert the step again") from error


def hf_logits(folder: Path, tokens: NDArray[np.int64], config: bytes | None = None) -> torch.Tensor:
    """Logits (batch, seq, vocabulary), float32: those of ``from_pretrained(folder, dtype=float32)``.

    They are equal bit for bit where no matrix has more than `BLOCK` elements; larger ones are multiplied in blocks of
    rows, which may round differently. Memory is that of a block and the logits, not of the model. ``config`` replaces
    the content of the folder's ``config.json``.

    Raises:
        GateError: the folder cannot be loaded.
    """
    import torch

    config = read_config_json(folder) if config is None else config
    with LOGITS_LOCK:
        model = meta_model(config, folder / "config.json")
        return model.logits(WeightFolder.open(folder), torch.from_numpy(tokens))


def verify_strict_load(folder: Path | WeightFolder) -> Gate:
    """The tensors in the files are exactly those that the transformers model expects, by name and shape."""
    try:
        written = open_weights(folder)
        names = tuple(sorted(written.tensors))
        spec = model_spec(read_config_json(written.folder), names, written.folder / "config.json")
        found, expected = spec.loaded(written), spec.expected
    except GateError as error:
        return could_not_read(STRICT_LOAD, error)
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found[name].name for name in found.keys() - expected.keys())
    mismatched = [
        f"{name} has shape {list(found[name].shape)}, expected {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name]
    ]
    figures = {
        "tensors": len(expected),
        "missing": len(missing),
        "unexpected": len(unexpected),
        "mismatched": len(mismatched),
    }
    kinds = (("missing", missing), ("unexpected", unexpected), ("wrong shape", mismatched))
    if wrong := [f"{kind}: {some(names)}" for kind, names in kinds if names]:
        return failed(STRICT_LOAD, f"{spec.architecture}: {'; '.join(wrong)}", **figures)
    return passed(
        STRICT_LOAD, f"{spec.architecture} loads all {len(expected)} tensors; none missing, none unexpected", **figures
    )
