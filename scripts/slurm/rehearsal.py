"""Forty steps through a real Slurm onto a rehearsal Hub, while a task, a node and the driver are killed.

Ends with 0 when every step is published, each by one commit, and says how long it took.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster, missing

from publish.cli.demo import unpack_samples
from publish.cli.rehearse import REHEARSAL_TOKEN, UNLIMITED
from publish.rehearsal.server import RehearsalHub
from publish.schedule import step_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


ROOT = Path(__file__).resolve().parents[2]
TARGET = "rehearsal/on-slurm"
LONGEST = 33  # MaxArraySize: forty steps are two arrays
AT_ONCE = 4  # two nodes of two processors
LIMIT = 1800.0


class Rehearsal:
    """One run of it: where everything lies, and the clock."""

    def __init__(self, folder: Path, cluster: Cluster, hub: RehearsalHub, steps: int) -> None:
        self.folder, self.cluster, self.hub, self.steps = folder, cluster, hub, steps
        self.work = folder / "work"
        self.run = chosen(folder, steps)
        self.begin = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.begin:7.1f} s  {self.published():3} published  {what}", flush=True)

    def published(self) -> int:
        return len(self.hub.stats().commits.get(TARGET, {}))

    def driver(self) -> subprocess.Popen[str]:
        arguments = ["all-steps", str(self.run), TARGET, "--work-dir", str(self.work), "--workers", str(AT_ONCE)]
        slurm = [
            "--executor",
            "slurm",
            "--partition",
            "debug",
            "--time",
            "20",
            "--cpus",
            "1",
            "--mem",
            "1900M",
            "--json",
        ]
        code = "from publish.cli import main; main()"
        env = {
            **self.cluster.environment,
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": REHEARSAL_TOKEN,
            "HF_HOME": str(self.folder / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *slurm], env=env, stdout=pipe, stderr=pipe, text=True
        )

    def until(self, condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
        while not condition():
            if driver.poll() is not None:
                raise SystemExit(f"the driver ended too early ({driver.returncode}): {driver.communicate()}")
            if time.monotonic() - self.begin > LIMIT:
                raise SystemExit(f"not done after {LIMIT:.0f} s")
            time.sleep(0.1)

    def tasks(self, node: str) -> list[int]:
        """The processes of tasks that run on a node."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if str(self.work / "slurm").encode() in command and f"SLURMD_NODENAME={node}".encode() in environment:
                found.append(int(process.name))
        return found

    def play(self) -> subprocess.Popen[str]:
        """The whole course; the driver that saw its end."""
        driver = self.driver()
        self.say("driver started")
        self.until(lambda: self.published() >= self.steps // 8 and self.tasks("n1"), driver)
        os.kill(self.tasks("n1")[0], signal.SIGKILL)
        self.say("a task on n1 killed")
        self.until(lambda: self.published() >= self.steps // 4 and self.tasks("n2"), driver)
        self.cluster.lose("n2")
        self.say("node n2 lost with its tasks")
        self.until(lambda: self.published() >= self.steps // 2, driver)
        driver.kill()
        driver.communicate()
        self.say("driver killed")
        time.sleep(5)
        driver = self.driver()
        self.say("driver started again")
        return driver

    def check(self, driver: subprocess.Popen[str]) -> None:
        out, err = driver.communicate(timeout=LIMIT)
        if driver.returncode != 0:
            raise SystemExit(f"the driver ended with {driver.returncode}: {out}{err}")
        outcome = json.loads(out)
        self.say(
            f"done: {len(outcome['published'])} by this driver, main {outcome['main']}, failed {outcome['failed']}"
        )
        commits = self.hub.stats().commits[TARGET]
        wanted = {"main", *(f"step{step_of(path.name)}" for path in self.run.glob("global_step*"))}
        if set(commits) != wanted or set(commits.values()) != {1}:
            raise SystemExit(f"branches and their commits are {commits}")
        if (self.work / "slurm").exists():
            raise SystemExit(f"{self.work} was not cleaned up")


def chosen(folder: Path, count: int) -> Path:
    """The first ``count`` steps of the sample run."""
    whole, run = unpack_samples(folder / "raw"), folder / "run"
    shutil.copytree(whole / "tokenizer", run / "tokenizer")
    names = (path.name for path in whole.iterdir() if step_of(path.name) is not None)
    for name in sorted(names, key=lambda name: step_of(name) or 0)[:count]:
        shutil.copytree(whole / name, run / name)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    if absent := missing():
        raise SystemExit(f"this machine lacks {', '.join(absent)} (Debian: slurmctld slurmd slurm-client munge)")
    folder = Path(tempfile.mkdtemp(prefix="publish-slurm-"))
    try:
        (folder / "raw").mkdir()
        hub = RehearsalHub(folder / "hub", api_quota=UNLIMITED, resolver_quota=UNLIMITED)
        with hub, Cluster(LONGEST) as cluster:
            rehearsal = Rehearsal(folder, cluster, hub, steps)
            driver = rehearsal.play()
            try:
                rehearsal.check(driver)
            finally:
                driver.kill()
            seconds = time.monotonic() - rehearsal.begin
        print(f"{steps} steps published once each in {seconds:.0f} s, a task, a node and the driver killed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
