"""Headers and indices of safetensors files: what is read, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from publish.errors import CheckpointError
from publish.formats.safetensors import (
    InvalidHeader,
    ShardIndex,
    TensorInfo,
    header_length,
    parse_header,
    parse_index,
    read_header,
)
from publish.sources.files import LocalFiles


def test_a_header_says_where_the_tensors_are(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.arange(2, dtype=np.int64)}
    (tmp_path / "file").write_bytes(save(arrays, {"format": "pt"}))
    file = LocalFiles(tmp_path).open("file")
    header = read_header(file)
    assert header.metadata == {"format": "pt"}
    assert (header.data_bytes, header.end) == (28, file.size)
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors} == {
        "a": ("I64", (2,)),
        "b": ("F16", (2, 3)),
    }
    for tensor in header.tensors:
        assert file.read(tensor.offset, tensor.nbytes) == arrays[tensor.name].tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "a file of 3 bytes has no header"),
        (struct.pack("<Q", 100) + b"{}", "claims a header of 100 bytes and has 10 bytes"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 2) + b"{}more", "accounts for 10 bytes, and the file has 14"),
    ],
)
def test_a_header_that_is_not_true_of_its_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_header(LocalFiles(tmp_path).open("file"))


def test_a_tensor_of_an_unknown_dtype_has_the_size_that_its_offsets_say() -> None:
    entry = {"dtype": "F12", "shape": [3], "data_offsets": [0, 5]}
    text = json.dumps({"a": entry}).encode()
    assert parse_header(text).tensors == (TensorInfo("a", "F12", (3,), 8 + len(text), 5),)
    assert parse_header(text).problems == ()


def test_an_index_maps_tensors_to_files() -> None:
    files = {"a": "model-00001-of-00002.safetensors"}
    assert parse_index(json.dumps({"weight_map": files}).encode()) == ShardIndex(files, None)
    stated = {"metadata": {"total_size": 12}, "weight_map": files}
    assert parse_index(json.dumps(stated).encode()).total_size == 12


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b"\xff", b"[" * 10**5]
)
def test_what_is_not_an_index_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_index(content)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [2], "data_offsets": [0, 10**400]},
        {"dtype": "F16", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F16", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": 3, "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F16", "shape": [2], "data_offsets": [4, 0]},
        {"dtype": "F16", "shape": [2]},
        [],
        None,
    ],
)
def test_what_is_not_a_header_is_refused(entry: object) -> None:
    with pytest.raises(InvalidHeader):
        parse_header(json.dumps({"a": entry}).encode())


def test_a_header_that_contradicts_itself_lists_its_problems() -> None:
    one = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    other = {"dtype": "F16", "shape": [3], "data_offsets": [4, 12]}
    problems = parse_header(json.dumps({"a": one, "b": other}).encode()).problems
    assert any("begins at byte" in problem for problem in problems)
    assert any("F16 [3], 6 bytes, and has 8" in problem for problem in problems)
    with pytest.raises(InvalidHeader, match="twice"):
        parse_header(b'{"a": {}, "a": {}}')
    for length in (0, 1, 10**9, 2**63):
        with pytest.raises(InvalidHeader):
            header_length(struct.pack("<Q", length))
