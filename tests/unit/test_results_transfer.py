"""The transfer matrix from evaluations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_probes_evaluations import add, cache, entry, made  # noqa: F401

from actprobe.results import transfer


def row(train, test, score, seed=0, **more):
    place = {c: "x" for c in transfer.PLACE if c != "k"}
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
