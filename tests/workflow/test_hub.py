"""Whole runs on a loopback hub: on a branch, then with a silent hub and with none; a closed one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import Fault, Hub
from project import Project
from safetensors.numpy import save_file

from actprobe.cache import store


def save_sae(folder: Path) -> None:
    """A SAELens folder for the tiny model's resid_post.1."""
    folder.mkdir(parents=True)
    chance, shapes = np.random.default_rng(0), {"W_enc": (16, 40), "W_dec": (40, 16)}
    shapes |= {"b_enc": (40,), "b_dec": (16,)}
    weights = {k: chance.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    meta = {
        "sae_lens_version": "6.1",
        "model_name": "name",
        "hook_name": "blocks.1.hook_resid_post",
    }
    cfg = {"architecture": "standard", "d_in": 16, "d_sae": 40, "metadata": meta}
    (folder / "cfg.json").write_text(json.dumps(cfg))


class OnHub(Project):
    """A project whose model and SAE are on a loopback hub."""

    def __init__(self, folder: Path, model: Path, hub: Hub):
        super().__init__(folder, model)
        self.hub = hub
        save_sae(folder / "published" / "sae")
        self.commit = hub.add("org/name", model)
        self.sae_commit = hub.add("org/saes", folder / "published")
        self.config["models"] = {"tiny": {"source": "hub:org/name", "revision": "main"}}
        self.config["saes"] = {
            "s": {"source": "hub:org/saes/sae", "model": "tiny", "site": "resid_post.1"}
        }
        self.config["probes"][0]["sources"] = ["tiny/*", "s"]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in super().environment().items() if k != "HF_HUB_OFFLINE"}
        return kept | {
            k: v
            for k, v in self.hub.environment(self.folder / "home").items()
            if k.startswith("HF_")
        }


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Iterator[OnHub]:
    with Hub() as hub:
        yield OnHub(tmp_path, tiny_model, hub)


def test_a_run_on_a_branch_and_runs_without_a_network(project):
    project.snakemake("latents")
    [made, *_] = project.cached("activations")
    facts = store.read_header(made)["facts"]["model"]
    assert facts == {"hub": "org/name", "revision": "main", "commit": project.commit}
    logs = "".join(p.read_text() for p in (project.folder / "logs").rglob("*.log"))
    assert "http://" not in logs and "sig=" not in logs
    before = project.snapshot()

    project.hub.reset()
    project.hub.faults.append(Fault("silent", times=999))
    begun = time.monotonic()
    said = project.snakemake("-n", "latents")
    assert time.monotonic() - begun < 45
    assert (
        f"models.tiny.revision: hub:org/name at revision 'main': {project.hub.url} gave no" in said
    )
    assert f"going on with commit {project.commit[:8]}" in said and "Nothing to be done" in said

    project.config["models"]["tiny"]["revision"] = project.commit
    project.config["saes"]["s"]["revision"] = project.sae_commit
    project.hub.asked.clear()
    said = project.snakemake("-n", "latents")
    assert "Nothing to be done" in said and "hub:" not in said and not project.hub.requests()

    project.hub.close()
    project.config["activations"][0]["positions"] = ["mean", "last"]
    project.config["saes"]["s"]["position"] = "mean"
    project.snakemake("activations")
    after = project.snapshot()
    assert before.items() <= after.items() and len(after) > len(before)


def test_what_the_hub_refuses_stops_the_plan(project):
    project.hub.repos["org/name"].access = "gated"
    project.hub.repos["org/saes"].access = "gated"
    project.config["saes"]["s"]["format"] = "saelens"
    said = project.snakemake("-n", ok=False)
    assert "these cannot be had from the hub:" in said
    assert said.count("accept its conditions at") == 2 and "Traceback" not in said
