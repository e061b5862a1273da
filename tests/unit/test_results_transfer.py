"""The transfer matrix from evaluations."""

from __future__ import annotations

import canvas
import matplotlib
import numpy as np
import pandas as pd
import pytest
from results_tables import name as named
from test_probes_evaluations import add, cache, entry, made  # noqa: F401

from actprobe.report import transfer as told
from actprobe.report.figures import style
from actprobe.report.figures import transfer as draw
from actprobe.results import tidy, transfer
from actprobe.results.make import Written


def row(train, test, score, seed=0, **more):
    place = {c: "x" for c in transfer.PLACE if c != "k"} | {"metric": "auc"}
    numbers = {"ci_low": score - 0.1, "ci_high": score + 0.1, "null_low": 0.4, "null_high": 0.6}
    counts = {"n": 20, "n_used": 18, "n_excluded": 2, "n_other": 0}
    return {**place, "k": None, "dataset": train, "collection": test, "label": "", "seed": seed,
            "score": score, **numbers, **counts, "reason": "", **more}  # fmt: skip


def test_cells_are_means_over_seeds():
    rows = [row("a", "b", 0.7), row("a", "b", 0.9, seed=1), row("a", "a", 0.55)]
    rows += [row("b", "a", np.nan, reason="one class"), row("b", "a", 0.5, seed=1)]
    rows += [row("b", "b", np.nan, reason="one class", n_used=0)]
    found = transfer.matrix(pd.DataFrame(rows)).set_index(["train", "test"])
    assert found.loc[("a", "b"), "score"] == pytest.approx(0.8)
    assert found.loc[("a", "b"), ["seeds", "n", "n_excluded"]].tolist() == [2, 20, 2]
    beyond = found["beyond_chance"]
    assert beyond[:3].tolist() == [False, True, False] and beyond.isna().tolist()[3]
    assert found.loc[("b", "a"), ["seeds", "reason"]].tolist() == [1, ""]
    assert found.loc[("b", "b"), ["seeds", "reason"]].tolist() == [0, "one class"]
    assert transfer.matrix(pd.DataFrame()).columns.tolist() == transfer.COLUMNS


def test_a_matrix_of_two_collections(cache, tmp_path):  # noqa: F811
    for n, name in enumerate("ab"):
        add(cache, name, n=100 + n, seed=0)
    made(cache, entry(tmp_path, datasets=["a", "b"], apply_to=["*"]))
    found = transfer.matrix(transfer.collect(cache.folder.glob("evaluations/**/*.parquet")))
    assert sorted(zip(found["train"], found["test"], strict=True)) == [
        ("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"),
    ]  # fmt: skip
    assert found["score"].between(found["null_low"], 1).all() and (found["seeds"] == 1).all()
    assert found["beyond_chance"].all()


def matrices(methods=("logreg", "knn"), names="abc", protocols=("x",)):
    """A matrix in which knn transfers better, and the tidy table in which logreg validated better."""
    cells, fits = [], []
    for protocol in protocols:
        for method in methods:
            for train in names:
                val = 0.9 if method == "logreg" else 0.8
                fits.append({"dataset": train, "label": "", "protocol": protocol, "setting": "normal",
                             "kind": "binary", "metric": "auc", "model": "", "site": "", "position": "",
                             "source": "own", "method": method, "k": None, "seed": 0, "val_score": val,
                             "test_score": 0.9})  # fmt: skip
                for test in names:
                    score = 0.95 if train == test else 0.1 if test == "c" else 0.55
                    of = fits[-1] | {"score": score + 0.04 * (method == "knn"), "collection": test}
                    cells.append(
                        row(train, test, **{k: v for k, v in of.items() if k != "dataset"})
                    )
    return transfer.matrix(pd.DataFrame(cells)), tidy(pd.DataFrame(fits).assign(experiment="e"))


def test_the_probe_of_a_matrix_is_chosen_by_validation_not_by_transfer():
    cells, fits = matrices(protocols=("x", "y"))
    chosen = transfer.chosen(cells, fits)
    assert [set(c["protocol"]) for c in chosen] == [{"x"}, {"y"}]
    assert all(set(c["method"]) == {"logreg"} and len(c) == 9 for c in chosen)
    assert all((c["among"] == 2).all() for c in chosen)
    # One without a number for a training set is no match for one that has all.
    cells.loc[(cells["method"] == "logreg") & (cells["train"] == "a"), "score"] = np.nan
    assert set(transfer.chosen(cells, fits)[0]["method"]) == {"knn"}
    assert transfer.chosen(cells.iloc[:0], fits) == []
    nothing = transfer.chosen(cells, fits.assign(val_score=np.nan))
    assert set(nothing[0]["method"]) == {"knn"}, "the first of the matrix"


def test_outside_turns_with_the_metric():
    of = {"score": [0.9, 0.5, 0.1, np.nan], "null_low": 0.4, "null_high": 0.6}
    found = {
        m: transfer.outside(pd.DataFrame({**of, "metric": m})).tolist() for m in ("auc", "rmse")
    }
    assert found == {"auc": [1, 0, -1, 0], "rmse": [-1, 0, 1, 0]}


@pytest.mark.parametrize(
    ("kind", "n"), [("short", 1), ("alike", 3), ("wide", 34), ("controls", 3), ("words", 12)]
)
def test_the_figure_can_be_read(kind, n, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_PIXELS", 1000)
    names = [named(kind, i) for i in range(n)]
    cells = transfer.matrix(pd.DataFrame([
        row(a, b, np.nan if i == j == 1 else 0.3 + 0.7 * ((3 * i + j) % n) / n, metric="auc",
            reason="" if i != j else "no", protocol="p", setting="normal")
        for i, a in enumerate(names) for j, b in enumerate(names)
    ]))  # fmt: skip
    with matplotlib.rc_context(style.RC):
        fig = draw([cells.assign(among=1)])
        style.save(fig, tmp_path / "transfer")
    assert canvas.faults(fig) == []
    ax = fig.axes[0]
    assert len([p for p in ax.patches if p.get_facecolor()[3] == 0]) == n, "the diagonal"
    assert sum(bool(t.get_text()) for t in ax.texts) == (cells["score"].count() if n <= 30 else 0)


def test_the_figure_says_when_there_is_nothing():
    cells, fits = matrices()
    for found in ([], transfer.chosen(cells.assign(score=np.nan), fits)):
        assert draw(found).get_gid() == style.NOTHING


def test_the_part_tells_pairs_and_counts():
    cells, fits = matrices()
    cells.loc[(cells["train"] == "c") & (cells["test"] == "b"), ["score", "reason"]] = np.nan, "why"
    cells.loc[(cells["train"] == "a") & (cells["test"] == "b"), "score"] = 0.77
    part = told.part(Written(fits, {"transfer": cells}))
    head, better, worse, counts, lost = part["facts"]
    assert head == "x, own, logreg is one of 2 probes."
    assert better.endswith("its better side: 1 of 5 pairs: a → b 0.77.")
    assert worse.endswith("its worse side: 2 of 5 pairs: a → c 0.10, b → c 0.10.")
    assert "Of 100 rows" in counts and "10 share a text" in counts
    assert lost == "1 pair without a number: why."
    [table] = part["tables"]
    assert len(table.rows) == 9 and "reason" in table.columns
    assert told.part(Written(fits, {})) is None
