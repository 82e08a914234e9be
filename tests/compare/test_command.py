"""``publish compare`` as scripts and people meet it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import publish, refused
from tests.compare.models import SMALL, save

KEYS = {
    *("left", "right", "tensors", "bitwise_equal", "equal_up_to_zero_sign", "different", "only_left", "only_right"),
    *("shape_mismatch", "max_abs_diff", "layer_types", "verdict", "reasons", "details"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return save(folder / "left", SMALL.draw(1)), save(folder / "right", SMALL.draw(2))


def test_json_is_the_contract(pair: tuple[Path, Path]) -> None:
    done = publish("compare", *pair, "--json")
    assert (done.returncode, done.stderr) == (0, "")  # a difference is no failure
    document: dict[str, Any] = json.loads(done.stdout)
    assert document.keys() >= KEYS
    assert document["max_abs_diff"].keys() == {"min", "max"}
    assert all({"name", "left_std", "right_std", "ratio", "expected_std"} <= t.keys() for t in document["layer_types"])
    assert (document["verdict"], len(document["details"])) == ("same-init-different-rng", 28)
    counted = ("bitwise_equal", "equal_up_to_zero_sign", "different", "shape_mismatch")
    assert sum(document[name] for name in counted) == document["tensors"] == 28


def test_tables_for_people_and_for_cards(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text = publish("compare", *pair, "--tensors").stdout
    assert "same-init-different-rng" in text
    assert "embed_out.weight" in text
    picture = tmp_path / "ratio.svg"
    done = publish("compare", *pair, "--markdown", "--plot", picture)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("**The same initialisation, drawn from another random state")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    first = picture.read_bytes()
    assert publish("compare", *pair, "--plot", picture).returncode == 0
    assert picture.read_bytes() == first
    assert first.startswith(b"<?xml")


def test_what_cannot_be_compared_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    refused(publish("compare", pair[0], tmp_path), "no checkpoint found in this folder", str(tmp_path))
    refused(publish("compare", *pair, "--plot", tmp_path / "ratio.txt"), "no picture format .txt")
    refused(publish("compare", *pair, "--plot", tmp_path / "absent" / "ratio.svg"), "cannot write")
    damaged = shutil.copytree(pair[0], tmp_path / "damaged")
    with (damaged / "model.safetensors").open("ab") as file:
        file.write(b"surplus")
    refused(publish("compare", damaged, pair[1], "--json"), "the header accounts for")
