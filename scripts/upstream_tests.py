"""Run huggingface_hub's own tests against the rehearsal Hub, and print what passed.

The tests come from the sdist of the installed version, which pip downloads; they are removed afterwards. The sdist
has no conftest: ours is in scripts/upstream_tests/. Exit code 1 when a test fails that OUT_OF_SCOPE does not list.

    python scripts/upstream_tests.py [-k EXPRESSION] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from publish.errors import PublishError
from publish.rehearsal.server import RehearsalHub

CONFTEST = Path(__file__).with_suffix("") / "conftest.py"
API = "tests/test_hf_api.py::"
COPY = "tests/test_copy_files.py::test_commit_copy_file"
IN_API = (
    "TestHfApiRepoFileExists TestHfApiEndpoints TestCommitApi TestHfApiUploadEmptyFile TestHfApiDeleteFolder "
    "TestHfApiListRepoTree TestHfApiTagEndpoint TestHfApiBranchEndpoint TestHfApiDeleteFiles TestHfApiPrivate "
    "TestCommitInBackground TestSquashHistory TestListGitCommits TestHfApiAuthCheck TestHfApiVerifyChecksums"
)
LFS = (
    *(API + name for name in IN_API.split()),
    "tests/test_snapshot_download.py",
    "tests/test_file_download.py",
    "tests/test_hf_file_system.py",
    "tests/test_commit_api.py",
    "tests/test_tree_cache.py",
    "tests/test_lfs.py",
    COPY,
)
XET = (*(API + name for name in IN_API.split()), "tests/test_xet_upload.py::TestXetUpload", COPY)
PASSES: tuple[tuple[str, Mapping[str, str], tuple[str, ...]], ...] = (
    ("over LFS", {"HF_HUB_DISABLE_XET": "1"}, LFS),
    ("over Xet, as a stock client does", {}, XET),
)
OUT_OF_SCOPE: Mapping[str, str] = {
    "TestHfApiEndpoints::test_whoami_with_passing_token": "needs an organization of the staging server",
    "TestCommitApi::test_create_repo_private_by_default": "organizations with a default visibility",
    "TestCommitApi::test_create_commit_repo_id_case_insensitive": "names differ in case here; the Hub redirects",
    "TestCommitApi::test_empty_commit_on_pr": "pull requests are opened by a commit only; discussions are not served",
    "TestCommitApi::test_upload_folder_create_pr": "the same: over Xet the client opens the discussion first",
    "TestXetUpload::test_upload_folder_create_pr": "the same",
    "TestXetUpload::test_upload_file": "files are not sent by Xet: the answer has no X-Xet-Hash",
    "TestSquashHistory::test_super_squash_history_on_special_ref": "discussions are not served",
    "TestStagingDownload::test_download_regular_file_from_private_renamed_repo": "a moved repo leaves no redirect",
    "TestSnapshotDownload::test_xet_file_skips_per_file_head_call": "files are not sent by Xet",
    "TestHfFileSystemRepositoryRO::test_get_file_with_xet": "files are not sent by Xet",
    "TestHfHubDownloadRelativePaths": "its repo holds a path of backslashes and dots, which is refused here",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One test. ``group`` is its class or module; ``outcome`` is passed, failed, skipped or out of scope."""

    group: str
    name: str
    outcome: str
    detail: str = ""


def unpack(folder: Path) -> Path:
    """The folder of upstream's tests at the installed version, with our conftest in it.

    Raises:
        PublishError: pip cannot fetch the sdist, or it has no tests.
    """
    wanted = f"huggingface_hub=={version('huggingface_hub')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PublishError(f"pip cannot fetch the sdist:\n{done.stderr.strip()}", wanted, "check the index and network")
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    tests = folder / archive.name.removesuffix(".tar.gz") / "tests"
    if not tests.is_dir():
        raise PublishError("the sdist has no tests", archive.name, "nothing can be run for this version")
    (tests / "__init__.py").touch()
    shutil.copy(CONFTEST, tests / "conftest.py")
    (tests.parent / "pytest.ini").write_text("[pytest]\n")  # upstream's options ask for plugins and loud logs
    return tests


def ensure_mock(folder: Path) -> str:
    """A folder for PYTHONPATH that has pytest-mock, which upstream's tests use, where it is not installed."""
    if importlib.util.find_spec("pytest_mock") is None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            "pytest-mock",
        ]
        subprocess.run(command, check=True)
    return str(folder)


def run(tests: Path, targets: tuple[str, ...], environment: Mapping[str, str], options: list[str]) -> list[Result]:
    """Run the targets against a new rehearsal Hub."""
    report = tests.parent / "report.xml"
    report.unlink(missing_ok=True)
    home = tests.parent / "home"
    with tempfile.TemporaryDirectory() as root, RehearsalHub(Path(root)) as hub:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", "--tb=line"]
        command += [f"--junitxml={report}", *options, *targets]
        output = subprocess.run(
            command, cwd=tests.parent, env=env, stdout=subprocess.PIPE, text=True, check=False
        ).stdout
    if not report.is_file():
        raise PublishError(f"pytest made no report:\n{output}", tests, "look at its output above")
    return [_result(case) for case in ElementTree.parse(report).iter("testcase")]


def _result(case: ElementTree.Element) -> Result:
    group = case.get("classname", "").removeprefix("tests.").rsplit(".", 1)[-1]
    name = case.get("name", "")
    for child in case:
        if child.tag in ("failure", "error"):
            reason = _reason(group, name)
            return Result(group, name, "out of scope" if reason else "failed", reason or child.get("message", ""))
        if child.tag == "skipped":
            return Result(group, name, "skipped", child.get("message", ""))
    return Result(group, name, "passed")


def _reason(group: str, name: str) -> str | None:
    return OUT_OF_SCOPE.get(f"{group}::{name}") or OUT_OF_SCOPE.get(group)


def show(title: str, results: list[Result]) -> None:
    """Print a table of one pass, the failures, and the reasons of what was left out."""
    outcomes = ("passed", "failed", "out of scope", "skipped")
    print(f"\n{title}\n{'':44}" + "".join(f"{name:>14}" for name in outcomes))
    groups = dict.fromkeys(result.group for result in results)
    for group in [*groups, "all"]:
        counts = Counter(result.outcome for result in results if group in (result.group, "all"))
        print(f"{group:44}" + "".join(f"{counts[name] or '':>14}" for name in outcomes))
    for outcome in ("failed", "out of scope"):
        for result in results:
            if result.outcome == outcome:
                print(f"{outcome}: {result.group}::{result.name}: {' '.join(result.detail.split())[:200]}")
    reasons = Counter(result.detail.split("\n")[0] for result in results if result.outcome == "skipped")
    for reason, count in reasons.most_common():
        print(f"skipped: {count} x {reason[:120]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="expression", help="only tests that match, as pytest understands it")
    parser.add_argument("--keep", type=Path, help="unpack into this folder and leave it there")
    arguments = parser.parse_args()
    options = ["-k", arguments.expression] if arguments.expression else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            tests = unpack(folder)
            mock = {"PYTHONPATH": ensure_mock(folder / "mock")}
            failed = 0
            for title, environment, targets in PASSES:
                results = run(tests, targets, {**environment, **mock}, options)
                show(f"huggingface_hub {version('huggingface_hub')} {title}", results)
                failed += sum(result.outcome == "failed" for result in results)
        except PublishError as error:
            print(f"Error: {error}", file=sys.stderr)
            return error.exit_code
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
