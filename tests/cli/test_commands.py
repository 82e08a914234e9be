"""The command line is a contract: names, exit codes, JSON, and one clear error for bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from publish.cli.group import COMMANDS, main
from publish.rehearsal.server import RehearsalHub
from tests.formats import hostile

STEP = "mp_rank_00_model_states.pt"


def publish(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: importing torch takes seconds, once for all tests."""
    done = CliRunner().invoke(
        main, [str(argument) for argument in arguments], env=env, prog_name="publish", catch_exceptions=False
    )
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def publish_process(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as users do."""
    command = [sys.executable, "-c", "from publish.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, nothing on stdout, one error that says what, where and what to do, and no traceback."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("Error: ") for line in done.stderr.splitlines()) == 1
    assert "  at:  " in done.stderr
    assert "  fix: " in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = publish(name, "--help")
    assert done.returncode == 0
    assert f"Usage: publish {name}" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["schedule", "SAMPLES"]])
def test_start_up_imports_nothing_heavy(arguments: list[str], samples: Path) -> None:
    code = (
        "import sys\nfrom publish.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'numpy', 'uvicorn', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    given = [str(samples) if argument == "SAMPLES" else argument for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_schedule_says_what_is_missing(samples: Path, tmp_path: Path) -> None:
    done = publish("schedule", samples, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], len(report["found"])) == (0, True, 154)
    shutil.copytree(samples / "global_step0", tmp_path / "step0")
    shutil.copytree(samples / "global_step1", tmp_path / "step4")
    (tmp_path / "step-7").mkdir()
    done = publish("schedule", tmp_path, "--schedule", "0,1,4", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["missing"], report["unexpected"]) == (1, [1], ["step-7"])
    assert {problem["kind"] for problem in report["problems"]} == {"unparsable-name", "wrong-iteration"}
    assert set(report) == {"schedule", "expected", "found", "missing", "unexpected", "problems", "ok"}


def test_inspect_reads_what_a_checkpoint_says_of_itself(samples: Path) -> None:
    report = json.loads(publish("inspect", samples, "--step", "512", "--json").stdout)
    assert (report["iteration"], report["layout"], report["dtype"]) == (512, "sequential", "float16")
    assert (report["architecture"], report["parameters"]) == ("gpt_neox", 14_784)
    assert report["training"]["loss_scale"] == 4096.0
    assert report["config"]["num_layers"] == 2


def test_convert_writes_a_folder_and_says_what_is_in_it(samples: Path, tmp_path: Path) -> None:
    done = publish_process("convert", samples, "--step", "512", "--out", tmp_path / "out", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert {gate["name"]: gate["outcome"] for gate in report["gates"]}["logits"] == "passed"
    assert {file["path"] for file in report["files"]} == {path.name for path in (tmp_path / "out").iterdir()}
    refused(publish("convert", samples, "--step", "512", "--out", tmp_path / "out"), "not empty", "--overwrite")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder, real, marker: (folder / STEP).write_bytes(real[: len(real) // 2]), "not a torch zip archive"),
        (
            lambda folder, real, marker: (folder / STEP).write_bytes(hostile.archive(hostile.calls_system(marker))),
            "has no weights",
        ),
        (lambda folder, real, marker: (folder / "notes.txt").write_text("hello"), "no checkpoint"),
    ],
    ids=["truncated", "calls os.system", "no checkpoint"],
)
def test_a_folder_that_is_no_checkpoint_is_refused(samples: Path, tmp_path: Path, make: object, word: str) -> None:
    folder, marker, out = tmp_path / "step0", tmp_path / "ran", tmp_path / "out"
    folder.mkdir()
    make(folder, (samples / "global_step0" / STEP).read_bytes(), marker)  # type: ignore[operator]
    refused(publish("convert", folder, "--out", out), word)
    assert not out.exists()
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "step0"] == []


def test_a_checkpoint_of_another_iteration_is_refused(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples / "global_step1", tmp_path / "step64")
    done = publish("convert", tmp_path / "step64", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "step64 holds iteration 1" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_layer_file_is_refused(tmp_path: Path) -> None:
    from tests.conftest import shared

    folder = tmp_path / "global_step16"
    shutil.copytree(shared("neox/pythia_pipe/global_step16"), folder)
    (folder / "layer_03-model_00-model_states.pt").unlink()
    refused(publish("convert", folder, "--out", tmp_path / "out"), "layer file 03 is missing")


def test_an_unknown_key_of_a_release_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "release.yaml").write_text("source: x\ntraget: a/b\n")
    refused(publish("all-steps", tmp_path / "release.yaml"), "unknown key 'traget'", "line 2")


def test_an_unreachable_endpoint_is_refused(samples: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_alice"}
    refused(publish("all-steps", samples, "alice/tiny", env=env), "127.0.0.1:9", "HF_ENDPOINT")


def test_without_the_right_to_write_it_is_refused(samples: Path, tmp_path: Path) -> None:
    with RehearsalHub(tmp_path) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_read_alice"}
        refused(publish("all-steps", samples, "read-alice/tiny", env=env))
        assert "no token" in publish("all-steps", samples, "alice/tiny", env={"HF_ENDPOINT": hub.url}).stderr
        assert hub.stats().commits == {}


def test_no_space_left_is_refused(samples: Path, tmp_path: Path) -> None:
    code = (
        "import shutil, sys\n"
        "real = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: real(path)._replace(free=1000)\n"
        "from publish.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "convert", str(samples), "--step", "0", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    refused(done, "are needed and 1,000 are free")
    assert list(tmp_path.iterdir()) == []


def test_a_release_by_the_command_line(samples: Path, tmp_path: Path) -> None:
    with RehearsalHub(tmp_path / "hub", api_quota=10**6) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice"}
        work = tmp_path / "work"
        arguments = ("all-steps", samples, "alice/tiny", "--schedule", "0,1,512", "--work-dir", work, "--json")
        done = publish_process(*arguments, env=env)
        report = json.loads(done.stdout)
        assert (done.returncode, report["published"], report["commits"]) == (0, [0, 1, 512], 4)
        assert done.stderr == ""
        status = json.loads(publish("status", samples, "alice/tiny", "--schedule", "0,1,512", "--json", env=env).stdout)
        assert [step["state"] for step in status["steps"]] == ["published"] * 3
        assert "hf_alice" not in done.stdout + (work / next(work.iterdir()).name).read_text()


@pytest.mark.slow
def test_the_demo_publishes_all_154_steps(tmp_path: Path) -> None:
    done = publish_process("demo", "--work-dir", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "published          154 steps" in done.stdout
    assert "GPTNeoXForCausalLM, 14,784 parameters" in done.stdout


def test_init_writes_a_file_that_plan_reads(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "release.yaml"
    assert publish("init", samples, "--target", "alice/tiny", "-o", path).returncode == 0
    assert 'schedule: "pythia"' in path.read_text()
    report = json.loads(publish("plan", path, "--json").stdout)
    assert (len(report["steps"]), report["commits"]) == (154, 156)
    assert {"weight_bytes", "upload_bytes", "hours_at_quota", "disk_bytes"} <= set(report)
    refused(publish("init", samples, "-o", path), "exists")
