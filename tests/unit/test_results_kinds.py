"""Every kind of results is known to `actprobe results`, to the export, and to the other pages."""

from __future__ import annotations

from pathlib import Path

import contrastive_inputs as inputs
import pandas as pd
import pytest
import yaml
from printed import Page
from results_rows import fake_rows
from test_contrastive_stage import project

from actprobe import report, results
from actprobe.base.errors import ActprobeError
from actprobe.cli import main
from actprobe.exchange import vectors
from actprobe.report import directions, finished, page
from actprobe.results import tables

PLAIN = {"protocol": "actprobe-1", "apply_to": [], "settings": ["normal"]}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> dict:
    """An experiment with probes, directions and a page of top contexts."""
    folder = tmp_path_factory.mktemp("all")
    config, known = project(folder, methods=["mean_difference"])
    made = inputs.run(config, known)
    paths = inputs.make_tables(config, made)
    contexts = [f"{finished.folder(config)}/contexts/dump.resid_pre.3.a.html"]
    texts = [t.path for t in known["texts"]]
    vectors.write(config, paths, texts)

    applied = tables.read_probes(f"{finished.folder(config)}/tables/probes.parquet")
    others = fake_rows(2, 2).assign(experiment="toy")
    probes = results.tidy(pd.concat([others, applied], ignore_index=True))
    facts = tables.dataset_table([{"dataset": d} for d in probes["dataset"].unique()])
    results.write_tables(config, probes, pd.DataFrame(columns=tables.SKIPPED), facts)
    report.make_figures(config, paths)
    report.make_report(config, texts, contexts)

    Path(contexts[0]).parent.mkdir()
    Path(contexts[0]).write_text("<p>contexts</p>")
    return config


def test_h_every_page_links_to_every_other_and_all_links_lead_somewhere(experiment):
    root = finished.folder(experiment)
    found = Page((root / "report.html").read_text(encoding="utf-8")).links
    assert "contexts/dump.resid_pre.3.a.html" in found and "report.html" not in found
    assert all((root / link).is_file() for link in found), found


def test_h_a_page_that_stands_alone_links_to_no_other():
    assert page.links([]) == []


def test_c11_results_tells_every_kind_that_is_there(experiment):
    lines = finished.told(experiment)
    assert set(report.told(experiment)) <= set(lines)
    assert set(directions.headline(results.read_tables(experiment)["directions"])) <= set(lines)
    root = finished.folder(experiment)
    assert f"report   {root / 'report.html'}" in lines
    assert f"contexts {root / 'contexts/dump.resid_pre.3.a.html'}" in lines
    assert not any("nan" in line for line in lines)


def test_c11_results_of_one_kind_alone(experiment, tmp_path, monkeypatch, capsys):
    """After a run of directions alone nothing is missing, and it is told."""
    root = tmp_path / "results" / "toy"
    for f in finished.files(experiment):
        if f.parent.name == "tables" or f.name == "report.html":
            inside = f.relative_to(finished.folder(experiment))
            (root / inside).parent.mkdir(parents=True, exist_ok=True)
            (root / inside).write_bytes(f.read_bytes())
    monkeypatch.chdir(tmp_path)
    config = {"experiment": "toy", "datasets": [], "results_dir": "results"}
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert main(["results", "--configfile", "c.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.count("report   results/toy/report.html\n") == 1
    (root / "report.html").unlink()
    assert main(["results", "--configfile", "c.yaml"]) == 0
    assert "report.html (not there yet: run snakemake)" in capsys.readouterr().out


def test_c11_where_there_is_nothing_the_missing_page_is_named(tmp_path):
    config = {"experiment": "toy", "results_dir": str(tmp_path), "probes": [PLAIN]}
    with pytest.raises(
        ActprobeError, match=r"toy/report\.html is not there yet: run snakemake first"
    ):
        finished.told(config)


def test_c11_files_are_those_of_results_and_nothing_else(experiment):
    root = finished.folder(experiment)
    (root / "wandb").mkdir(exist_ok=True)
    (root / "wandb" / "run.wandb").write_text("x")
    (root / "notes.txt").write_text("mine")
    found = {str(f.relative_to(root)) for f in finished.files(experiment)}
    assert not {"wandb/run.wandb", "notes.txt"} & found
    assert {"report.html", "tables/probes.csv", "tables/contrastive.csv"} <= found
    assert any(f.endswith("vectors/layer_1.pt") for f in found)


def test_d4_rows_of_printed_tables_differ_in_their_labels(experiment):
    page = Page((finished.folder(experiment) / "report.html").read_text(encoding="utf-8"))
    assert page.tables and page.alike() == []


def test_d17_every_page_says_where_its_numbers_come_from(experiment):
    text = (finished.folder(experiment) / "report.html").read_text(encoding="utf-8")
    assert "0.1.0, commit " in text and "provenance.csv" in text
