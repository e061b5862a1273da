"""A private cluster for the tests of this folder, and projects that run on it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing
from project import ROOT, Project, save_tiny_model

HERE = Path(__file__).parent
SETTINGS = [
    "--slurm-init-seconds-before-status-checks=2",
    "--latency-wait=5",
    "--slurm-no-requeue",  # SLURM itself would wait two minutes before it starts a job again
]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two nodes; the test is skipped by name when a program is missing."""
    if absent := missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("not installed: snakemake-executor-plugin-slurm")
    private = Cluster(tmp_path_factory.mktemp("slurm") / "c")
    try:
        private.start()
        yield private
    finally:
        private.stop()


class ClusterProject(Project):
    """A project whose `snakemake` submits to the cluster."""

    cluster: Cluster

    def command(self, *args: str, cores: int = 2) -> list[str]:
        local = super().command(*args)
        at = local.index("--cores")
        return [*local[:at], "--profile", str(ROOT / "slurm"), *SETTINGS, *local[at + 2 :]]

    def environment(self) -> dict[str, str]:
        trouble = self.folder / "trouble"
        trouble.mkdir(exist_ok=True)
        env = super().environment() | self.cluster.environment()
        return env | {"PYTHONPATH": str(HERE / "inside"), "TROUBLE": str(trouble)}

    def start(self, *args: str) -> Run:
        """Start snakemake and go on."""
        return Run(self, args)


class Run:
    """A snakemake in the background and what the cluster has seen of its jobs."""

    def __init__(self, project: ClusterProject, args: tuple[str, ...]):
        self.cluster, self.output = project.cluster, project.folder / "output.txt"
        self.seen: dict[str, dict[str, str]] = {}  # job id -> its last state
        self._earlier = {j["id"] for j in self.cluster.jobs("all")}
        with open(self.output, "w") as f:
            self.process = subprocess.Popen(
                project.command(*args), cwd=project.folder, env=project.environment(),
                stdout=f, stderr=subprocess.STDOUT,
                # A shell's background job, this test perhaps, has its children ignore Ctrl+C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def until(self, ready: Callable[[], object], seconds: float = 300) -> None:
        """Watch the jobs until something holds; fails when snakemake ends before or time is up."""
        end = time.monotonic() + seconds
        while not ready():
            self._look()
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.3)

    def finish(self, ok: bool = True, seconds: float = 300) -> str:
        """Wait for the end; returns what snakemake said."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            self._look()
            assert time.monotonic() < end, self.said()
            time.sleep(0.3)
        self._look()
        assert (self.process.returncode == 0) == ok, self.said()
        return self.said()

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """The submissions of a rule or group, first to last, each in its last state."""
        found = [j for j in self.seen.values() if j["comment"].startswith(f"rule_{rule}")]
        return sorted(found, key=lambda j: int(j["id"]))

    def said(self) -> str:
        return self.output.read_text()

    def _look(self) -> None:
        now = {j["id"]: j for j in self.cluster.jobs("all")}
        self.seen.update({k: j for k, j in now.items() if k not in self._earlier})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def project(tmp_path, tiny_model, cluster) -> ClusterProject:
    """A project that was never run; one job of a stage fills a node."""
    made = ClusterProject(tmp_path / "project", tiny_model, ())
    made.cluster = cluster
    made.folder.mkdir()
    for name in "ab":
        made.add_dataset(name)
    made.config |= {"threads": {"activations": 3, "probes": 2}, "max_memory": "700MB"}
    return made


@pytest.fixture
def local(project, tmp_path) -> Callable[[], Project]:
    """Runs the same config on this machine alone, to compare with."""

    def run() -> Project:
        folder = tmp_path / "local"
        subprocess.run(["cp", "-r", project.folder, folder], check=True)
        copy = Project(folder, Path("."), ()).copy_of(project)
        for name in ("cache", "results", ".snakemake"):
            subprocess.run(["rm", "-rf", folder / name], check=True)
        copy.snakemake()
        return copy

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
