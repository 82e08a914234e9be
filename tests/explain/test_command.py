"""``publish explain`` as it is called: locations of every kind, JSON, exit codes, memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.cli.test_commands import publish, refused
from tests.explain.neoxfiles import Model, on_cpu, on_gpu
from tests.explain.test_hf_format import converted

KEYS = {
    "outcome",
    "seed",
    "generator",
    "generator_seeds",
    "preceding",
    "threads",
    "devices",
    "tensors",
    "values",
    "bit_equal",
    "within_one_ulp",
    "stored_state",
    "reasons",
}


def test_a_raw_run_by_step(samples: Path) -> None:
    done = publish("explain", samples, "--step", "0", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(report) >= KEYS
    assert (report["outcome"], report["seed"], report["generator"]) == ("reproduced", 1234, "cpu-mt19937")
    assert (report["generator_seeds"], report["preceding"]["draws"]) == ([3952], 14_336)
    assert (report["tensors"], report["values"], report["bit_equal"], report["within_one_ulp"]) == (10, *[14_336] * 3)
    assert (report["threads"], report["devices"], report["stored_state"]) == (None, [], "equal")
    assert [one["name"] for one in report["details"]][:2] == [
        "embedding.weight",
        "layers.0.attention.query_key_value.weight",
    ]


def test_a_trained_step_ends_with_1_and_says_why(samples: Path) -> None:
    done = publish("explain", samples, "--step", "512")
    assert done.returncode == 1
    assert "not-reproduced" in done.stdout
    assert "trained for 512 iterations" in done.stdout


def test_bad_arguments_are_refused(samples: Path, tmp_path: Path) -> None:
    for seeds in ("x", "5:1", "0:99999999999", "-3"):
        assert publish("explain", samples, "--step", "0", "--seed", seeds).returncode == 2
    refused(publish("explain", samples), "no step is named")
    (tmp_path / "empty").mkdir()
    refused(publish("explain", tmp_path / "empty"), "no checkpoint found in this folder: expected model.safetensors")


@pytest.mark.slow
def test_both_formats_on_a_hub(tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    raw = on_gpu(Model(hidden=64), 1024, 4).write(tmp_path / "gpu")
    hf = converted(on_cpu(Model(sequential=False)), tmp_path / "cpu")
    with RehearsalHub(tmp_path / "hub") as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_rehearsal"}
        api = HfApi(endpoint=hub.url, token="hf_rehearsal")
        for name, folder in (("raw", raw), ("hf", hf)):
            api.create_repo(f"lab/{name}")
            api.create_branch(f"lab/{name}", branch="step0")
            api.upload_folder(repo_id=f"lab/{name}", folder_path=folder, revision="step0")
        api.upload_folder(repo_id="lab/hf", folder_path=hf)
        found = {}
        for location in (("lab/raw@step0",), ("hf://lab/raw", "--step", "0"), ("lab/hf@step0",), ("lab/hf",)):
            done = publish("explain", *location, "--json", env=env)
            assert done.returncode == 0, done.stderr
            found[location] = json.loads(done.stdout)
        assert {report["outcome"] for report in found.values()} == {"reproduced"}
        assert {report["generator"] for report in found.values()} == {"cpu-mt19937", "cuda-philox"}
        assert {report["threads"] for report in found.values()} == {None, 1024}


@pytest.mark.parametrize("case", ["known seed", pytest.param("a scan", marks=pytest.mark.slow)])
def test_a_14m_model_takes_little_time_and_memory(tmp_path: Path, case: str) -> None:
    """5 s and 300 MB beyond imports for a known seed; a hundredth of a scan of 100,000 seeds that take 60 s."""
    model = Model(layers=6, hidden=128, vocabulary=50_304, seed=5)
    folder = on_cpu(model).write(tmp_path / "step0")
    seeds = "None" if case == "known seed" else "range(10_000, 11_000)"
    code = (
        "import json, resource, sys, time, torch\n"
        "from pathlib import Path\n"
        "from publish.explain.explain import explain_location\n"
        "from publish.sources.runs import Location\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"before, start = peak(), time.process_time()\n"
        f"answer = explain_location(Location(Path(sys.argv[1])), None, {seeds})\n"
        "print(json.dumps([answer.explanation.outcome, time.process_time() - start, (peak() - before) * 1024]))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=env, timeout=120
    )
    outcome, seconds, memory = json.loads(done.stdout)
    assert outcome == ("reproduced" if case == "known seed" else "not-reproduced")
    assert seconds < 5
    assert memory < 300e6
