"""The package works outside the checkout: a wheel, in an environment of its own, in another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml
from project import ROOT, Project

NEEDED = ("src", "workflow", "Snakefile", "envs", "profiles", "slurm")
NEEDED += ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a new environment with a wheel of this package; what it needs it finds in ours."""
    folder = tmp_path_factory.mktemp("installed")
    tree = folder / "tree"  # setuptools leaves files behind
    tree.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *alone, "--no-build-isolation", "-w", str(folder), str(tree)], check=True
    )
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
    )
    found = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("actprobe-*.whl")
    subprocess.run([*pip, "--python", str(found), "install", *alone, str(wheel)], check=True)
    ask = [str(found), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    # A line of a .pth file adds the folder alone, and not what .pth files in it add: no checkout.
    (found.parents[1] / site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


class Installed(Project):
    """A project that is run by the installed package."""

    python = None

    def environment(self):
        return {k: v for k, v in super().environment().items() if k != "PYTHONPATH"}

    def run(self, *args):
        done = subprocess.run(
            [str(self.python), "-m", *args], cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def command(self, *args, cores=2):
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(self.config))
        snakefile = self.run("actprobe.cli", "snakefile").strip()
        assert str(ROOT) not in snakefile
        return [str(self.python), "-m", "snakemake", "-s", snakefile, "--cores", str(cores), *args]


@pytest.fixture
def installed(tmp_path, tiny_model, python):
    project = Installed(tmp_path, tiny_model, "a")
    project.config["activations"][0]["sites"] = ["resid_post.1"]
    project.python = python
    return project


def test_it_is_the_wheel_that_is_imported(installed):
    code = installed.folder / "where.py"
    code.write_text("import actprobe, torch; print(actprobe.__file__)")
    assert installed.run("where").strip().startswith(str(installed.python.parents[1]))


def test_it_plans(installed):
    said = installed.snakemake("-n")
    assert "plan: 3 cached files to make" in said
    assert "texts" in installed.run("actprobe.cli", "plan")
    link = installed.folder / ".snakemake" / "actprobe" / "python" / "actprobe"
    assert link.resolve().is_relative_to(installed.python.parents[1]), "for conda environments"


@pytest.mark.slow
def test_it_runs_an_experiment(installed):
    installed.snakemake()
    assert "<html" in (installed.folder / "results" / "toy" / "report.html").read_text()
    assert "0 damaged" in installed.run("actprobe.cli", "verify")
    assert "Nothing to be done" in installed.snakemake("-n")
