"""Tokenizers: where they are found, ids from the file itself, and transformers loads what is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from publish.convert.folder import write_folder
from publish.convert.plan import make_plan
from publish.convert.tokenizer import HARD_TEXT, find_tokenizer, not_found, read_tokenizer
from publish.errors import TokenizerError
from tests.convert.rawmodel import NEOX, Case, config_of, raw_of


def document(words: int = 10, **changes: object) -> dict[str, object]:
    end = {"id": 0, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False}
    vocabulary = {"<|endoftext|>": 0, **{f"t{number}": number for number in range(1, words)}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | {"normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<|endoftext|>"},
        **changes,
    }


def content(words: int = 10, **changes: object) -> bytes:
    return json.dumps(document(words, **changes)).encode()


def no_fetch(repo: str) -> Mapping[str, bytes]:
    raise AssertionError(f"fetched {repo}")


CASE = Case(NEOX)


def test_a_vocab_file_is_searched_in_parent_folders(tmp_path: Path) -> None:
    config = config_of(CASE, vocab_file="tokens/t.json")
    folder, elsewhere = tmp_path / "run" / "global_step1", tmp_path / "work"
    folder.mkdir(parents=True)
    (elsewhere / "tokens").mkdir(parents=True)
    assert find_tokenizer(None, config, folder, no_fetch, elsewhere) is None
    for place, words in ((tmp_path, 5), (tmp_path / "run", 6), (folder, 7), (elsewhere, 8)):
        (place / "tokens").mkdir(exist_ok=True)
        (place / "tokens" / "t.json").write_bytes(content(words))
        found = find_tokenizer(None, config, folder, no_fetch, elsewhere)
        assert found is not None
        assert (found.ids, found.where) == (words, str(place / "tokens" / "t.json"))
    assert find_tokenizer("none", config, folder, no_fetch, elsewhere) is None
    assert find_tokenizer(None, config, None, no_fetch, tmp_path / "nowhere") is None
    assert find_tokenizer(None, config_of(CASE), folder, no_fetch, elsewhere) is None


def test_the_error_of_a_missing_tokenizer_names_the_vocab_file() -> None:
    assert "'a/b.json' is not on this machine" in str(not_found(config_of(CASE, vocab_file="a/b.json")))
    assert "names no vocab-file" in str(not_found(config_of(CASE)))


def test_a_tokenizer_is_named_by_file_folder_or_repo(tmp_path: Path) -> None:
    config = config_of(CASE)
    (tmp_path / "tokenizer.json").write_bytes(content())
    own = b'{"eos_token": {"content": "t3"}, "bos_token": "t4", "tokenizer_class": "GPTNeoXTokenizer"}'
    (tmp_path / "tokenizer_config.json").write_bytes(own)
    (tmp_path / "model.safetensors").write_bytes(b"not a tokenizer file")
    by_file = find_tokenizer(str(tmp_path / "tokenizer.json"), config, None, no_fetch)
    by_folder = find_tokenizer(str(tmp_path), config, None, no_fetch)
    by_repo = find_tokenizer("owner/name", config, None, lambda repo: {"tokenizer.json": content(), "x": b""})
    fetched: list[str] = []
    find_tokenizer(
        "hf://owner/name@main", config, None, lambda repo: fetched.append(repo) or {"tokenizer.json": content()}
    )
    assert fetched == ["owner/name@main"]
    assert by_file is not None
    assert by_folder is not None
    assert by_repo is not None
    assert (by_file.bos, by_file.eos, by_file.unk_token) == (0, 0, "<|endoftext|>")
    assert (by_folder.bos, by_folder.eos) == (4, 3)
    assert by_folder.hf_files(8)["tokenizer_config.json"] == own
    assert by_folder.files.keys() == {"tokenizer.json", "tokenizer_config.json"}
    assert (by_repo.where, list(by_repo.files)) == ("owner/name", ["tokenizer.json"])


@pytest.mark.parametrize("choice", ["missing.json", "./missing", "/a/b/c", "a/b/c"])
def test_a_path_that_does_not_exist(choice: str) -> None:
    with pytest.raises(TokenizerError, match="no such file or folder"):
        find_tokenizer(choice, config_of(CASE), None, no_fetch)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "has no vocabulary"),
        (b'{"model": {"vocab": {"a": "b"}}}', "must map strings to integers"),
        (b'{"model": {"vocab": {}}, "added_tokens": [{"content": "x"}]}', "must map strings to integers"),
    ],
)
def test_a_file_that_is_not_a_tokenizer_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        read_tokenizer({"tokenizer.json": raw}, "x.json")


def test_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json not found"):
        find_tokenizer(str(tmp_path), config_of(CASE), None, no_fetch)


def test_other_families_of_special_tokens() -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["a", -1.0]]}
    found = read_tokenizer({"tokenizer.json": content(model=model, added_tokens=[])}, "x")
    assert (found.unk_token, found.bos, found.eos, found.ids) == ("<unk>", 1, 2, 4)
    plain = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    bare = read_tokenizer({"tokenizer.json": content(model=plain, added_tokens=[])}, "x")
    assert (bare.bos, bare.eos, bare.unk_token) == (None, None, "a")


def test_a_vocabulary_beyond_the_embedding(tmp_path: Path) -> None:
    _, raw = raw_of(CASE)
    tokenizer = read_tokenizer({"tokenizer.json": content(25)}, "x")
    with pytest.raises(TokenizerError, match="25 ids, but the model's embedding has 24 rows"):
        write_folder(raw, make_plan(raw, config_of(CASE)), tokenizer, tmp_path / "out")
    assert raw.files.bytes_read == 0
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_follows_the_ids() -> None:
    one, two = (read_tokenizer({"tokenizer.json": content(words)}, "x") for words in (2, 4))
    assert one.fingerprint() == one.fingerprint()
    assert len(one.fingerprint()) == 64
    assert one.fingerprint() != two.fingerprint()
    assert "t2" in HARD_TEXT
    broken = read_tokenizer({"tokenizer.json": content(model={"type": "None", "vocab": {}})}, "x")
    with pytest.raises(TokenizerError, match="tokenizers library cannot use"):
        broken.fingerprint()


def test_transformers_loads_the_written_files(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Rust
    from transformers import AutoTokenizer

    _, raw = raw_of(CASE)
    tokenizer = read_tokenizer({"tokenizer.json": content(20)}, "x")
    write_folder(raw, make_plan(raw, config_of(CASE)), tokenizer, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == content(20)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 0, 0)
    assert loaded.model_max_length == 32
    assert loaded(HARD_TEXT)["input_ids"] == Rust.from_str(content(20).decode()).encode(HARD_TEXT).ids
