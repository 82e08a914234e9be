"""A transformers model without weights: built on the meta device, filled module by module while it computes."""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from publish.dtypes import BY_SAFETENSORS
from publish.errors import GateError
from publish.formats.safetensors import WeightFolder, WrittenTensor, opened
from publish.records.gates import Gate, could_not_read, failed, passed
from publish.text import some
from publish.verify.apart import Compute, here

if TYPE_CHECKING:
    import torch


_CONFIGS = 8  # whose models are kept: a run has one, unless overrides change it
_KEPT_MODELS = 4  # models of one config: as many as compute at once, at most
BLOCK = 1 << 18  # elements of a matrix that are in memory at a time
_idle: dict[bytes, list[HollowModel]] = defaultdict(list)
_lock = threading.Lock()  # transformers patches torch while it builds a model


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A transformers model without weights, as a record: the class, the shape of every parameter, and renamings.

    ``expected`` maps each parameter's name to its shape; tied names stand once, under the first of them. ``renamed``
    maps a file's tensor names to those that transformers loads them under.
    """

    architecture: str
    expected: Mapping[str, tuple[int, ...]]
    renamed: Mapping[str, str]

    def loaded(self, folder: WeightFolder) -> dict[str, WrittenTensor]:
        """The folder's tensors by the names that transformers gives them when it loads: its own renamings apply.

        Raises:
            GateError: two tensors of the folder load as one.
        """
        found = dict[str, WrittenTensor]()
        for name, tensor in folder.tensors.items():
            if (other := found.setdefault(self.renamed[name], tensor)) is not tensor:
                what = f"{other.name} and {name} both load as {self.renamed[name]}"
                raise GateError(what, folder.folder, "drop one")
        return found


class HollowModel:
    """A causal language model whose parameters exist only while their own module computes; ``expected`` as in
    :class:`Skeleton`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.expected: dict[str, tuple[int, ...]] = {}
        self._renamed = cache(_renamer(model))
        self._canonical: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._canonical[name] = first.setdefault(id(parameter), name)
            self.expected.setdefault(self._canonical[name], tuple(parameter.shape))
        self._files: Mapping[str, WrittenTensor] = {}
        for name, module in model.named_modules():
            if module._parameters:
                _Filling(self, name, module).install()

    def skeleton(self, names: Iterable[str]) -> Skeleton:
        """What the model is made of, and what becomes of a file's tensors of these names."""
        return Skeleton(type(self.model).__name__, self.expected, {name: self._renamed(name) for name in names})

    def tensor(self, name: str) -> WrittenTensor:
        return self._files[self._canonical[name]]

    def logits(self, folder: WeightFolder, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of ``tokens`` (batch, seq) int64: (batch, seq, vocabulary), float32.

        Raises:
            GateError: the folder lacks a tensor, a file is broken, or transformers cannot compute with this config.
        """
        import torch

        self._files = self.skeleton(folder.tensors).loaded(folder)
        if missing := [name for name in self.expected if name not in self._files]:
            raise GateError(f"{missing[0]} is missing", folder.folder, "see the strict-load gate")
        try:
            with torch.no_grad():
                logits: torch.Tensor = self.model(input_ids=tokens, use_cache=False).logits
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:  # sizes that do not fit
            raise GateError(f"transformers cannot compute: {error}", folder.folder, "check config.json") from error
        return logits


@dataclass(slots=True)
class _Filling:
    """Fills one module before it computes, and empties it afterwards."""

    owner: HollowModel
    name: str
    module: Any
    hollow: dict[str, Any] | None = None

    def install(self) -> None:
        import torch

        if type(self.module) is torch.nn.Linear:
            vars(self.module)["forward"] = self._multiply
            return
        self.hollow = dict(self.module._parameters)
        self.module.register_forward_pre_hook(self._fill)
        self.module.register_forward_hook(self._empty)

    def _fill(self, module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        import torch

        if isinstance(module, torch.nn.Embedding):  # only the rows that are asked for, and their places
            unique, place = arguments[0].unique(return_inverse=True)
            tensor = self.owner.tensor(f"{self.name}.weight")
            rows = torch.cat([rows_of(tensor, row, 1) for row in unique.tolist()])
            module._parameters["weight"] = _parameter(rows)
            return (place, *arguments[1:])
        for local, value in self.module._parameters.items():
            if value is not None:
                full = f"{self.name}.{local}" if self.name else local
                module._parameters[local] = _parameter(whole(self.owner.tensor(full)))
        return None

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        """torch.nn.Linear's product, a block of the weight's rows at a time."""
        import torch

        weight = self.owner.tensor(f"{self.name}.weight")
        bias = None if self.module.bias is None else whole(self.owner.tensor(f"{self.name}.bias"))
        out, width = weight.shape
        step = max(1, BLOCK // max(1, width))
        product = torch.empty(*x.shape[:-1], out)
        for start in range(0, out, step):
            count = min(step, out - start)
            part = None if bias is None else bias[start : start + count]
            product[..., start : start + count] = torch.nn.functional.linear(x, rows_of(weight, start, count), part)
        return product

    def _empty(self, module: Any, _arguments: Any, _result: Any) -> None:
        assert self.hollow is not None
        module._parameters.update(self.hollow)


def whole(tensor: WrittenTensor) -> torch.Tensor:
    """The tensor in float32, upcast chunk by chunk: its float32 size and a chunk is all the memory it takes."""
    import torch

    full = torch.empty(tensor.shape, dtype=torch.float32)
    flat, at = full.view(-1), 0
    for chunk in tensor.chunks():
        numbers = _numbers(chunk, tensor.dtype)
        flat[at : at + numbers.numel()] = numbers
        at += numbers.numel()
    return full


def rows_of(tensor: WrittenTensor, start: int, count: int) -> torch.Tensor:
    """Rows of a matrix in float32."""
    width = tensor.shape[1] * BY_SAFETENSORS[tensor.dtype].itemsize
    part = replace(tensor, shape=(count, tensor.shape[1]), offset=tensor.offset + start * width, nbytes=count * width)
    return whole(part)


def _numbers(data: memoryview, dtype: str) -> torch.Tensor:
    import torch

    return torch.frombuffer(data, dtype=getattr(torch, BY_SAFETENSORS[dtype].name)).float()


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(tensor, requires_grad=False)


def config_of(folder: Path) -> bytes:
    """The folder's ``config.json``.

    Raises:
        GateError: there is none that can be read.
    """
    try:
        return (folder / "config.json").read_bytes()
    except OSError as error:
        raise GateError(f"config.json: {error.strerror}", folder, "convert the step again") from error


@contextmanager
def hollow_model(folder: Path, config: bytes | None = None) -> Iterator[HollowModel]:
    """The model of ``folder/config.json``, for this thread alone; built once per config, and once more for each thread.

    ``config`` stands for the file's content where the model of another config is wanted.

    Raises:
        GateError: no config, or transformers cannot build a model of it.
    """
    config = config_of(folder) if config is None else config
    with _lock:
        if len(_idle) > _CONFIGS:
            _idle.clear()
        idle = _idle[config]
        model = idle.pop() if idle else _build(folder, config)
    yield model  # after an exception its parameters may be filled: it is not kept then
    with _lock:
        if len(idle) < _KEPT_MODELS:
            idle.append(model)


def _build(folder: Path, config: bytes) -> HollowModel:
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "config.json").write_bytes(config)
            settings = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        model.eval()
        _rebuild_buffers(model)
    except Exception as error:  # whatever transformers says of a config that it does not accept
        raise GateError(
            f"transformers cannot build this model: {type(error).__name__}: {error}",
            folder / "config.json",
            "mend the override, or the conversion of the config",
        ) from error
    return HollowModel(model)


def _rebuild_buffers(model: Any) -> None:
    """Buffers that no file holds (rotary frequencies): their modules are made again from the config, on the CPU."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module._buffers.values() if buffer is not None):
            parent, _, local = name.rpartition(".")
            setattr(model.get_submodule(parent), local, type(module)(config=module.config))
    if left := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise TypeError(f"the buffers {left} cannot be rebuilt")


def _renamer(model: Any) -> Callable[[str], str]:
    """How transformers renames a file's tensors when it loads them (5.x: ``embed_out`` became ``lm_head``)."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key
    except ImportError:  # a version that renames nothing
        return str
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]
    return lambda name: str(rename_source_key(name, renamings, [])[0])


# Who computes with torch and transformers for the gates, and what is known of the models already.


_KEPT_SPECS = 16  # skeletons: a run has one, unless overrides change it


class Models:
    """The models of a run's configs; each skeleton is computed once. Safe to share between threads."""

    def __init__(self, compute: Compute = here) -> None:
        self.compute = compute
        self._lock = threading.Lock()
        self._known: dict[tuple[bytes, tuple[str, ...]], Skeleton] = {}

    def skeleton(self, folder: Path, config: bytes, names: tuple[str, ...]) -> Skeleton:
        """The model that transformers builds of ``config``, and what it calls tensors of these ``names``.

        Who asks while one is computed waits. ``folder`` is where the config lies.

        Raises:
            GateError: transformers builds none.
        """
        with self._lock:
            if (known := self._known.get((config, names))) is None:
                if len(self._known) >= _KEPT_SPECS:
                    self._known.clear()
                known = self._known[config, names] = self.compute(skeleton, folder, config, names)
            return known


def skeleton(folder: Path, config: bytes, names: tuple[str, ...]) -> Skeleton:
    """As :meth:`Models.skeleton`, computed in this process."""
    with hollow_model(folder, config) as hollow:
        return hollow.skeleton(names)


# What transformers makes of a converted folder: does it load strictly, and which logits does it give.


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


def strict_load(folder: Path | WeightFolder, models: Models | None = None) -> Gate:
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
