"""Bad input ends the run with a message that names the thing, before a model is loaded."""

from __future__ import annotations

import pytest


def edit(project, key, value):
    project.config["datasets"][0][key] = value


def dataset(project, content: bytes | str):
    data = content.encode() if isinstance(content, str) else content
    (project.folder / "a.csv").write_bytes(data)


AT_THE_DOOR = {
    "missing file": (lambda p: edit(p, "path", "gone.csv"), ["gone.csv"]),
    "unknown key": (lambda p: p.config.update(experimnt="x"), ["experimnt", "experiment"]),
    "unknown nested key": (lambda p: edit(p, "txt", "text"), ["txt", "text"]),
    "two datasets of one name": (lambda p: edit(p, "name", "b"), ["two datasets", "b"]),
    "unknown model": (
        lambda p: p.config["activations"][0].update(model="tny"), ["tny", "tiny"],
    ),
    "layer out of range": (
        lambda p: p.config["activations"][0].update(sites=["resid_post.3"]), ["resid_post.3", "3"],
    ),
    "unknown method": (lambda p: p.config["probes"][0].update(methods=["logre"]), ["logreg"]),
    "unwritable cache": (lambda p: p.config.update(cache_dir="a.csv/cache"), ["a.csv/cache"]),
}  # fmt: skip

IN_THE_TEXTS = {
    "missing column": (lambda p: edit(p, "text", "txt"), ["txt", "text"]),
    "too few rows": (
        lambda p: dataset(p, "text,label\nx,1\ny,0\nz,1\n"), ["dataset a", "saeprobes-0.4.2"],
    ),
    "one class only": (lambda p: dataset(p, "text,label\nx,1\ny,1\n"), ["expected two classes"]),
    "NaN text": (lambda p: dataset(p, 'text,label\nx,1\n,0\n'), ["row"]),
    "empty text": (lambda p: dataset(p, 'text,label\nx,1\n"  ",0\n'), ["row"]),
    "duplicate id": (
        lambda p: (edit(p, "id", "id"), dataset(p, "id,text,label\n1,x,1\n1,y,0\n")), ["1"],
    ),
    "not UTF-8": (lambda p: dataset(p, b"text,label\ncaf\xe9,1\nx,0\n"), ["UTF-8"]),
}  # fmt: skip


@pytest.mark.parametrize("case", AT_THE_DOOR)
def test_refused_while_planning(empty, case):
    change, words = AT_THE_DOOR[case]
    change(empty)
    said = empty.snakemake("-n", ok=False)
    assert all(w in said for w in words), said
    assert "Traceback" not in said


@pytest.mark.parametrize("case", IN_THE_TEXTS)
def test_refused_by_the_texts_stage_before_a_model_is_loaded(empty, case):
    change, words = IN_THE_TEXTS[case]
    change(empty)
    said = empty.snakemake(ok=False)
    assert all(w in said for w in ["a", *words]), said
    assert not empty.cached("activations")


def test_skip_lists_the_bad_dataset_in_the_report(empty):
    dataset(empty, "text,label\nx,1\ny,1\n")
    empty.config["on_bad_dataset"] = "skip"
    empty.snakemake()
    results = empty.folder / "results" / "toy"
    assert "expected two classes" in (results / "tables" / "skipped.csv").read_text()
    assert "expected two classes" in (results / "report.html").read_text()
    assert "Nothing to be done" in empty.snakemake("-n")

    empty.config["on_bad_dataset"] = "stop"
    assert "expected two classes" in empty.snakemake(ok=False)


def test_d15_no_model_reads_a_dataset_that_no_probe_can_use(empty):
    dataset(empty, "text,label\nx,1\ny,0\nz,1\n")
    empty.config["on_bad_dataset"] = "skip"
    empty.snakemake()
    assert {p.parent.name for p in empty.cached("activations")} == {"b"}
    skipped = (empty.folder / "results" / "toy" / "tables" / "skipped.csv").read_text()
    assert skipped.count("100 test rows are needed") == 2, skipped  # of two places
    assert "Nothing to be done" in empty.snakemake("-n")
