"""docs/cli.md lists every command, argument, option, choice and JSON key, and nothing that does not exist."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.audit.report import MEANINGS
from publish.cli.group import COMMANDS, main
from publish.explain.generators import THREADS
from publish.rehearsal.server import RehearsalHub
from publish.release.claims import CLAIMS
from publish.verify.gates import GATES
from tests.explain.neoxfiles import Model, on_gpu

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")
SECTIONS = {title.strip(): body for title, body in re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", PAGE)}
PROGRAM = click.Context(main)
CALLED = {"publish": main, **{f"publish {name}": main.get_command(PROGRAM, name) for name in COMMANDS}}
WITH_JSON = [title for title, command in CALLED.items() if any("--json" in one.opts for one in command.params)]


def table(title: str, head: str) -> list[list[str]]:
    """The rows of the tables of a section whose first column is called ``head``."""
    found = re.findall(rf"(?m)^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)*)", SECTIONS[title])
    return [[cell.strip() for cell in row.strip("|").split("|")] for rows in found for row in rows.splitlines()]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def options(title: str) -> dict[str, click.Option]:
    given = [one for one in CALLED[title].params if isinstance(one, click.Option)]
    return {name: option for option in given for name in option.opts}


def test_every_command_has_a_section() -> None:
    assert set(SECTIONS) == {"Conventions", *CALLED}


@pytest.mark.parametrize("title", CALLED)
def test_options_are_documented(title: str) -> None:
    rows = table(title, "option")
    documented = {name.split()[0]: row for row in rows for name in spans(row[0])}
    assert documented.keys() == options(title).keys()
    for name, option in options(title).items():
        _, default, meaning = documented[name]
        if isinstance(option.type, click.Choice):
            named = set(spans(meaning))
            assert set(option.type.choices) <= named, f"{name} has choices that are not documented"
        if option.required:
            assert default == "required", name
        if option.show_default:
            assert f"`{option.default}`" == default, name


@pytest.mark.parametrize("title", [title for title in CALLED if title != "publish"])
def test_arguments_are_documented(title: str) -> None:
    command = CALLED[title]
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    names = " ".join(one.make_metavar(click.Context(command)).strip("[]") for one in arguments)
    required = [name for name, option in options(title).items() if option.required]
    forms = ["RELEASE", "SOURCE TARGET"] if names == "RELEASE|SOURCE TARGET" else [names]
    (usage,) = re.findall(r"(?m)^`publish .*$", SECTIONS[title])
    documented = [re.sub(r"(--\S+) \S+", r"\1", form) for form in spans(usage)]
    assert documented == [" ".join(filter(None, [title, form, *required])) for form in forms]


def test_no_option_is_mentioned_that_does_not_exist() -> None:
    known = {name for title in CALLED for name in options(title)}
    assert set(re.findall(r"(?<![\w=-])--[a-z][a-z-]*", PAGE)) <= {*known, "--help"}


def test_gates_and_kinds_of_findings_are_documented() -> None:
    readme, audit = (ROOT / "README.md").read_text("utf-8"), (ROOT / "docs" / "audit.md").read_text("utf-8")
    (gates,) = re.findall(r"(?ms)^\| gate \|.*?\n\n", readme)
    assert re.findall(r"(?m)^\| `(.*?)` \|", gates) == [*GATES, CLAIMS]
    assert [kind for kind in MEANINGS if f"`{kind}`" not in audit] == []


def documented_keys(title: str) -> set[str]:
    """``problems[].step`` for a row that begins with "`problems[]`: `step`"."""
    keys = set()
    for cell, *_ in table(title, "key"):
        prefix, _, rest = cell.rpartition(": ")
        keys |= {".".join([*spans(prefix), key]) for key in spans(rest)}
    return keys


def printed_keys(document: dict[str, Any], documented: set[str], path: str = "") -> Iterator[str]:
    """The keys of a JSON document in the form of the page. ``{}`` ends an object whose keys depend on the data."""
    for name, value in document.items():
        key = f"{path}{name}"
        items = value if isinstance(value, list) else []
        if f"{key}{{}}" in documented:
            yield f"{key}{{}}"
        elif isinstance(value, dict):
            yield from printed_keys(value, documented, f"{key}.")
        elif any(other.startswith((f"{key}[].", f"{key}.")) for other in documented):
            assert value is None or isinstance(value, list), key
            for item in items:
                yield from printed_keys(item, documented, f"{key}[].")
        else:
            assert not any(isinstance(item, dict) for item in items), f"{key} has keys that are not documented"
            yield key


@pytest.fixture(scope="module")
def printed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What every command with ``--json`` prints, of a release of three steps on a rehearsal Hub; and of its damage."""
    folder = tmp_path_factory.mktemp("documentation")
    run, broken, gpu = folder / "run", folder / "broken", on_gpu(Model(), THREADS["A100"]).write(folder / "gpu")
    for target, steps in ((run, (0, 1, 2)), (broken, (0, 4))):
        shutil.copytree(samples / "tokenizer", target / "tokenizer")
        for step in steps:
            shutil.copytree(samples / f"global_step{step}", target / f"global_step{step}")
    (broken / "step-7").mkdir()
    found: dict[str, list[dict[str, Any]]] = {}

    def publish(*arguments: object) -> dict[str, Any]:
        done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
        assert done.exit_code in (0, 1), done.output
        document: dict[str, Any] = json.loads(done.stdout)
        found.setdefault(f"publish {arguments[0]}", []).append(document)
        return document

    with pytest.MonkeyPatch.context() as patch, RehearsalHub(folder / "hub", api_quota=10**6) as hub:
        patch.setenv("HF_HOME", str(folder / "home"))
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", "hf_alice")
        release = folder / "release.yaml"
        assert CliRunner().invoke(main, ["init", str(run), "--target", "alice/tiny", "-o", str(release)]).exit_code == 0
        publish("schedule", broken)
        publish("inspect", run, "--step", 1, "--tensors")
        publish("inspect", gpu)
        publish("convert", run, "--step", 1, "--out", folder / "out", "--dtype", "float32")
        publish("explain", run, "--step", 0)
        publish("explain", gpu)
        publish("compare", run / "global_step0", gpu)
        publish("compare", run / "global_step0", run / "global_step2")
        publish("plan", release)
        publish("all-steps", release)
        (run / "global_step2" / "mp_rank_00_model_states.pt").write_bytes(b"damaged")
        HfApi(hub.url, "hf_alice").upload_file(
            path_or_fileobj=b"stray", path_in_repo="notes.txt", repo_id="alice/tiny", revision="step1"
        )
        _copy_weights(HfApi(hub.url, "hf_alice"), "step2", folder / "copied")
        publish("audit", "alice/tiny", "alice/copy")
        publish("status", release)
        publish("all-steps", release)
        release.write_text(release.read_text("utf-8").replace("title: ", "notes: A note.\n  title: "))
        hub.inject([{"route": "commit", "nth": 1, "status": 400}])
        publish("cards", release, "--push")
    return found


def _copy_weights(api: HfApi, branch: str, folder: Path) -> None:
    """Give another suite the weights of a branch, and a step without weights."""
    api.snapshot_download("alice/tiny", revision=branch, local_dir=folder, allow_patterns="*.safetensors")
    api.create_repo("alice/copy")
    for step in ("step3", branch):
        api.create_branch("alice/copy", branch=step)
    api.upload_folder(repo_id="alice/copy", folder_path=folder, revision=branch, allow_patterns="*.safetensors")


def test_every_json_document_is_printed(printed: dict[str, list[dict[str, Any]]]) -> None:
    assert set(printed) == set(WITH_JSON)


@pytest.mark.parametrize("title", WITH_JSON)
def test_json_keys_are_documented(title: str, printed: dict[str, list[dict[str, Any]]]) -> None:
    documented = documented_keys(title)
    keys = {key for document in printed[title] for key in printed_keys(document, documented)}
    assert keys == documented
