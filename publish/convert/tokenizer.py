"""The tokenizer of a release: finding it, checking it against the model, and its files for transformers 4.38 and 5."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publish.convert.hfconfig import canonical_json
from publish.errors import TokenizerError
from publish.neox.config import NeoxConfig

MAIN = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
TOKENIZER_FILES = (MAIN, CONFIG, SPECIAL, "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja")
NONE = "none"
_FIX = "name a tokenizer.json of the tokenizers library, or none, with --tokenizer"
Fetch = Callable[[str], Mapping[str, bytes]]  # a repo's tokenizer files, by name

# gpt-neox tokenizer.py: HFTokenizer ends documents with <|endoftext|>; </s> and <s> are SentencePiece's.
_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>")
_BEGINS = ("<s>", "<|begin_of_text|>", "<bos>")
_UNKNOWNS = ("<unk>", "[UNK]")
HARD_TEXT = (
    "The quick brown fox\u2019s naïve café: 3.14159 × 10⁻⁷ → ∞\n\n\tdef f(x):  # двa  spaces, tabs\t\n"
    "    return x**2 if x else None\r\n中文字符 日本語 한국어 العربية עברית हिन्दी 👩‍👩‍👧‍👦🏳️‍🌈 ﬁ e\u0301 \u00a0\u200b "
    "<|endoftext|> <|padding|> </s> t2 t249                        $1,000.00 http://a.b/c?d=e&f#g 'll 've'S 0123456789"
)


@dataclass(frozen=True)
class Tokenizer:
    """A ``tokenizer.json`` and the files beside it. ``ids`` is the number of ids: the highest one plus 1."""

    where: str
    files: Mapping[str, bytes]
    ids: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    bos: int | None
    eos: int | None

    def check_fits(self, rows: int) -> None:
        """Check that a model with ``rows`` rows in its embedding has one for every id.

        Raises:
            TokenizerError: it has fewer; with both numbers.
        """
        if self.ids > rows:
            raise TokenizerError(
                f"the tokenizer has {self.ids:,} ids, but the model's embedding has {rows:,} rows",
                self.where,
                "this is the tokenizer of another model: name that of this run with --tokenizer",
            )

    def hf_files(self, context: int) -> dict[str, bytes]:
        """The files for a Hugging Face folder: those at hand, and the two config files where they are missing."""
        tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token, "unk_token": self.unk_token}
        special = {name: token for name, token in tokens.items() if token is not None}
        configs: dict[str, dict[str, Any]] = {
            CONFIG: {
                **special,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": context,
                "clean_up_tokenization_spaces": False,
            },
            SPECIAL: special,
        }
        return {**{name: canonical_json(document) for name, document in configs.items()}, **self.files}

    def fingerprint(self) -> str:
        """SHA-256 of the ids of `HARD_TEXT`, as decimal numbers separated by spaces.

        Raises:
            TokenizerError: the tokenizers library cannot use the file.
        """
        import tokenizers

        try:
            ids = tokenizers.Tokenizer.from_str(self.files[MAIN].decode()).encode(HARD_TEXT).ids
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(
                f"the tokenizers library cannot use this file: {error}", self.where, "name another tokenizer"
            ) from error
        return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()


def find_tokenizer(
    choice: str | None, config: NeoxConfig, folder: Path | None, fetch: Fetch, working: Path | None = None
) -> Tokenizer | None:
    """The tokenizer that ``choice`` names (repo, folder, file, ``none``), by default the config's ``vocab-file``.

    ``folder`` is that of a checkpoint on this machine, ``working`` the working folder. The result is None if ``choice``
    is ``none``, or if the config's ``vocab-file`` was not found: :func:`not_found` is the error for that.

    Raises:
        TokenizerError: the choice does not exist, or is not a ``tokenizer.json`` of the tokenizers library.
    """
    if choice == NONE:
        return None
    if choice is not None:
        return _open_choice(choice, fetch)
    name = config.vocab_file
    path = next((path for path in _candidates(name, folder, working) if path.is_file()), None) if name else None
    return None if path is None else read_tokenizer({MAIN: _read(path)}, str(path))


def not_found(config: NeoxConfig) -> TokenizerError:
    """The error for a release, which needs a tokenizer."""
    name = config.vocab_file
    what = f"the config's vocab-file {name!r} is not on this machine" if name else "the config names no vocab-file"
    return TokenizerError(what, config.where, "name a repo, a folder or a tokenizer.json with --tokenizer")


def _candidates(name: str, folder: Path | None, working: Path | None) -> Iterator[Path]:
    """Paths of a vocab-file: in the working folder, the checkpoint's folder, and its parents."""
    yield (working or Path()) / name
    if folder is not None and not Path(name).is_absolute():
        resolved = folder.absolute()
        yield from (parent / name for parent in (resolved, *resolved.parents))


def _open_choice(choice: str, fetch: Fetch) -> Tokenizer:
    path = Path(choice)
    if path.is_dir():
        files = {name: _read(path / name) for name in TOKENIZER_FILES if (path / name).is_file()}
        return read_tokenizer(files, str(path))
    if path.is_file():
        return read_tokenizer({MAIN: _read(path)}, str(path))
    name = choice.removeprefix("hf://")
    if name == choice and (name.endswith(".json") or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise TokenizerError("no such file or folder", choice, "check the path")
    fetched = fetch(name)
    return read_tokenizer({name: fetched[name] for name in TOKENIZER_FILES if name in fetched}, choice)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"cannot read: {error.strerror}", path, "check that it is readable") from error


def read_tokenizer(files: Mapping[str, bytes], where: str) -> Tokenizer:
    """The tokenizer in ``files``. Special tokens are those of its config, by default the usual names in its vocabulary.

    Raises:
        TokenizerError: there is no ``tokenizer.json``, or it is not one of the tokenizers library.
    """
    if MAIN not in files:
        raise TokenizerError(f"{MAIN} not found", where, "name a tokenizer that has one with --tokenizer")
    ids = _ids(_document(files[MAIN], where), where)
    stated = {**_optional(files, CONFIG, where), **_optional(files, SPECIAL, where)}
    eos = _stated(stated, "eos_token", ids) or _first(_ENDS, ids)
    bos = _stated(stated, "bos_token", ids) or _first(_BEGINS, ids) or eos
    unk = _stated(stated, "unk_token", ids) or _unk_of_model(files[MAIN], ids) or _first(_UNKNOWNS, ids) or eos
    return Tokenizer(
        where=where,
        files=files,
        ids=max(ids.values(), default=-1) + 1,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        bos=None if bos is None else ids[bos],
        eos=None if eos is None else ids[eos],
    )


def _document(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not valid JSON: {error}", where, _FIX) from error
    if not isinstance(document, dict):
        raise TokenizerError("not a JSON object", where, _FIX)
    return document


def _optional(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    return _document(files[name], f"{where}/{name}") if name in files else {}


def _ids(document: Mapping[str, Any], where: str) -> dict[str, int]:
    """The id of every token: of the model's vocabulary (a mapping, or Unigram's list of pairs) and of added tokens."""
    model, added = document.get("model"), document.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    if not isinstance(vocabulary, dict):
        raise TokenizerError("the tokenizer has no vocabulary", where, _FIX)
    extra = {entry.get("content"): entry.get("id") for entry in added or [] if isinstance(entry, dict)}
    ids = {**vocabulary, **extra}
    if not all(isinstance(token, str) and type(number) is int for token, number in ids.items()):
        raise TokenizerError("the vocabulary must map strings to integers", where, _FIX)
    return ids


def _stated(stated: Mapping[str, Any], name: str, ids: Mapping[str, int]) -> str | None:
    token = stated.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content in ids else None


def _unk_of_model(content: bytes, ids: Mapping[str, int]) -> str | None:
    token = json.loads(content)["model"].get("unk_token")
    return token if isinstance(token, str) and token in ids else None


def _first(tokens: tuple[str, ...], ids: Mapping[str, int]) -> str | None:
    return next((token for token in tokens if token in ids), None)
