"""What results rest on: the program, inputs and their digests, and how models read the texts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from results_rows import fake_rows
from texts_inputs import hand_made

from actprobe import report, results
from actprobe.cache import plan, store
from actprobe.cache.plan import Plan, Target
from actprobe.config import resolve
from actprobe.report import headlines
from actprobe.results import layout, provenance, tables
from actprobe.sae.records import HubIdentity, LatentSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def target(stage: str, name: str, params: Any, inputs=(), **args) -> Target:
    return plan.target(
        "cache", stage, 1, name, params, loader=args.get("model", stage), item=args.pop("item", name),
        inputs=inputs, args=args,
    )  # fmt: skip


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Plan:
    """Two datasets, a hub model at two sites, an SAE on one of them, a probe of each; and an input
    that no probe reads."""
    monkeypatch.chdir(tmp_path)
    made: list[Target] = []
    for name in ("a", "b"):
        texts = hand_made("cache", name, f"{name}{name}", provenance={"file": f"{name}.csv"})
        place = {"model": "m", "item": name, "place": {"asked": "main"}}
        model = {"model": {"hub": "org/model", "revision": COMMIT}}
        x = [
            target(
                "activations",
                f"m/{name}/{site}",
                {**model, "site": site, "of": name},
                [texts],
                **place,
            )
            for site in ("resid_post.0.last", "resid_post.1.last")
        ]
        sae = HubIdentity(hub="org/sae", revision=COMMIT, folder="a", format="saelens")
        codes = LatentSpec(
            sae=sae, activations=x[1].key, fold_decoder_norm=False, product="float32"
        )
        z = target("latents", f"sae/{name}", codes, [x[1]], source="sae", item=name, model="m")
        recipe = {"protocol": "p", "setting": "normal", "method": "logreg", "recipe": "r" * 64}
        made += [texts, *x, z]
        made += [
            target("probes", f"{name}.{i}", {**recipe, "of": i}, [i_of])
            for i, i_of in enumerate((x[0], z))
        ]
    made.append(hand_made("cache", "unread", "cc", provenance={"file": "c.csv"}))
    return Plan(resolve({"experiment": "e"}), {t.path: t for t in made}, [], {}, {}, [])


def write(t: Target, **facts) -> None:
    known = {
        "n_rows": 160,
        "n_truncated": 0,
        "n_special_in_text": 0,
        "torch": "9.9",
        "device": "cpu",
    }
    store.publish([t.path], [store.write_h5(t.path, {"x": np.zeros(2)}, t.record, known | facts)])


def of_stage(experiment: Plan, stage: str, item: str) -> list[Target]:
    return [t for t in experiment.targets.values() if t.stage == stage and t.item == item]


def test_d17_every_input_is_named_with_what_identifies_it(experiment):
    rows = provenance.rows(provenance.origin(experiment, "probes"), ["k1"], {"a": 1})
    found = {(r["what"], r["name"]): r["value"] for r in rows}
    assert found["model", "m"] == f"hub org/model, revision {COMMIT} (asked for: main)"
    assert found["SAE", "sae"] == f"hub org/sae, revision {COMMIT}, folder a, format saelens"
    assert found["dataset", "a"] == "file a.csv"
    key = next(t for t in experiment.targets.values() if t.name == "a").key
    assert found["content of dataset", "a"] == f"sha256 {key}"
    assert ("dataset", "unread") not in found, "no probe reads it"
    assert found["recipe", "p normal logreg"] == f"digest {'r' * 64}"
    assert found["program", "actprobe"].startswith("0.1.0, commit ")
    assert {"config", "cached files"} <= {r["what"] for r in rows}


def test_tasks_of_one_class_against_the_rest_name_no_labels_of_loras():
    recipe = {"protocol": "p", "setting": "normal", "method": "knn", "recipe": "r" * 64}
    t = target("probes", "a", {**recipe, "labels": "one_vs_rest"})
    planned = Plan(resolve({"experiment": "e"}), {t.path: t}, [], {}, {}, [])
    named = provenance.origin(planned, "probes")
    assert [row["what"] for row in named["inputs"]] == ["recipe"]


def test_d17_how_activations_were_computed_is_told_from_their_headers(experiment):
    for item, version in (("a", "9.9"), ("b", "10.0")):
        write(of_stage(experiment, "activations", item)[1], torch=version)
    rows = provenance.rows(provenance.origin(experiment, "probes"))
    found = {r["name"]: r["value"] for r in rows if r["what"] == "activations computed with"}
    assert found == {"m on a": "torch 9.9, device cpu", "m on b": "torch 10.0, device cpu"}


def test_d17_the_commit_is_that_of_this_package_alone(tmp_path, monkeypatch):
    """A package inside of somebody's repository does not take its commit for its own."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path)]
    package = tmp_path / "site-packages" / "actprobe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "mine.txt").write_text("mine")
    for command in (["init", "-q"], ["add", "mine.txt"], ["commit", "-q", "-m", "mine"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    monkeypatch.setattr(provenance.metadata, "distribution", _no_distribution)
    assert provenance.commit() == ""
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "both"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert provenance.commit() == head.stdout.strip()
    (package / "__init__.py").write_text("x = 1\n")
    assert provenance.commit() == f"{head.stdout.strip()}, changed since"


def _no_distribution(name: str):
    raise provenance.metadata.PackageNotFoundError(name)


def test_d17_naming_inputs_imports_nothing_heavy():
    heavy = "('pandas', 'pyarrow', 'numpy', 'h5py', 'jinja2', 'matplotlib')"
    code = (
        f"import sys, actprobe.results.provenance; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_d10_rows_cut_short_and_special_tokens_stand_in_the_table_of_datasets(experiment):
    """The facts come from whichever file of a dataset and model is there."""
    write(of_stage(experiment, "activations", "a")[1], n_truncated=160, n_special_in_text=3)
    write(of_stage(experiment, "activations", "b")[0])
    reads = provenance.facts(provenance.origin(experiment, "probes")["reads"])
    described = [
        {"dataset": d, "n": 160, "texts": 150, "multiline": 2} for d in ("a", "b", "unread")
    ]
    table = tables.dataset_table(described, reads).set_index("dataset")
    assert table.loc["a", ["truncated", "special_in_text"]].tolist() == [1.0, 3]
    assert table.loc["b", ["truncated", "special_in_text"]].tolist() == [0.0, 0]
    assert table.loc["unread", ["truncated", "special_in_text"]].isna().all()
    assert table.loc["a", "read_by"] == "m (160 of 160 cut short, 3 with special tokens)"
    assert table["texts"].tolist() == [150] * 3 and table["multiline"].tolist() == [2] * 3


def test_d10_of_several_models_the_largest_share_is_told_and_each_by_name():
    reads = [
        {"dataset": "a", "model": m, "n_rows": 10, "n_truncated": n, "n_special_in_text": None}
        for m, n in (("short", 9), ("long", 0))
    ]
    row = tables.dataset_table([{"dataset": "a"}], reads).iloc[0]
    assert row["truncated"] == 0.9 and pd.isna(row["special_in_text"])
    assert row["read_by"] == "short (9 of 10 cut short) | long (0 of 10 cut short)"


def test_d10_headline_and_report_say_what_was_cut(tmp_path):
    made = results.tidy(fake_rows(3, 2).assign(experiment="e"))
    names = list(made["dataset"].unique())
    reads = [
        {"dataset": d, "model": "m", "n_rows": 160, "n_truncated": n, "n_special_in_text": s}
        for d, n, s in zip(names, (160, 8, 0), (0, 0, 1), strict=True)
    ]
    datasets = tables.dataset_table([{"dataset": d, "n": 160} for d in names], reads)
    options = {"confidence": 0.95, "confusion": "multiclass"}
    config = {"results_dir": str(tmp_path), "experiment": "e", "results": options}
    results.write_tables(config, made, pd.DataFrame(columns=tables.SKIPPED), datasets)
    report.make_figures(config)
    lines = report.make_report(config)
    cut = (
        "Texts of 2 of 3 datasets are too long for a model and were cut short; the most in "
        f"{names[0]} (100.0% of its rows)."
    )
    special = f"Texts of 1 of 3 datasets spell out special tokens; the most in {names[2]} (1 row)."
    assert lines[-2:] == [cut, special] == headlines.headline(made, 0, datasets)[-2:]
    page = (tmp_path / "e/report.html").read_text()
    assert cut in page and ">100.0%</td>" in page and ">5.0%</td>" in page


def test_d17_imported_results_name_their_files_and_digests(tmp_path):
    source = tmp_path / "results" / "baseline_probes_m" / "normal_settings"
    source.mkdir(parents=True)
    file = source / "layer3_results.csv"
    file.write_text("dataset,method,test_auc,val_auc\na,logreg,0.8,0.7\nb,logreg,0.9,0.8\n")
    config = {
        "results_dir": str(tmp_path / "out"),
        "experiment": "e",
        "results": {"confidence": 0.95, "confusion": "multiclass"},
    }
    report.make_published(tmp_path, config)
    rows = pd.read_csv(tmp_path / "out/e" / layout.TABLES["provenance"])
    [row] = rows[rows["what"] == "imported file"].to_dict("records")
    import hashlib

    assert row["name"] == "baseline_probes_m/normal_settings/layer3_results.csv"
    assert row["value"] == f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert "actprobe" in set(rows["name"])
    assert row["value"] in (tmp_path / "out/e/report.html").read_text()
