"""A private SLURM cluster on one machine: real daemons, virtual nodes, everything in one folder.

Nothing outside the folder is touched and nothing is installed. It runs as root or as an ordinary
user, who can then only run jobs of their own. All nodes are this machine under other names and
ports, and claim more CPUs and memory than it may have.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DAEMONS = ("slurmctld", "slurmd", "munged")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])


def missing() -> list[str]:
    """The daemons that are not installed on this machine."""
    return [d for d in DAEMONS if shutil.which(d, path=_PATH) is None]


class Cluster:
    """Started by `start`, ended by `stop`; `environment` lets a command talk to it."""

    def __init__(self, home: Path, nodes: int = 2, cpus: int = 4, memory_mb: int = 16000):
        self.home, self.cpus, self.memory_mb = home, cpus, memory_mb
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.cgroup = _cgroup_usable()
        self._conf = home / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """Variables for commands that use the cluster."""
        return {"SLURM_CONF": str(self._conf), "PATH": f"{self.home}/bin{os.pathsep}{_PATH}"}

    def start(self) -> None:
        for folder in ("bin", "log", "run", "state", *(f"spool/{n}" for n in self.nodes)):
            (self.home / folder).mkdir(parents=True)
        self._write_configuration()
        self._start_munged()
        self._daemon("slurmctld", "-c", "-f", str(self._conf))
        _wait("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False))
        for node in self.nodes:
            self.start_node(node)
        _wait("the nodes", lambda: set(self.states().values()) == {"idle"})

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-N", node, "-f", str(self._conf))

    def stop(self) -> None:
        """Cancel every job and end the daemons, the nodes first."""
        self.cancel()
        with contextlib.suppress(TimeoutError):
            _wait("the end of jobs", lambda: not self.jobs(), 10)
        for name in (*(f"slurmd-{n}" for n in self.nodes), "slurmctld", "munged"):
            self._end(name, signal.SIGTERM)

    def cancel(self) -> None:
        """Cancel every job."""
        self.run("scancel", "--user", getpass.getuser(), check=False)

    def run(self, *command: str, check: bool = True) -> str:
        """What a SLURM command prints."""
        env = os.environ | self.environment()
        p = subprocess.run(
            command, env=env, text=True, capture_output=True, check=False, timeout=60
        )
        assert not check or p.returncode == 0, f"{command}: {p.stdout}{p.stderr}"
        return p.stdout

    def states(self) -> dict[str, str]:
        """Node -> state (idle, mixed, allocated, down*, ...)."""
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def jobs(self, *states: str) -> list[dict[str, str]]:
        """Jobs in the queue, or in these states: id, state, node, comment (the rule), mb, minutes."""
        fields = ("id", "state", "node", "comment", "mb", "minutes", "cpus")
        chosen = ["-t", ",".join(states)] if states else []
        text = self.run("squeue", "-h", "-o", "%i|%T|%N|%k|%m|%l|%C", *chosen)
        return [dict(zip(fields, line.split("|"), strict=True)) for line in text.splitlines()]

    def crash(self, node: str) -> None:
        """What a power cut does to a node: its daemon and every process of its jobs die at once."""
        here = {j["id"] for j in self.jobs("RUNNING") if j["node"] == node}
        self._end(f"slurmd-{node}", signal.SIGKILL)
        for found in (_job_managers, _job_processes):  # a manager would report the job's death
            for pid, job in found(self._conf):
                if job in here:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _daemon(self, *command: str) -> None:
        path = shutil.which(command[0], path=_PATH)
        assert path is not None
        env = os.environ | self.environment()
        with open(self.home / "log" / f"{command[0]}.err", "a") as log:
            subprocess.run([path, *command[1:]], env=env, stderr=log, check=True, timeout=30)

    def _end(self, name: str, how: signal.Signals) -> None:
        file = self.home / "run" / f"{name}.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, TimeoutError):
            pid = int(file.read_text())
            os.kill(pid, how)
            _wait(f"the end of {name}", lambda: not _alive(pid), 10)
        file.unlink(missing_ok=True)

    def _start_munged(self) -> None:
        key = self.home / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        socket_file = self.home / "munge.socket"
        self._daemon(
            "munged", "--force", f"--key-file={key}", f"--socket={socket_file}",
            f"--pid-file={self.home}/run/munged.pid", f"--log-file={self.home}/log/munged.log",
            f"--seed-file={self.home}/munge.seed",
        )  # fmt: skip
        _wait("munged", socket_file.exists)

    def _write_configuration(self) -> None:
        """slurm.conf and its companions, and a `srun` that finds them.

        The plugin's job step drops SLURM_CONF before it calls `srun`; the wrapper, first on PATH,
        puts it back.
        """
        ports = _free_ports(1 + len(self.nodes))
        host, home = socket.gethostname().partition(".")[0], self.home
        lines = {
            "ClusterName": "private",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": ports[0],
            "SlurmUser": getpass.getuser(),
            "SlurmdUser": getpass.getuser(),
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            "AuthInfo": f"socket={home}/munge.socket",
            "StateSaveLocation": f"{home}/state",
            "SlurmdSpoolDir": f"{home}/spool/%n",
            "SlurmctldPidFile": f"{home}/run/slurmctld.pid",
            "SlurmdPidFile": f"{home}/run/slurmd-%n.pid",
            "SlurmctldLogFile": f"{home}/log/slurmctld.log",
            "SlurmdLogFile": f"{home}/log/slurmd-%n.log",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0",
            "SlurmdParameters": "config_overrides",  # nodes may claim what the machine has not
            "AccountingStorageType": "accounting_storage/none",
            "JobAcctGatherFrequency": "task=1",
            "MinJobAge": 300,
            "SlurmdTimeout": 10,
            "KillWait": 3,
            "InactiveLimit": 0,
            "ReturnToService": 2,
        }
        if self.cgroup:
            lines |= {
                "ProctrackType": "proctrack/cgroup",
                "TaskPlugin": "task/cgroup",
                "JobAcctGatherType": "jobacct_gather/cgroup",
            }
        else:  # memory is looked at once a second
            lines |= {
                "ProctrackType": "proctrack/linuxproc",
                "TaskPlugin": "task/none",
                "JobAcctGatherType": "jobacct_gather/linux",
                "JobAcctGatherParams": "OverMemoryKill",
            }
        text = [f"{k}={v}" for k, v in lines.items()]
        text += [
            f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
            f"RealMemory={self.memory_mb}"
            for n, port in zip(self.nodes, ports[1:], strict=True)
        ]
        text.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=500")
        self._conf.write_text("\n".join(text) + "\n")
        (home / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
            "ConstrainRAMSpace=yes\n"
        )
        srun = home / "bin" / "srun"
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={self._conf} exec {shutil.which("srun", path=_PATH)} "$@"\n'
        )
        srun.chmod(0o755)


def _cgroup_usable() -> bool:
    """Whether this user may limit memory with version 1 control groups."""
    probe = Path("/sys/fs/cgroup/memory") / f"actprobe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _job_managers(conf: Path) -> Iterator[tuple[int, str]]:
    """The slurmstepd processes of this cluster with the ids of their jobs."""
    for pid, title, env in _processes():
        managed = re.match(r"slurmstepd: \[(\d+)\.", title)
        if managed and env.get("SLURM_CONF") == str(conf):
            yield pid, managed[1]


def _job_processes(conf: Path) -> Iterator[tuple[int, str]]:
    """Processes of the jobs of this cluster with the ids of their jobs."""
    for pid, _, env in _processes():
        if "SLURM_JOB_ID" in env and f"{conf.parent}/bin" in env.get("PATH", ""):
            yield pid, env["SLURM_JOB_ID"]


def _processes() -> Iterator[tuple[int, str, dict[str, str]]]:
    """Every process that may be read: id, command line, environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title, words = (
                (folder / file).read_bytes().decode(errors="replace")
                for file in ("cmdline", "environ")
            )
            yield int(folder.name), title, dict(w.partition("=")[::2] for w in words.split("\0"))


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def _wait(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
