"""A LoRA collection through the workflow: what is made, what is set aside, what is made again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from project import Project

from actprobe.lora import synthetic

METHODS = ["ridge"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A small collection with broken files, run to its end; copy it with `project`."""
    p = Project(tmp_path_factory.mktemp("loras"), Path("."), ())
    synthetic.write(p.folder / "data", per_class=10)
    p.config = {
        "experiment": "toy",
        "loras": {
            "small": {
                "files": "data/files",
                "labels": "data/labels.csv",
                "shard_size": 20,
                "representations": ["stats"],
            }
        },
        "probes": [
            {
                "protocol": "lora-1",
                "sources": ["small/*"],
                "methods": METHODS,
                "each_column_group": "module",
            }
        ],
    }
    p.snakemake()
    return p


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A private copy of the finished project (modification times kept)."""
    folder = tmp_path / "project"
    subprocess.run(["cp", "-a", str(finished.folder), str(folder)], check=True)
    return Project(folder, Path("."), ()).copy_of(finished)


def table(p: Project, name: str) -> pd.DataFrame:
    path = p.folder / "results" / "toy" / "tables" / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def test_a_run_names_bad_files_and_has_controls_in_every_table(finished):
    assert "Nothing to be done" in finished.snakemake("-n")
    assert "0 damaged" in finished.actprobe("verify", "cache")
    page = (finished.folder / "results" / "toy" / "report.html").read_text()
    refused = table(finished, "refused").set_index("id")["reason"]
    assert len(refused) == 7 and all(name in page for name in refused.index)
    assert "cut short" in refused["broken/truncated"] and "NaN" in refused["broken/nan"]
    for name in ("probes", "representations", "modules"):
        rows = table(finished, name)
        assert set(rows["source"]) >= {"small/stats", "small/norm_only"}
        assert rows["chance"].notna().all()
    for name in ("representations", "modules"):
        assert table(finished, name)[["recipe_only", "norm_only"]].notna().all(axis=None)
    assert table(finished, "representations")[["ci_low", "ci_high"]].notna().all(axis=None)


def test_a_new_collection_beside_one_whose_features_were_deleted(project):
    """The table of refused files reads one representation of every collection."""
    shutil.rmtree(project.folder / "cache" / "lora_primitives")
    shutil.rmtree(project.folder / "cache" / "features")
    project.config["loras"]["more"] = project.config["loras"]["small"] | {
        "files": "data/files/[bc]*/**"
    }
    project.config["probes"][0]["sources"].append("more/*")
    said = project.snakemake("-n")
    assert "rule tables" in said or "tables" in said


def test_what_a_change_of_the_config_makes_again(project):
    small, probes = project.config["loras"]["small"], project.config["probes"]
    shards = len(project.cached("lora_primitives")) // 2  # families order and product
    assert shards > 2

    small["representations"].append("rank_based")
    assert project.plan() == {"features": 1, "probes": 2}, "a view of known primitives"
    small["representations"][-1] = "frequency"
    assert project.plan() == {"lora_primitives": shards, "features": 1, "probes": 2}
    small["representations"].pop()

    probes.append(
        {"protocol": "lora-1", "sources": ["small/*"], "methods": METHODS, "label": "style"}
    )
    assert project.plan() == {"probes": 4}, "another label column reads no weight"
    said = project.snakemake("-n")
    assert "4 cached files to make" in said and "lora_primitives_small" not in said


def test_a_new_file_makes_its_shard_and_a_damaged_one_is_set_aside(project):
    files = project.folder / "data" / "files"
    before = project.snapshot()
    shutil.copytree(files / "cat" / "0002", files / "cat" / "new")
    labels = project.folder / "data" / "labels.csv"
    labels.write_text(labels.read_text() + "cat/new,cat,photo,new\n")
    said = project.snakemake("-n")
    expected = {"lora_index": 1, "lora_primitives": 2, "features": 3, "probes": 6}
    assert project.plan() == expected, "one shard of two families"
    assert "files changed" in said

    whole = next((files / "bird" / "0001").glob("*.safetensors"))
    whole.write_bytes(whole.read_bytes()[:-1])
    (files / "noise.safetensors").write_bytes(bytes(1000))
    project.snakemake()
    refused = table(project, "refused").set_index("id")["reason"]
    assert len(refused) == 9 and "cut short" in refused["bird/0001"]
    assert "not a safetensors file" in refused["noise"]
    counts = table(project, "probes")
    assert set(counts["n_train"] + counts["n_test"]) == {40}, "one more, one fewer"
    after = project.snapshot()
    assert {k: after[k] for k in before} == before, "what others may still want stays"
    assert "Nothing to be done" in project.snakemake("-n")
