"""Comparisons over runs, and confusion matrices of any source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_rows import fake_rows
from scipy import stats

from actprobe import report, results
from actprobe.report import confusions as told
from actprobe.report.figures.confusions import confusion as draw
from actprobe.results import compare, confusion

RUNS = 5
N_TRAIN, N_TEST = 80, 20
SCORES = {
    ("c/stats", "ridge"): [0.9, 0.8, 0.85, 0.95, 0.9],
    ("c/stats", "mlp"): [0.8, 0.8, 0.75, 0.9, 0.95],
    ("c/norm_only", "ridge"): [0.5, 0.6, 0.5, 0.55, 0.45],
    ("c/recipe_only", "ridge"): [0.5, 0.5, 0.5, 0.5, 0.5],
}


def features(params: str = "{}", **changes: object) -> pd.DataFrame:
    """A collection's runs, tidy: two representations that read weights in part, and both controls."""
    rows = [
        {"dataset": "toy", "source": source, "method": method, "seed": seed, "test_score": score,
         "val_score": score, "ci_low": score - 0.05, "ci_high": score + 0.05, **changes}
        for (source, method), scores in SCORES.items() for seed, score in enumerate(scores)
    ]  # fmt: skip
    same = {
        "experiment": "e",
        "protocol": "lora-1",
        "setting": "normal",
        "columns": "*",
        "metric": "acc",
    }
    same |= {"kind": "multiclass", "n_train": N_TRAIN, "n_test": N_TEST, "params": params}
    return results.tidy(pd.DataFrame(rows).assign(**same))


def test_representations_and_methods_are_paired_by_runs() -> None:
    found = results.comparison_table(features())
    sides = found[["source", "probe", "reference_source", "reference"]]
    assert sorted(sides.itertuples(index=False, name=None)) == [
        ("c/stats", "mlp", "c/stats", "ridge"),
        ("c/stats", "ridge", "c/norm_only", "ridge"),
        ("c/stats", "ridge", "c/recipe_only", "ridge"),
    ]  # fmt: skip
    assert (found["dataset"] == "toy").all() and (found["n_pairs"] == RUNS).all()
    row = found[found["reference_source"] == "c/norm_only"].iloc[0]
    deltas = np.subtract(SCORES["c/stats", "ridge"], SCORES["c/norm_only", "ridge"])
    assert row["delta"] == pytest.approx(deltas.mean())
    error = deltas.std(ddof=1) * np.sqrt(1 / RUNS + N_TEST / N_TRAIN)
    assert row["p"] == pytest.approx(2 * stats.t.sf(deltas.mean() / error, RUNS - 1))
    half = stats.t.ppf(0.975, RUNS - 1) * error
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (deltas.mean() - half, deltas.mean() + half)
    )
    assert (found["family"] == 3).all() and (found["test"] == compare.CORRECTED_T).all()
    assert row["p_holm"] == pytest.approx(compare.holm(found["p"])[row.name])
    assert found["p_note"].eq("").all()


def test_runs_on_the_same_test_rows_have_differences_and_no_p() -> None:
    found = results.comparison_table(features(params='{"test_rows": "shared"}'))
    assert found["delta"].notna().all() and found[["p", "ci_low", "p_holm"]].isna().all(axis=None)
    assert (
        set(found["p_note"]) == {"the runs test on the same rows"} and found["family"].isna().all()
    )


def test_runs_that_one_side_lacks_are_counted_and_single_modules_are_no_candidates() -> None:
    table = features()
    lost = (table["method"] == "mlp") & (table["seed"] == 3)
    table.loc[lost, ["test_score", "reason"]] = [np.nan, "gone"]
    found = results.comparison_table(table)
    of_methods = found[found["reference_source"] == "c/stats"].iloc[0]
    assert (of_methods["n_pairs"], of_methods["n_unmatched"]) == (4, 1)
    assert results.comparison_table(features(site="m").assign(columns="each")).empty


def test_comparisons_of_texts_and_of_features_stand_in_one_table() -> None:
    both = pd.concat([fake_rows(4, 4).assign(experiment="e"), features()], ignore_index=True)
    found = results.comparison_table(results.tidy(both))
    assert set(found["test"]) == {compare.SIGNED_RANK, compare.CORRECTED_T}
    assert list(found.columns) == compare.COMPARISONS
    alone = results.comparison_table(results.tidy(fake_rows(4, 4).assign(experiment="e")))
    of_texts = found[found["test"] == compare.SIGNED_RANK].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_texts, alone)


CLASSES = ["cat", "dog", "=emu"]


def of_classes(**changes: object) -> pd.DataFrame:
    """Two probes of three classes, two seeds each; the second is better on validation rows."""
    rows = [
        {"method": method, "seed": seed, "val_score": val, "test_score": 0.8,
         "confusion": json.dumps([[0, 0, 8], [0, 1, 2], [1, 1, 9], [2, 0, 1 + seed]])}
        for method, val in (("logreg", 0.6), ("ridge", 0.7)) for seed in (0, 1)
    ]  # fmt: skip
    same = {
        "experiment": "e",
        "protocol": "p",
        "setting": "normal",
        "dataset": "zoo",
        "metric": "auc",
    }
    same |= {"kind": "multiclass", "model": "m", "site": "resid_post.1", "position": "mean"}
    same |= {"source": "m/resid_post.1.mean", "classes": json.dumps(CLASSES)}
    return results.tidy(pd.DataFrame(rows).assign(**same | changes))


def test_confusions_of_texts_are_summed_over_seeds_and_the_best_by_validation_is_marked() -> None:
    found = confusion.confusions(confusion.shown(of_classes()))
    assert list(found.columns) == confusion.CONFUSIONS and len(found) == 8
    assert set(found.loc[found["chosen"], "method"]) == {"ridge"}
    ((cell, lines),) = confusion.best(found)
    assert told.named(cell) == ["p", "zoo", "m/resid_post.1.mean", "ridge"]
    counts = confusion.square(lines)
    assert counts.loc["cat", "cat"] == 16 and counts.loc["=emu", "cat"] == 3
    wrong = confusion.mistakes(lines)
    assert wrong[["true", "predicted", "n"]].to_numpy().tolist() == [
        ["cat", "dog", 4],
        ["=emu", "cat", 3],
    ]
    assert wrong["share"].tolist() == [4 / 20, 1.0]
    assert [ax.get_title() for ax in draw(found).axes] == ["p, zoo, m/resid_post.1.mean, ridge"]


def test_two_classes_have_a_matrix_where_it_is_asked_for() -> None:
    table = of_classes(kind="binary", dataset="two")
    table["confusion"] = "[[0,0,4],[1,0,2]]"
    assert confusion.shown(table).empty and len(confusion.shown(table, two_classes=True)) == 4
    assert not draw(confusion.confusions(confusion.shown(table))).axes


@pytest.mark.parametrize(("asked", "there"), [("multiclass", False), ("all", True)])
def test_the_page_shows_matrices_that_are_asked_for(
    tmp_path: Path, asked: str, there: bool
) -> None:
    table = of_classes(kind="binary")
    table["confusion"] = "[[0,0,4],[1,0,2]]"
    config = {"results_dir": str(tmp_path), "experiment": "e", "probes": [{"settings": ["normal"]}],
              "results": {"confidence": 0.95, "confusion": asked}}  # fmt: skip
    nothing = results.tables.dataset_table([])
    results.write_tables(config, table, pd.DataFrame(columns=results.tables.SKIPPED), nothing)
    report.make_figures(config)
    report.make_report(config)
    page = (tmp_path / "e/report.html").read_text()
    assert ("Confused classes" in page) == there == ("Confusion matrix of the probe" in page)
    written = results.read_tables(config)["confusion"]
    assert (len(written) > 0) == there and set(written["true"]) <= {"cat", "dog"}
