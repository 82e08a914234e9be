"""Published checkpoints load in the oldest transformers too, with the same logits and the same token ids."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SHARED, arrays
from tests.convert.rawfiles import write
from tests.convert.rawmodel import LLAMA, MISTRAL, NEOX, Case
from tests.convert.test_cases import REACH, converted
from tests.convert.test_layouts import converted as without_tokenizer

ROOT = Path(__file__).parents[2]
OLDEST = Path(sys.prefix) / "transformers-4.38"
CASES = {
    "parallel": Case(NEOX, tensor_parallel=2),
    "serial": Case(replace(NEOX, parallel_residual=False, activation="gelu")),
    "tied": Case(replace(NEOX, tied=True)),
    "no-attention-bias": Case(NEOX, attention_biases=False),
    "llama": Case(replace(LLAMA, heads=8, kv_heads=4), attention_biases=False),
    "llama-attention-bias": Case(LLAMA, attention_biases=True),
    "mistral": Case(replace(MISTRAL, heads=8, kv_heads=4), attention_biases=False),
}


def loaded(folders: list[Path], out: Path, path: str) -> dict[str, np.ndarray]:
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.convert.load", str(out), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return arrays(out)


@pytest.mark.slow
def test_equal_logits_in_both_versions(tmp_path: Path, samples: Path) -> None:
    if not OLDEST.exists():
        pytest.skip("transformers 4.38 is absent: scripts/check --all installs it")
    folders = [tmp_path / "out" / name for name in CASES]
    for name, folder in zip(CASES, folders, strict=True):
        write(tmp_path / "raw" / name / "global_step16", case := CASES[name], stages=1)
        assert not without_tokenizer(tmp_path / "raw" / name / "global_step16", folder).failed, case
    folders.append(tmp_path / "out" / "sample")
    converted(samples / "global_step1000", None, folders[-1])
    for name in REACH if (SHARED / "neox").exists() else ():
        folders.append(tmp_path / "out" / name)
        tokenizer = str(SHARED / "neox" / "tokenizer" / "small_250.json")
        converted(SHARED / "neox" / name / "global_step16", tokenizer, folders[-1])
    new = loaded(folders, tmp_path / "new.npz", "")
    old = loaded(folders, tmp_path / "old.npz", str(OLDEST))
    assert str(old.pop("version")).startswith("4.38.")
    assert str(new.pop("version")).startswith("5.")
    assert old.keys() == new.keys()
    for name, logits in new.items():
        scale = np.abs(logits).max()
        assert np.abs(old[name] - logits).max() <= 256 * 2.0**-23 * scale, name  # random weights amplify rounding
