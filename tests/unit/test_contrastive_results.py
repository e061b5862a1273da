"""Tables, files, figures and the page of contrastive probes."""

from __future__ import annotations

import re
from pathlib import Path

import contrastive_inputs as inputs
import numpy as np
import pandas as pd
import pytest
import torch
from configs import edited
from test_contrastive_stage import project

from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.probes.controls.tried import warning
from actprobe.report import directions as report
from actprobe.report.layout import DIRECTIONS as FIGURES
from actprobe.results import directions as tables
from actprobe.results.tables import read_probes

SITES = ["embed", "resid_post.0", "resid_post.1", "resid_post.2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished experiment: its config, its results folder and its artefacts."""
    config, known = project(
        tmp_path_factory.mktemp("p"), sites=SITES, compare_with="other", methods=["mean_difference"]
    )
    found = inputs.run(config, known)
    paths = inputs.make_tables(config, found)
    lines, _ = inputs.make_page(config, paths, known["texts"])
    root = Path(config["results_dir"]) / "toy"
    return config, root, tables.load_all(paths), lines, (paths, known["texts"])


def written(root):
    """The tidy table."""
    return read_probes(root / "tables" / "probes.parquet")


def test_the_table_has_a_row_per_direction_and_one_per_baseline(finished):
    _, root, directions, _, _ = finished
    table = pd.read_csv(root / "tables" / "contrastive.csv")
    assert list(table.columns) == tables.COLUMNS
    fits = table[table["source"].notna()]
    assert fits["layer"].tolist() == [-1, 0, 1, 2] and set(fits["kind"]) == {"resid_post"}
    assert len(table) == 7 and set(table["method"]) == {
        "mean_difference", "baseline_length", "baseline_tfidf", "baseline_tfidf_in_domain",
    }  # fmt: skip
    assert (fits["null_permuted_low"] < 0.5).all() and (fits["null_permuted_high"] > 0.5).all()
    assert set(fits["key"]) == {d.row["key"] for d in directions}


def test_directions_and_baselines_stand_in_the_one_tidy_table(finished):
    _, root, directions, _, _ = finished
    table = written(root)
    assert len(table) == 7 and set(table["condition"]) == {"rows"}
    assert table.loc[table["method"].str.startswith("baseline"), "source"].eq("texts").all()
    assert {"null_permuted_low", "p_random", "test_set", "warning"} <= set(table.columns)
    assert not any(c.startswith("kept_") for c in table.columns)
    own = table[table["source"] != "texts"].set_index("key")
    for d in directions:
        assert own.loc[d.row["key"], "test_score"] == d.row["test_score"]
        assert own.loc[d.row["key"], "test_auc"] == d.row["test_score"]
    summary = pd.read_csv(root / "tables" / "summary.csv")
    assert set(summary["protocol"]) == {"contrastive-1"}


def test_the_layer_is_chosen_by_held_out_training_rows_alone(finished):
    _, _, directions, lines, _ = finished
    best = max(directions, key=lambda d: (d.row["val_score"], d.row["val_d"]))
    tidy = written(finished[1])
    table = tables.view(tidy)
    assert table.loc[table["chosen"], "site"].tolist() == [best.row["site"]]
    again = tables.view(tidy.assign(test_score=1 - tidy["test_score"]))
    assert again["chosen"].tolist() == table["chosen"].tolist()
    assert len(lines) == 1 and "at embed (last), chosen by held-out training rows" in lines[0]


def test_ties_go_to_the_larger_distance_and_then_to_the_lower_layer():
    made = pd.DataFrame(
        {
            **dict.fromkeys(tables.RUN, "x"),
            "source": ["a", "b", "c", "d"],
            "layer": [3, 2, 1, 0],
            "val_auc": [1.0, 1.0, 1.0 - 1e-16, 0.9],
            "val_d": [2.0, 3.0, 3.0, 9.0],
        }
    )
    assert tables._chosen(made).tolist() == [False, False, True, False]


def test_no_layer_is_chosen_where_no_training_row_was_held_out(finished):
    table = tables.view(written(finished[1]).assign(val_score=np.nan, val_d=np.nan))
    assert not table["chosen"].any()
    (line,) = report.headline(table)
    assert "pairs → rows, m, resid_post, mean_difference (last): no layer is chosen" in line


def test_vectors_and_scores_have_the_names_of_the_scripts_that_read_them(finished):
    _, root, directions, _, _ = finished
    run = root / "contrastive" / "pairs.m.resid_post.last.mean_difference"
    assert sorted(p.name for p in run.iterdir()) == [
        "experiment_info.txt", "normalized_vectors", "rows", "vectors",
    ]  # fmt: skip
    for d in directions:
        layer = d.row["site"].removeprefix("resid_post.")
        vector, unit = (
            torch.load(run / kind / f"layer_{layer}.pt", weights_only=True)
            for kind in ("vectors", "normalized_vectors")
        )
        assert vector.shape == (1, 6) and vector.dtype == torch.float32
        np.testing.assert_allclose(vector[0], d.direction, rtol=1e-6)
        assert torch.linalg.norm(unit) == pytest.approx(1)
        scores = pd.read_csv(run / "rows" / f"probe_stats_layer{layer}.csv")
        assert list(scores.columns) == [
            "question_id", "question", "type", "mean_score", "max_score", "min_score", "std_score",
            "n_tokens",
        ]  # fmt: skip
        assert scores["type"].tolist() == ["testing", "deployment"] * 12
        np.testing.assert_allclose(scores["mean_score"], d.values[:, 0], rtol=1e-8)
    assert "Positive class: testing" in (run / "experiment_info.txt").read_text()


def test_figures_and_page_are_made_and_repeat_to_the_byte(finished):
    config, root, _, lines, paths = finished
    files = [root / "figures" / f"{n}.{e}" for n in FIGURES for e in ("svg", "png")]
    files += [root / "report.html", root / "tables" / "contrastive.csv"]
    before = [f.read_bytes() for f in files]
    page = files[-2].read_text()
    assert tables.RULE in page and lines[0] in page and "number of characters" in page
    assert not re.search(r'(src|href)="(?!data:|tables/)', page)
    inputs.make_page(config, *paths)
    assert [f.read_bytes() for f in files] == before


def pages(config, known):
    """Make probes, tables and page; the headline and the page."""
    paths = inputs.make_tables(config, inputs.run(config, known))
    return inputs.make_page(config, paths, known["texts"])


def test_entries_with_different_methods_share_a_page(tmp_path):
    config, known = project(tmp_path, methods=["mean_difference"])
    one = config["probes"][0]
    config = edited(config, ["probes"], [one, {**one, "datasets": ["other"], "methods": ["lda"]}])
    lines, _ = pages(config, known)
    assert ["mean_difference" in line for line in lines] == [False, True]


def spoil(known, item, reason):
    """Make the activations of a dataset a tombstone."""
    t = next(t for t in known["activations"] if t.item == item)
    Path(t.path).unlink()
    store.publish([t.path], [store.write_bad(t.path, t.record, reason)])


def test_a_page_without_numbers_says_why(tmp_path):
    config, known = project(tmp_path)
    config = edited(config, ["on_bad_dataset"], "skip")
    spoil(known, "pairs", "rows 1 to 3 are empty")
    lines, page = pages(config, known)
    assert lines == ["No direction has a number."]
    assert "rows 1 to 3 are empty" in page


def test_a_bad_test_set_is_left_out_alone(tmp_path):
    config, known = project(tmp_path, compare_with="other", apply_to=["rows", "same"])
    spoil(known, "same", "row 3 of same is bad")
    with pytest.raises(ActprobeError, match="row 3 of same is bad"):
        inputs.run(config, known)
    config = edited(config, ["on_bad_dataset"], "skip")
    lines, page = pages(config, known)
    assert " → rows" in lines[0] and not any(" → same" in line for line in lines)
    assert "pairs@same" in page and "row 3 of same is bad" in page


def test_a_dataset_to_compare_with_that_is_bad_is_left_out_alone(tmp_path):
    config, known = project(tmp_path, compare_with="other")
    spoil(known, "other", "no rows")
    with pytest.raises(ActprobeError, match="no rows"):
        inputs.run(config, known)
    config = edited(config, ["on_bad_dataset"], "skip")
    _, page = pages(config, known)
    assert "Not compared with other: no rows" in page
    found = inputs.run(config, known)
    for d in inputs.applied(found).values():
        assert d.row["compare_with"] == "" and d.row["cos_compare"] is None
    config = edited(config, ["on_bad_dataset"], "stop")
    with pytest.raises(ActprobeError, match="compare with cannot be used:\n  other: no rows"):
        inputs.make_page(config, [t.path for t in found], known["texts"])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"length_corr": -0.8}, "1/length (r = -0.80)"),
        ({"first_token": 0.95}, "first token is extreme in 95%"),
        ({"norm": 0.0}, "no direction"),
        ({"converged": False}, "stopped early"),
        ({"orders": 16}, "16 orders of the training labels, 40 are needed"),
        ({"null_converged": False}, "not every fit of the null converged"),
        ({"length_corr": np.nan, "first_token": np.nan}, ""),
    ],
)
def test_warnings(numbers, words):
    usual = {"norm": 1.0, "length_corr": 0.1, "first_token": 0.1}
    row = {k: numbers.get(k, v) for k, v in usual.items()}
    rest = [
        numbers.get(k, v)
        for k, v in (("converged", True), ("orders", 99), ("null_converged", True))
    ]
    said = warning(row, *rest)
    assert words in said and bool(words) == bool(said)


def test_answers_whose_letters_do_not_cancel_are_told(tmp_path):
    from actprobe import texts
    from actprobe.report.directions import answer_warnings

    always = [{**r, "positive": "(A)", "negative": "(B)"} for r in inputs.PAIRS]
    config = inputs.resolve(
        tmp_path,
        [inputs.dataset(tmp_path, "a", always), inputs.dataset(tmp_path, "b", inputs.PAIRS)],
    )
    data = {t.item: texts.load(t.path) for t in inputs.make_texts(config)}
    assert [w[:40] for w in answer_warnings(data)] == [
        "a: '(A)' is the positive answer in 20 of", "a: '(B)' is the positive answer in 0 of ",
    ]  # fmt: skip
