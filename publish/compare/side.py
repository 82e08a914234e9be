"""One of two models to compare: its tensors by Hugging Face name, read in passing, and what it says of itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from publish.compare.layers import expected_stds, is_buffer
from publish.convert.hfconfig import hf_config
from publish.convert.plan import ConversionPlan, make_plan
from publish.convert.writer import check_identical, tensor_bytes
from publish.errors import SourceError
from publish.explain.answer import Origin
from publish.explain.stored import origin_of, stored_generators
from publish.formats.safetensors import read_places
from publish.formats.torch_archive import ITEM_SIZES, TorchFile
from publish.formats.unpickler import StoredTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.options import MAPPED
from publish.schedule import step_of
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.runs import Location


@dataclass(frozen=True, slots=True)
class SideTensor:
    """A tensor of a side; ``dtype`` as numpy and torch spell it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Account:
    """What a side says of itself, empty where it is silent.

    ``options`` are GPT-NeoX's own, defaults included; ``config`` is the Hugging Face one; ``states`` maps a random
    generator to the digest of its state, and ``origin`` is what these states tell; ``expected_std`` maps a tensor to
    the deviation that its init method predicts.
    """

    step: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    expected_std: Mapping[str, float] = field(default_factory=dict)


class Side(Protocol):
    """A model that can be read tensor by tensor. Nothing but its indices is read to open it."""

    @property
    def where(self) -> str: ...

    @property
    def format(self) -> str:
        """``hf`` or ``neox``."""
        ...

    @property
    def tensors(self) -> Mapping[str, SideTensor]:
        """Every parameter by its Hugging Face name, in the order in which it is best read."""
        ...

    @property
    def account(self) -> Account: ...

    def want(self, names: Iterable[str]) -> None:
        """These tensors are read next."""
        ...

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The stored bytes in order, little endian, row-major, whole elements; a chunk stays what it is."""
        ...

    def close(self) -> None: ...


# A Hugging Face model as a side: safetensors or torch files, one or several with an index, whoever wrote them.


CHUNK = 1 << 20  # bytes read at a time; a multiple of every element's size
_KINDS = (
    ("model.safetensors", re.compile(r"model-\d+-of-\d+\.safetensors")),
    ("pytorch_model.bin", re.compile(r"pytorch_model-\d+-of-\d+\.bin")),
)
_DTYPES: Mapping[str, str] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_MAX_JSON = 64 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    tensor: SideTensor
    file: str
    offset: int
    nbytes: int


class HfSide:
    """See `publish.compare.side.Side`."""

    format = "hf"

    def __init__(self, files: CheckpointFiles, step: int | None) -> None:
        """Read every header.

        Raises:
            SourceError: no weights, or a file that is not what its header or index says.
            CheckpointError: a torch file that is broken, hostile or older than torch 1.6.
        """
        self._files, self._step = files, step
        self._places: dict[str, _Place] = {}
        for file in weight_files(files):
            for place in _READERS[file.rpartition(".")[2]](files, file):
                if place.tensor.name in self._places:
                    other = self._places[place.tensor.name].file
                    raise SourceError(f"{place.tensor.name} is in {other} too", f"{files.where}/{file}", _FIX)
                self._places[place.tensor.name] = place

    @property
    def where(self) -> str:
        return self._files.where

    @cached_property
    def tensors(self) -> dict[str, SideTensor]:
        return {name: place.tensor for name, place in self._places.items()}

    @cached_property
    def account(self) -> Account:
        config = _document(self._files, "config.json")
        record = _document(self._files, "publish.json").get("step")
        step = record if isinstance(record, int) else self._step
        return Account(step=step, config=config)

    def want(self, names: Iterable[str]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            place = self._places[name]
            ranges.setdefault(place.file, []).append((place.offset, place.nbytes))
        for file, wanted in ranges.items():
            self._files.prefetch(file, wanted)

    def chunks(self, name: str) -> Iterator[memoryview]:
        place = self._places[name]
        file = self._files.open(place.file)
        for at in range(0, place.nbytes, CHUNK):
            yield memoryview(file.read(place.offset + at, min(CHUNK, place.nbytes - at)))

    def close(self) -> None:
        self._files.close()


def weight_files(files: CheckpointFiles) -> list[str]:
    """The weight files that ``from_pretrained`` would read, safetensors first.

    Raises:
        SourceError: there are none, or a file that the index names is absent.
    """
    for single, shard in _KINDS:
        if single in files.sizes:
            return [single]
        if shards := sorted(name for name in files.sizes if shard.fullmatch(name)):
            index = f"{single}.index.json"
            named = set(_document(files, index).get("weight_map", {}).values())
            if index in files.sizes and named != set(shards):
                odd = sorted(named.symmetric_difference(shards))
                raise SourceError(f"{odd[0]} is only in the index, or only in the folder", files.where, _FIX)
            return shards
    raise SourceError("no weights in Hugging Face's format here", files.where, "name a model's folder or revision")


def _safetensors(files: CheckpointFiles, name: str) -> Iterator[_Place]:
    for place in read_places(files.open(name)):
        if not is_buffer(place.name):
            dtype = _known(_DTYPES.get(place.dtype), place, f"{files.where}/{name}")
            yield _Place(SideTensor(place.name, dtype, place.shape), name, place.offset, place.nbytes)


def _torch(files: CheckpointFiles, name: str) -> Iterator[_Place]:
    """A torch archive that holds a flat dict of tensors, as ``pytorch_model.bin`` does; nothing in it is executed."""
    file = TorchFile.open(name, files.open(name))
    tree = file.tree if isinstance(file.tree, dict) else {}
    for key, stored in tree.items():
        if isinstance(stored, StoredTensor) and isinstance(key, str) and not is_buffer(key):
            tensor = file.tensor(key, stored)
            if not tensor.contiguous:
                raise SourceError(f"{key} is not contiguous", f"{files.where}/{name}", "save it as safetensors")
            dtype = _known(tensor.dtype if tensor.dtype in _DTYPES.values() else None, tensor, files.where)
            yield _Place(SideTensor(key, dtype, tensor.shape), name, tensor.offset, tensor.nbytes)


_READERS: Mapping[str, Callable[[CheckpointFiles, str], Iterator[_Place]]] = {
    "safetensors": _safetensors,
    "bin": _torch,
}
_FIX = "the files are of different models or incomplete; fetch them again"


def _known(dtype: str | None, tensor: Any, where: str) -> str:
    if dtype is None:
        raise SourceError(f"{tensor.name} is of {tensor.dtype}", where, f"{', '.join(_DTYPES.values())} are compared")
    return dtype


def _document(files: CheckpointFiles, name: str) -> dict[str, Any]:
    """A JSON object, empty where the file is absent."""
    if name not in files.sizes:
        return {}
    size = files.sizes[name]
    if size > _MAX_JSON:
        raise SourceError(f"{size:,} bytes of JSON", f"{files.where}/{name}", "check what the file is")
    try:
        found = json.loads(bytes(files.open(name).read(0, size)))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"no JSON: {error}", f"{files.where}/{name}", "fetch it again") from error
    return found if isinstance(found, dict) else {}


# A raw checkpoint as a side: the conversion's plan says which bytes make a Hugging Face tensor; none is written.


class NeoxSide:
    """See `publish.compare.side.Side`."""

    format = "neox"

    def __init__(self, files: CheckpointFiles, step: int | None) -> None:
        """Open the checkpoint and plan its conversion.

        Raises:
            CheckpointError, ConfigError, ConversionError: as in a conversion.
        """
        self._checkpoint = RawCheckpoint.open(files, weights=False)
        self._config = read_config(self._checkpoint)
        self._plan = make_plan(self._checkpoint, self._config)
        self._recipes = {recipe.name: recipe for recipe in self._plan.recipes}
        self._files, self._step = files, step
        check_identical(self._checkpoint, self._plan.identical)

    @property
    def where(self) -> str:
        return self._checkpoint.where

    @cached_property
    def tensors(self) -> dict[str, SideTensor]:
        return {name: SideTensor(name, recipe.dtype, recipe.shape) for name, recipe in self._recipes.items()}

    @cached_property
    def account(self) -> Account:
        found = account_of(self._checkpoint, self._config, self._plan)
        return found if found.step is not None else replace(found, step=self._step)

    def want(self, names: Iterable[str]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            for part in self._recipes[name].slices:
                ranges.setdefault(part.tensor.file, []).append((part.tensor.offset, part.tensor.span))
        for file, wanted in ranges.items():
            self._files.prefetch(file, wanted)

    def chunks(self, name: str) -> Iterator[memoryview]:
        return tensor_bytes(self._checkpoint, self._recipes[name])

    def close(self) -> None:
        self._files.close()


def account_of(checkpoint: RawCheckpoint, config: NeoxConfig, plan: ConversionPlan) -> Account:
    """What a raw checkpoint says of itself."""
    return Account(
        step=checkpoint.state.iteration,
        options={name: config.get(name) for name in {*MAPPED, *config.options}},
        config=hf_config(plan, None, None),
        states=checkpoint.state.random_states,
        origin=origin_of(stored_generators(checkpoint), checkpoint.tensor_parallel),
        expected_std=expected_stds(plan, config),
    )


# From a location to a side: raw or Hugging Face, told apart by the files; on a Hub nothing is written to disk.


_RAW, _HF = ".pt", (".safetensors", "pytorch_model.bin")


def open_side(location: Location, step: int | None = None) -> Side:
    """The model at a location; ``step`` picks one where the location is a whole run.

    Raises:
        SourceError: nothing there, or a run and no step. HubError: no access, no connection.
        PublishError: as the formats do.
    """
    files, name = _folder(location, step) if location.folder is not None else _revision(location, step)
    try:
        return side_of(files, step_of(name))
    except BaseException:
        files.close()
        raise


def side_of(files: CheckpointFiles, step: int | None) -> Side:
    """The model that ``files`` hold; ``step`` is what the location's name claims."""
    if _holds(files.sizes, (_RAW,)):
        return NeoxSide(files, step)
    if _holds(files.sizes, _HF):
        return HfSide(files, step)
    raise SourceError(
        "no checkpoint here: neither GPT-NeoX's *.pt files nor safetensors", files.where, "name a checkpoint"
    )


def _holds(names: Iterable[str], endings: tuple[str, ...]) -> bool:
    """Whether a file right in the folder has one of the endings."""
    return any(name.endswith(endings) and "/" not in name for name in names)


def _folder(location: Location, step: int | None) -> tuple[CheckpointFiles, str]:
    folder = location.folder
    assert folder is not None
    if _holds((path.name for path in folder.iterdir()), (_RAW, *_HF)):
        return LocalFiles(folder), folder.resolve().name
    found = {step_of(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    if step is None or step not in found:
        raise _which(len(found.keys() - {None}), step, str(location))
    return LocalFiles(found[step]), found[step].name


def _revision(location: Location, step: int | None) -> tuple[CheckpointFiles, str]:
    from publish.sources.remote import HubRepo

    assert location.repo is not None
    reader = HubRepo(location.repo)
    if location.revision is None and step is not None:
        branches = {step_of(name): (name, commit) for name, commit in reader.branches().items()}
        if step not in branches:
            raise _which(len(branches.keys() - {None}), step, location.repo)
        name, commit = branches[step]
    else:
        name = location.revision or "main"
        commit = reader.resolve(name)
    return reader.stream(commit, f"{location.repo}@{name}"), name


def _which(count: int, step: int | None, where: str) -> SourceError:
    if step is None:
        return SourceError(
            f"no checkpoint of its own, and {count} steps, none named", where, "add --step N or @revision"
        )
    return SourceError(f"there is no step {step} among {count} steps", where, "name one that is there")
