"""Run a command and measure it: wall and CPU seconds, peak resident memory of its process tree."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Cost:
    """wall, cpu: seconds; memory: largest sum of resident sizes seen, MB (10^6 bytes)."""

    wall: float
    cpu: float
    memory: float
    killed: bool


def run(
    command: list[str], environment: dict[str, str] | None = None, kill_when=lambda: False
) -> Cost:
    """Run to the end, or until `kill_when()` says so; raises when the command fails."""
    begun = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, **(environment or {})})
    root = psutil.Process(child.pid)
    peak, cpu, killed = 0, {}, False
    while child.poll() is None:
        tree = [root]
        try:
            tree += root.children(recursive=True)
            peak = max(peak, sum(p.memory_info().rss for p in tree))
            for p in tree:
                times = p.cpu_times()
                cpu[p.pid] = times.user + times.system
        except psutil.Error:
            pass
        if kill_when():
            for p in tree:
                p.kill()
            killed = True
        time.sleep(0.02)
    wall = time.monotonic() - begun
    if child.returncode and not killed:
        raise SystemExit(f"{command} failed with {child.returncode}")
    return Cost(wall, sum(cpu.values()), peak / 1e6, killed)
