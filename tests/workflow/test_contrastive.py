"""Contrastive probes and imports through the workflow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from project import ROOT, Project

from actprobe.models import fixture, load_activations

EXAMPLES = ROOT / "config" / "examples"
DATASETS = [
    {
        "name": "statements",
        "path": "fixture/statements.json",
        "text": "question",
        "contrastive": {},
        "template": "{text} {answer}",
    },
    {
        "name": "validation",
        "path": "fixture/validation.json",
        "text": "question",
        "label": "type",
        "positive": "testing",
    },
]
ENTRY = {"protocol": "contrastive-1", "datasets": ["statements"], "apply_to": ["validation"]}


@pytest.fixture
def project(tmp_path, tiny_model):
    fixture.write_data(tmp_path / "fixture")
    p = Project(tmp_path, tiny_model, ())
    p.config |= {"datasets": DATASETS, "probes": [ENTRY]}
    return p


def activations(project: Project) -> np.ndarray:
    """All training activations, layer by layer."""
    files = [p for p in project.cached("activations") if p.parent.name == "statements"]
    return np.stack([load_activations(p) for p in files])


LLAMA = {"texts": 3, "activations": 36, "probes": 3 * 9 + 3}
MINILM = {"wheels": 1, "texts": 4, "activations": 28, "probes": 3 * 14 + 6}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-70b-contrastive", LLAMA),
        ("contrastive-tiny", LLAMA),
        ("contrastive-minilm", MINILM),
    ],
)
def test_examples_are_planned_without_a_network(tmp_path, name, expected):
    fixture.write_data(tmp_path / "fixture")
    fixture.write_model(tmp_path / "fixture" / "model", d_model=8)
    p = Project(tmp_path, Path("."), ())
    p.config = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    assert p.plan() == expected
    said = p.snakemake("-n")
    assert f"{sum(expected.values())} cached files to make" in said and not p.cached()


def test_from_pairs_to_the_page_and_another_layer(project):
    project.snakemake()
    root = project.folder / "results" / "toy"
    table = pd.read_csv(root / "tables" / "contrastive.csv")
    assert len(table) == 9 and table["test_auc"].between(0, 1).all()
    assert set(table.loc[table["chosen"], "method"]) == {"mean_difference", "logreg", "lda"}
    run = root / "contrastive" / "statements.tiny.resid_post.mean.lda"
    assert (run / "normalized_vectors" / "layer_1.pt").is_file()
    assert (root / "figures" / "contrastive_roc.png").is_file()
    assert "Nothing to be done" in project.snakemake("-n")

    before = project.snapshot()
    project.config["activations"][0]["sites"].append("resid_post.2")
    assert project.plan() == {"activations": 2, "probes": 3}
    project.snakemake()
    after = project.snapshot()
    assert before.items() <= after.items() and len(after) == len(before) + 5
    assert len(pd.read_csv(root / "tables" / "contrastive.csv")) == 12


def test_another_experiment_on_the_cache_runs_no_model(project):
    project.snakemake()
    project.config["experiment"] = "other"
    own = {
        "extends": "contrastive-1",
        "name": "weaker",
        "methods": {"logreg": {"solver": {"C": 0.1}}},
    }
    (project.folder / "weaker.yaml").write_text(yaml.safe_dump(own))
    project.config["probes"] = [{**ENTRY, "protocol": "weaker.yaml", "methods": ["logreg"]}]
    assert project.plan() == {"probes": 2 + 3}  # and its baselines
    assert "activations_tiny" not in project.snakemake()
    assert "Directions" in (project.folder / "results" / "other" / "report.html").read_text()


def test_activations_do_not_depend_on_labels(project):
    project.snakemake("activations")
    before = activations(project)
    for path in project.cached("activations"):
        path.unlink()
    for name in ("statements", "validation"):
        file = project.folder / "fixture" / f"{name}.json"
        rows = json.loads(file.read_text())
        for i, r in enumerate(rows):
            if i % 3 == 0 and name == "statements":
                r["positive"], r["negative"] = r["negative"], r["positive"]
            elif i % 3 == 0:
                r["type"] = {"testing": "deployment", "deployment": "testing"}[r["type"]]
        file.write_text(json.dumps(rows))
    project.snakemake("activations")
    assert before.tobytes() == activations(project).tobytes()

    project.config["datasets"][0]["contrastive"] = {"positive": "negative", "negative": "positive"}
    assert "activations" not in project.plan()


def test_an_imported_cache_is_probed_like_an_extracted_one(project):
    for name, n in (("statements", 120), ("validation", 200)):
        x = torch.randn(n, 8, generator=torch.Generator().manual_seed(n))
        (project.folder / "dump").mkdir(exist_ok=True)
        for layer in (4, 9):
            file = project.folder / "dump" / f"{name}_blocks.{layer}.hook_resid_post.pt"
            torch.save(x.bfloat16(), file)
    del project.config["activations"], project.config["models"]
    project.config["imports"] = {
        "dump": {"layout": "saeprobes", "folder": "dump", "model": "far", "datasets": ["*"]}
    }
    assert project.plan() == {"texts": 2, "imports": 4, "probes": 2 * 3 + 3}
    project.snakemake()
    table = pd.read_csv(project.folder / "results" / "toy" / "tables" / "contrastive.csv")
    assert set(table["source"].dropna()) == {f"far/resid_post.{n}.last" for n in (4, 9)}
    assert "Nothing to be done" in project.snakemake("-n")
