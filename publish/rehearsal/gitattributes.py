"""Which files go to LFS and which are ignored: patterns of .gitattributes and .gitignore.

Outside facts: gitattributes(5) and gitignore(5); the pattern list is what the Hub writes into a new repo.
"""

from __future__ import annotations

import re
from functools import lru_cache

LARGEST_REGULAR = 10_000_000  # larger files go to LFS whatever they are called

_LFS = " filter=lfs diff=lfs merge=lfs -text\n"
_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
DEFAULT = "".join(pattern + _LFS for pattern in _PATTERNS.split())


def goes_to_lfs(path: str, size: int, sample: bytes, attributes: str) -> bool:
    """Whether the Hub wants ``path`` in LFS: by its patterns, its size, or because it is no text. Empty files never."""
    if size == 0:
        return False
    return size > LARGEST_REGULAR or tracked(path, attributes) or is_binary(sample)


def tracked(path: str, attributes: str) -> bool:
    """Whether ``filter=lfs`` holds for ``path``; the last line that says something of it decides."""
    verdict = False
    for line in attributes.splitlines():
        pattern, _, rest = line.strip().partition(" ")
        if not pattern or pattern.startswith("#"):
            continue
        filters = [word for word in rest.split() if word.lstrip("-!").split("=")[0] == "filter"]
        if filters and _matches(pattern, path):
            verdict = filters[-1] == "filter=lfs"
    return verdict


def ignored(path: str, gitignore: str) -> bool:
    """Whether .gitignore's text excludes ``path``, by itself or by a folder above it."""
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for index, each in enumerate(above):
        is_folder = index < len(above) - 1
        verdict = False
        for line in gitignore.splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            negated = pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            if pattern.endswith("/") and not is_folder:
                continue
            if _matches(pattern.rstrip("/"), each):
                verdict = not negated
        if verdict:
            return True
    return False


def is_binary(sample: bytes) -> bool:
    """Whether a file's first bytes are no UTF-8 text; a character cut at the end is no reason."""
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3
    return False


def _matches(pattern: str, path: str) -> bool:
    anchored = "/" in pattern
    return bool(_compiled(pattern.removeprefix("/")).fullmatch(path if anchored else path.rsplit("/", 1)[-1]))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    out = []
    for part in re.findall(r"/\*\*/|\*\*/|/\*\*|\*|\?|\[!?[^\]]+\]|[^*?\[]|\[", pattern):
        match part:
            case "/**/":
                out.append("/(?:.*/)?")
            case "**/":
                out.append("(?:.*/)?")
            case "/**":
                out.append("/.*")
            case "*":
                out.append("[^/]*")
            case "?":
                out.append("[^/]")
            case _ if len(part) > 1 and part.startswith("["):
                out.append("[" + part[1:-1].replace("!", "^", 1).replace("\\", r"\\") + "]")
            case _:
                out.append(re.escape(part))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # a character class that is none: git takes it literally
        return re.compile(re.escape(pattern))
