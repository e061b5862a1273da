"""Every example config can be planned: without a network, and before anything is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from actprobe import config
from actprobe.experiment import targets as experiment
from actprobe.models import fixture

ROOT = Path(__file__).resolve().parents[2]
# Planned with the files that they need: test_contrastive.py, test_lora_examples.py.
ELSEWHERE = ("contrastive-", "llama-70b-contrastive", "lora-")
EXAMPLES = sorted(
    p for p in (ROOT / "config" / "examples").glob("*.yaml") if not p.name.startswith(ELSEWHERE)
)
PAPER = ROOT / "config" / "examples" / "gemma-2-9b-saeprobes.yaml"


def planned(path, cache):
    return experiment.plan(config.resolve(config.load_file(path) | {"cache_dir": str(cache)}))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_planned_offline(path, tmp_path, monkeypatch):
    if "source: fixture/model" in path.read_text():
        fixture.write_model(tmp_path / "fixture" / "model", n_layers=2, d_model=32)
    monkeypatch.chdir(tmp_path)
    plan = planned(path, tmp_path / "cache")
    assert plan.batches and len(plan.pending) == len(plan.targets)
    assert not (tmp_path / "cache" / "wheels").exists()


def test_the_grid_of_the_paper(tmp_path):
    """113 datasets, 5 sites, 34 + 3 SAEs; conditions of a setting are rows of one file."""
    plan = planned(PAPER, tmp_path / "cache")
    assert len(plan.paths("texts")) == 113 + 8
    assert len(plan.paths("activations")) == 113 * 5 + 8
    assert len(plan.paths("latents")) == 113 * 37 + 8
    settings = Counter(
        t.spec["setting"] for t in plan.targets.values() if t.stage == "probes"
    )  # fmt: skip
    assert settings == {
        "normal": 113 * (5 * 5 + 37),
        "scarcity": 113 * (5 + 3),
        "imbalance": 113 * (5 + 3),
        "label_noise": 113 * (1 + 3),
        "ood": 8 * 2,
    }


def test_the_grid_of_the_paper_in_a_dry_run(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "-s", f"{ROOT}/Snakefile"]
    command += ["--directory", str(tmp_path), "--configfile", str(PAPER)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "plan: 14166 cached files to make in" in done.stderr
