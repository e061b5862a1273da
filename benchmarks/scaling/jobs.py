"""How many jobs a minute go through SLURM, one by one and eight to a submission?

    python benchmarks/scaling/jobs.py [--jobs 24]

A private cluster of two virtual nodes with four CPUs each (tests/slurm/cluster.py) on this machine,
the profile as it is; jobs that encode one small dataset with one small SAE each, a second of work.
Prints wall seconds from the command to its end, the same with `--cores 2` and no SLURM beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "slurm")]

import small_saes  # noqa: E402
from cluster import Cluster  # noqa: E402
from project import Project, save_tiny_model  # noqa: E402


def make_project(folder: Path, jobs: int) -> Project:
    """A project with `jobs` SAEs; texts and activations are there."""
    made = Project(folder, save_tiny_model(folder / "llama"), "a")
    made.config["saes"] = small_saes.save(folder, [f"sae{i}" for i in range(jobs)])
    made.config |= {"probes": [], "threads": {"saes": 1}, "max_memory": "700MB"}
    made.snakemake("activations")
    return made


def run(project: Project, *options: str, env: dict[str, str]) -> float:
    """Wall seconds of all latents, made anew."""
    subprocess.run(["rm", "-rf", project.folder / "cache" / "latents"], check=True)
    local = project.command()
    command = [*local[:3], "latents", *local[3 : local.index("--cores")], *options]
    begun = time.monotonic()
    subprocess.run(
        command, cwd=project.folder, env=project.environment() | env, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert len(project.cached("latents")) == len(project.config["saes"])
    return time.monotonic() - begun


def main() -> None:
    """Print the table that stands in results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=24)
    jobs = parser.parse_args().jobs
    slurm = ["--profile", str(ROOT / "slurm"), "--cores", "4"]
    ways = {
        "no SLURM, `--cores 2`": ["--cores", "2"],
        "SLURM, a submission for each": [*slurm, "--group-components", "small_latents=1"],
        "SLURM, eight to a submission": [*slurm, "--group-components", "small_latents=8"],
    }
    with tempfile.TemporaryDirectory() as tmp:
        private = Cluster(Path(tmp) / "c")
        (Path(tmp) / "p").mkdir()
        project = make_project(Path(tmp) / "p", jobs)
        private.start()
        try:
            print(f"| {jobs} jobs | wall s | jobs a minute | load before |\n|---|---|---|---|")
            for name, options in ways.items():
                load = os.getloadavg()[0]
                wall = run(project, *options, env=private.environment())
                print(f"| {name} | {wall:.0f} | {60 * jobs / wall:.0f} | {load:.1f} |", flush=True)
        finally:
            private.stop()


if __name__ == "__main__":
    main()
