"""A Slurm of its own on loopback: munged, slurmctld and two slurmd, each node in a process namespace of its own.

It touches no Slurm that is installed: configuration, munge key, ports and state are in one temporary folder. A node's
processes are in one PID namespace, so that a killed node takes its tasks along, as a power cut does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "unshare")
NODES = ("n1", "n2")
READY = 60.0  # seconds
CONFIG = """\
ClusterName=rehearsal
SlurmctldHost=controller(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
SlurmdTimeout=20
ReturnToService=2
MessageTimeout=10
KillWait=2
MinJobAge=60
MaxArraySize={longest}
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
{nodes}
PartitionName=debug Nodes={names} Default=YES MaxTime=60 State=UP
"""


def missing() -> list[str]:
    """What this machine lacks for it."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return absent if os.geteuid() == 0 else [*absent, "root"]


class Cluster:
    """Running between ``with`` and its end. ``environment`` leads Slurm's commands to it."""

    def __init__(self, longest: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        )
        config = CONFIG.format(
            folder=self.folder, controller=ports[0], longest=longest, nodes=nodes, names=",".join(NODES)
        )
        (self.folder / "slurm.conf").write_text(config)
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def __enter__(self) -> Self:
        try:
            self._start_munge()
            (self.folder / "state").mkdir()
            self._start("controller", "--uts", "--", "slurmctld -D")
            for node in NODES:
                (self.folder / f"spool-{node}").mkdir()
                self._start(node, "--uts", "--pid", "--mount-proc", "--kill-child", "--fork", "--", "slurmd -D")
            self._wait_for("idle", len(NODES))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def lose(self, node: str) -> None:
        """Cut a node's power: its slurmd and all of its tasks end at once."""
        process = self._processes.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        place.mkdir(mode=0o755)
        key = place / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        options = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        arguments = [f"--{option}={place / name}" for option, name in options.items()]
        self._processes["munged"] = subprocess.Popen(
            ["munged", "--foreground", "--force", *arguments], env=self.environment, stderr=subprocess.DEVNULL
        )
        _until((place / "socket").exists, "munged")

    def _start(self, name: str, *arguments: str) -> None:
        """Start a daemon under a host name of its own, by which it finds itself in the configuration."""
        *namespaces, daemon = arguments
        command = ["unshare", *namespaces, "sh", "-c", f"hostname {name} && exec {daemon}"]
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
        self._processes[name] = process

    def _wait_for(self, state: str, count: int) -> None:
        def there() -> bool:
            command = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            return done.stdout.split().count(state) == count

        try:
            _until(there, "Slurm")
        except TimeoutError as error:
            logs = "\n".join(path.read_text("utf-8", "replace")[-1500:] for path in self.folder.glob("*.log"))
            raise TimeoutError(f"{error}\n{logs}") from error


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + READY
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} is not ready after {READY:.0f} s")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
