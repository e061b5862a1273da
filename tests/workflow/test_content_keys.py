"""Activations are keyed by what the model reads (fault row G1): names, files and labels do not count."""

from __future__ import annotations

import csv
import json
import os

import pytest

NOTHING = "Nothing to be done"


def rows(project) -> list[dict[str, str]]:
    return list(csv.DictReader((project.folder / "a.csv").read_text().splitlines()))


def write(project, found: list[dict[str, str]]) -> None:
    with open(project.folder / "a.csv", "w", newline="") as f:
        table = csv.DictWriter(f, [*found[0]])
        table.writeheader()
        table.writerows(found)


def edit_a_label(project):
    found = rows(project)
    found[0]["label"] = "1"
    write(project, found)
    return {"texts": 1, "probes": 2}


def add_a_column(project):
    write(project, [r | {"note": str(i)} for i, r in enumerate(rows(project))])
    return {"texts": 1}


def write_it_as_jsonl(project):
    lines = [json.dumps({"text": r["text"], "label": int(r["label"])}) for r in rows(project)]
    (project.folder / "a.jsonl").write_text("\n".join(lines))
    project.config["datasets"][0]["path"] = "a.jsonl"
    return {"texts": 1}


def rename_the_dataset(project):
    project.config["datasets"][0]["name"] = "c"
    return {"texts": 0, "probes": 2}


def rename_the_model(project):
    project.config["models"] = {"small": project.config["models"]["tiny"]}
    project.config["activations"][0]["model"] = "small"
    project.config["probes"][0]["sources"] = ["small/*"]
    return {"probes": 4}


@pytest.mark.parametrize(
    "change",
    [edit_a_label, add_a_column, write_it_as_jsonl, rename_the_dataset, rename_the_model],
)
def test_g1_no_activation_is_computed_again(fork, change):
    before = {p.stat().st_ino for p in fork.cached("activations")}
    expected = {k: v for k, v in change(fork).items() if v}
    assert fork.plan() == expected
    said = fork.snakemake("-n")
    renamed = change in (rename_the_dataset, rename_the_model)
    assert ("there under another name" in said) == renamed
    log = fork.snakemake()
    assert "tiny: loaded" not in log and "small: loaded" not in log
    assert {p.stat().st_ino for p in fork.cached("activations")} == before  # the same files
    assert NOTHING in fork.snakemake("-n")
    assert "0 damaged" in fork.actprobe("verify", "cache")


def test_g1_a_changed_text_and_another_order_are_other_rows(fork):
    found = rows(fork)
    write(fork, [*found[1:], found[0]])
    assert fork.plan()["activations"] == 2


def test_a_cache_that_cannot_be_written_is_planned_and_read(fork):
    before = fork.snapshot()
    folders = [p for p in (fork.folder / "cache").rglob("*") if p.is_dir()]
    for p in [*folders, fork.folder / "cache"]:
        p.chmod(0o555)
    try:
        if os.access(fork.folder / "cache", os.W_OK):
            pytest.skip("this user may write everywhere")
        assert fork.plan() == {}
        assert NOTHING in fork.snakemake("-n")
        (fork.folder / "results" / "toy" / "report.html").unlink()
        fork.snakemake()
        assert fork.snapshot() == before
    finally:
        for p in [*folders, fork.folder / "cache"]:
            p.chmod(0o755)
