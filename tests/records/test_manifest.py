"""Records are read back as they were written, and a malformed one names its key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.errors import HubError
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.records.manifest import Converter, Manifest, Source, SourceFile, Tensors, Training
from tests.cards import samples

TEXT = st.text(max_size=20)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10**6)
SIZE = st.integers(0, 2**60)
OPTIONAL_INT = st.none() | st.integers(-(2**60), 2**60)
FIGURES = st.dictionaries(TEXT, NUMBER | st.integers() | TEXT | st.none() | st.booleans(), max_size=3)
MANIFESTS = st.builds(
    Manifest,
    step=SIZE,
    branch=TEXT,
    tokens=OPTIONAL_INT,
    source=st.builds(
        Source,
        location=TEXT,
        commit=st.none() | TEXT,
        files=st.lists(
            st.builds(SourceFile, path=TEXT, size=SIZE, digest=st.none() | TEXT),
            max_size=3,
        ).map(tuple),
    ),
    plan=DIGEST,
    converter=st.builds(Converter, name=TEXT, version=TEXT),
    files=st.lists(st.builds(FileRecord, path=TEXT, size=SIZE, sha256=DIGEST), max_size=3).map(tuple),
    dtype=TEXT,
    architecture=TEXT,
    parameters=SIZE,
    tensors=st.builds(Tensors, count=SIZE, digest=DIGEST),
    gates=st.lists(st.builds(Gate, name=TEXT, outcome=TEXT, detail=TEXT, figures=FIGURES), max_size=3).map(tuple),
    training=st.builds(
        Training,
        iteration=OPTIONAL_INT,
        learning_rate=st.none() | NUMBER,
        loss_scale=st.none() | NUMBER,
        skipped_steps=OPTIONAL_INT,
    ),
    tokenizer=st.none() | DIGEST,
    source_dtype=TEXT,
    sketch=FIGURES,
)


def example() -> Manifest:
    return Manifest(
        step=512,
        branch="step512",
        tokens=1073741824,
        source=Source("a/raw", "c" * 40, (SourceFile("x.pt", 3, f"sha256:{'d' * 64}"),)),
        plan="e" * 64,
        converter=Converter("publish-neox", "0.1.0"),
        files=(FileRecord("model.safetensors", 5, "f" * 64), FileRecord("README.md", 2, "a" * 64)),
        dtype="float16",
        source_dtype="float16",
        architecture="GPTNeoXForCausalLM",
        parameters=14067712,
        tensors=Tensors(76, "b" * 64),
    )


@given(MANIFESTS)
def test_roundtrip_is_exact(manifest: Manifest) -> None:
    content = manifest.to_bytes()
    again = Manifest.from_bytes(content, "here")
    assert again == manifest
    assert again.to_bytes() == content
    assert content.endswith(b"}\n")


@given(MANIFESTS, st.dictionaries(TEXT.map("x-{}".format), TEXT))
def test_unknown_keys_are_ignored(manifest: Manifest, more: dict[str, str]) -> None:
    document = json.loads(manifest.to_bytes()) | more
    document["source"] |= more
    assert Manifest.from_bytes(json.dumps(document).encode(), "here") == manifest


@given(st.binary(max_size=40))
def test_noise_is_an_error_not_a_crash(content: bytes) -> None:
    with pytest.raises(HubError):
        Manifest.from_bytes(content, "here")


def broken(path: str, value: Any) -> bytes:
    document = json.loads(example().to_bytes())
    inner = document
    *parents, last = path.split(".")
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("step", None, "step is missing"),
        ("step", "512", "step must be int, got str"),
        ("step", True, "step must be int, got bool"),
        ("files", {}, "files must be list, got dict"),
        ("files", [{"path": "x", "size": 1}], "files[0].sha256 is missing"),
        ("source.files", [3], "source.files[0] must be dict, got int"),
        ("source", [], "source must be dict, got list"),
        ("tensors.count", 1.5, "tensors.count must be int, got float"),
        ("sketch", [1], "sketch must be dict, got list"),
    ],
)
def test_malformed_names_the_key(path: str, value: Any, what: str) -> None:
    with pytest.raises(HubError) as caught:
        Manifest.from_bytes(broken(path, value), "a/b@c/publish.json")
    assert caught.value.what == what
    assert caught.value.where == "a/b@c/publish.json"


def test_keys_are_sorted_and_there_is_no_clock() -> None:
    document = json.loads(example().to_bytes())
    assert list(document) == sorted(document)
    assert not {"date", "time", "created"} & set(document)


def test_checkpoints_roundtrip_and_order() -> None:
    record = CheckpointRecord.of(example(), "9" * 40)
    assert (record.weights, record.manifest.card) == (("f" * 64,), "a" * 64)
    assert (record.kind, record.format, record.branch) == ("model", "hf", "step512")
    checkpoints = Checkpoints("a/b", (record,), samples.RUN)
    assert Checkpoints.from_bytes(checkpoints.to_bytes(), "here") == checkpoints
    assert checkpoints.by_branch() == {"step512": record}
    with pytest.raises(HubError, match="twice"):
        Checkpoints("a/b", (record, record), samples.RUN)
