"""Which repo and revision the code in a card loads: transformers, huggingface_hub, the command line and git."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_LOADERS = (
    re.compile(rf"\.from_pretrained\(\s*[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"),
    re.compile(
        rf"\b(?:snapshot_download|hf_hub_download)\(\s*(?:repo_id\s*=\s*)?[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"
    ),
    re.compile(rf"\bpipeline\([^)]*?model\s*=\s*[\"'](?P<repo>{_NAME})[\"'](?P<rest>[^)]*)"),
    re.compile(rf"\b(?:hf|huggingface-cli) download (?P<repo>{_NAME})(?P<rest>[^\n]*)"),
    re.compile(rf"\bgit clone (?P<rest>[^\n]*?)https?://[^\s/]+/(?P<repo>{_NAME})"),
)
_REVISION = re.compile(r"\brevision\s*=\s*[\"']([^\"']+)[\"']|--revision[ =](\S+)|(?:-b|--branch)[ =](\S+)")


@dataclass(frozen=True, slots=True)
class Load:
    """One call that loads a model or tokenizer. ``revision`` is None where the call leaves it out: ``main``."""

    repo: str
    revision: str | None
    position: int


def loads(text: str) -> Iterator[Load]:
    """All loading calls in ``text``, in no particular order."""
    for loader in _LOADERS:
        for found in loader.finditer(text):
            revision = _REVISION.search(found["rest"])
            named = next((group for group in revision.groups() if group), None) if revision else None
            yield Load(found["repo"], named, found.start())
