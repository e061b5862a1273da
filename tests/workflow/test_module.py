"""Another repository uses this workflow as a module, as snakedeploy writes it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from project import ROOT, Project

HOSTED = 'github("someone/actprobe", path="workflow/Snakefile", tag="v1")'
OUTER = """
configfile: "config/config.yaml"


module actprobe:
    snakefile:
        {source}
    config:
        config["probing"]
{more}

use rule * from actprobe as {name}


rule counted:
    default_target: True
    input:
        "results/toy/tables/probes.csv",
    output:
        "counted.txt",
    shell:
        "wc -l < {{input}} > {{output}}"
"""


class Outer:
    """A repository with a config and a Snakefile of its own."""

    def __init__(self, folder, model):
        self.folder = folder
        project = Project(folder, model, "a")
        project.config["activations"][0]["sites"] = ["resid_post.1"]
        self.config = {"probing": project.config}
        self.environment = project.environment()

    def write(self, name="actprobe_*", source=f'"{ROOT}/workflow/Snakefile"', more="", end=""):
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(self.config))
        text = OUTER.format(name=name, source=source, more=more) + end
        (self.folder / "Snakefile").write_text(text)

    def snakemake(self, *args, cwd=None, ok=True):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *args]
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout


@pytest.fixture
def outer(tmp_path, tiny_model):
    folder = tmp_path / "outer"
    folder.mkdir()
    return Outer(folder, tiny_model)


@pytest.fixture
def hosted(outer, tmp_path):
    """The workflow at a tag of a repository that git takes for one on GitHub."""
    repository = tmp_path / "hosted" / "someone" / "actprobe"
    repository.mkdir(parents=True)
    for name in ("Snakefile", "workflow", "envs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, repository / name)
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "v1"], ["tag", "v1"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    (repository.parent / "actprobe.git").symlink_to("actprobe")
    outer.environment |= {
        "XDG_CACHE_HOME": str(tmp_path / "sources"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/hosted/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }


@pytest.mark.usefixtures("hosted")
def test_a_run_of_the_hosted_workflow_with_prefixed_rules(outer):
    changed = "\n\nuse rule tables from actprobe as probing_tables with:\n    priority: 50\n"
    outer.write(name="probing_*", source=HOSTED, end=changed)
    said = outer.snakemake()
    assert said.count("plan: ") == 1, "planned once, though parsed twice"
    assert "plan: 2 cached files to make" in said, "the texts are made before"
    with open(outer.folder / "results" / "toy" / "tables" / "probes.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["dataset"] for r in rows} == {"a"}
    assert (outer.folder / "counted.txt").read_text().strip() == str(len(rows) + 1)
    assert len(list((outer.folder / "cache").rglob("*.h5"))) == 1
    assert "Nothing to be done" in outer.snakemake()


def test_without_a_prefix_started_from_elsewhere(outer, tmp_path):
    """Paths are relative to the working directory, which `--directory` names."""
    outer.write(name="*")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = [
        "-s",
        os.path.relpath(outer.folder / "Snakefile", elsewhere),
        "--directory",
        "../outer",
    ]
    said = outer.snakemake(*where, "-n", "activations", cwd=elsewhere)
    assert "activations_tiny" in said and "probes_saeprobes" not in said
    assert not list(elsewhere.iterdir())


def test_a_stage_is_asked_for_by_its_name_in_the_workflow_that_runs(outer):
    outer.write()
    said = outer.snakemake("-n", "actprobe_texts")
    assert "actprobe_texts_texts" in said and "actprobe_activations_tiny" not in said
    assert "actprobe: latents: the config asks for none" in outer.snakemake(
        "-n", "actprobe_latents", ok=False
    )


def test_a_prefix_of_paths_is_refused_with_what_to_write(outer):
    outer.write(more='    prefix: "sub"\n')
    said = outer.snakemake("-n", ok=False)
    assert "actprobe: cache_dir: a module's `prefix`" in said and "Traceback" not in said
    outer.write(more='    replace_prefix: {"results/": "out/"}\n')
    assert "actprobe: results_dir: a module's `prefix`" in outer.snakemake("-n", ok=False)


def test_two_configs_in_one_workflow_are_refused(outer):
    second = f"""

module other:
    snakefile:
        "{ROOT}/workflow/Snakefile"
    config:
        config["probing"] | {{"experiment": "other"}}


use rule * from other as other_*
"""
    outer.write(end=second)
    assert "two modules of one workflow are actprobe" in outer.snakemake("-n", ok=False)


def test_a_module_without_a_config_says_what_is_missing(outer):
    outer.config = {"probing": {}}
    outer.write()
    said = outer.snakemake("-n", ok=False)
    assert "actprobe: no config/config.yaml in this folder" in said, said
