"""A model that answers, through the workflow."""

from __future__ import annotations

import json

import all_stages
import pytest
from project import Project

from actprobe import texts

ROWS = [{"text": f"the {w} sees", "label": i % 2} for i, w in enumerate(all_stages.WORDS)]


@pytest.fixture
def project(tmp_path):
    all_stages.save_speaker(tmp_path / "speaker")
    p = Project(tmp_path, tmp_path / "speaker", ())
    asked = {"model": "tiny", "max_new_tokens": 5}
    p.config["datasets"] = [{"name": "d", "path": "d.jsonl", "generate": asked}]
    p.config["activations"][0]["sites"] = ["resid_post.1"]
    del p.config["probes"]
    return p


def test_answers_become_activations_in_one_run_and_are_kept(project):
    file = project.folder / "d.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in ROWS[:-1]))
    assert project.plan() == {"prompts": 1, "answers": 1, "texts": 1, "activations": 1}
    project.snakemake()
    assert project.plan() == {}
    [made] = project.cached("texts")
    first = texts.load(made)
    assert len(first) == len(ROWS) - 1 and set(first.finish) <= {"end", "limit"}
    file.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    project.snakemake()
    log = (project.folder / "logs" / "answers_tiny.log").read_text()
    assert f"{len(ROWS) - 1} of {len(ROWS)} answers are those of" in log
    second = texts.load(max(project.cached("texts"), key=lambda p: p.stat().st_mtime))
    assert len(second) == len(ROWS)
    assert second.text[:-1].tolist() == first.text.tolist()
