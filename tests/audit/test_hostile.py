"""Hostile files on a branch: the audit reports them and ends."""

from __future__ import annotations

import json

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.audit.conftest import Audit, kinds
from tests.audit.suites import CONFIG, publish_suite

STEPS = (1, 2, 3, 4)
BOMB = "\n".join(
    ["---", "a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    + ["---", "text"]
)


@pytest.mark.parametrize(
    "card",
    [BOMB, f"---\n{'[' * 20_000}\n---\n", "---\ndate: 2000-99-99\n---\n", "---\n", "\0" * 1000, "---\n? \n---\n"],
    ids=["aliases", "nesting", "no date", "unfinished", "zeros", "no key"],
)
def test_a_hostile_card_is_a_finding(hub: RehearsalHub, audit: Audit, card: str) -> None:
    suite = publish_suite(hub.root, "lab/a", STEPS)
    suite.put("step2", {"README.md": card.encode()})
    assert ("card-metadata", (2,)) in kinds(audit("lab/a"))


@pytest.mark.parametrize(
    "config",
    [
        b"[" * 100_000,
        b"\xff",
        b"[]",
        json.dumps({**CONFIG, "num_hidden_layers": 10**12}).encode(),
        json.dumps({**CONFIG, "vocab_size": -1}).encode(),
        json.dumps({**CONFIG, "note": "x" * 100_000}).encode(),
        json.dumps({**CONFIG, "num_attention_heads": 0}).encode(),
    ],
    ids=["nesting", "no text", "a list", "endless layers", "negative", "long", "no heads"],
)
def test_a_hostile_config_is_a_finding(hub: RehearsalHub, audit: Audit, config: bytes) -> None:
    suite = publish_suite(hub.root, "lab/a", STEPS)
    suite.put("step2", {"config.json": config})
    report = audit("lab/a")
    assert kinds(report) == [("config-mismatch", (2,))]
    assert all(len(finding.detail) < 300 for finding in report.findings)


@pytest.mark.parametrize(
    "index",
    [b"[" * 100_000, b'{"weight_map": []}', b'{"weight_map": {"a": "../../etc/passwd"}}', b'{"weight_map": {"a": 3}}'],
    ids=["nesting", "a list", "outside", "no name"],
)
def test_a_hostile_index_concerns_its_own_step(hub: RehearsalHub, audit: Audit, index: bytes) -> None:
    suite = publish_suite(hub.root, "lab/a", STEPS, shards=2)
    suite.put("step2", {"model.safetensors.index.json": index})
    assert all(finding.steps == (2,) for finding in audit("lab/a").findings)
