"""Which Snakemake runs are alive in a folder, and what a killed one left locked.

Snakemake writes the files that a run makes into `.snakemake/locks`, and never learns that the run
was killed. So each run of this workflow holds a lock (flock) on a file of its own, with its host,
process and start in it: the lock ends with the process.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError

_IF_GONE = " (if that process is no more: snakemake --unlock)"
_held: list[int] = []  # the descriptor that keeps this process's lock


def enter(state: Path, made: Collection[str], read: Collection[str]) -> None:
    """Register this run in the folder `.snakemake`, after removing what a killed run left locked.

    made, read: the files that this run will make, and those that it may read. Raises ActprobeError
    naming a living run that has one of them locked.
    """
    folder = state / "actprobe" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    locks = state / "locks"
    living, dead = _others(folder)
    if dead and not living and any(locks.glob("*.lock")):
        shutil.rmtree(locks, ignore_errors=True)
        killed = ", ".join(_words(run) for run in dead)
        print(
            f"unlocked the folder: a run was killed ({killed}); this one goes on", file=sys.stderr
        )
    outputs, inputs = _locked(locks, "output"), _locked(locks, "input")
    taken = sorted((outputs & {*made, *read}) | (inputs & {*made}))
    if taken and living:
        runs = "; ".join(_words(run) for run in living)
        raise ActprobeError(
            f"another run is at work in this folder: {runs}. Both need {taken[0]}. Wait for it, or "
            "stop it there with Ctrl+C: what it has finished stays"
            + _IF_GONE
            * any(run["host"] != socket.gethostname() for run in living)
        )
    _register(folder)


def _words(run: Mapping[str, Any]) -> str:
    return f"process {run['pid']} on {run['host']}, started {run['started']}"


def _others(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs that live, or may live on another host, and those that were killed.

    Files of dead runs are removed. A run that ended by itself has removed its file.
    """
    living, dead = [], []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            run = json.loads(path.read_text(encoding="utf-8"))
            if run["host"] != socket.gethostname() or _is_locked(path):
                living.append(run)
            else:
                dead.append(run)
                path.unlink()
    return living, dead


def _is_locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return True  # no locks on this file system: nothing is known, nothing is removed
    finally:
        os.close(fd)
    return False


def _locked(locks: Path, kind: str) -> set[str]:
    """Files that Snakemake's locks name, as "output" or "input" of some run."""
    found: set[str] = set()
    for path in locks.glob(f"*.{kind}.lock"):
        with contextlib.suppress(OSError):
            found.update(path.read_text(encoding="utf-8").split("\n"))
    return found - {""}


def _register(folder: Path) -> None:
    path = folder / f"{socket.gethostname()}-{os.getpid()}.json"
    run = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(fd, 0)
    os.write(fd, json.dumps(run).encode())
    _held.append(fd)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked child
            path.unlink(missing_ok=True)

    atexit.register(remove)
