"""Pairs of kept fits on the same test rows: the table, and its part of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from probes_inputs import Cache, data, sparse_data
from test_results_errors import table  # noqa: F401  (a fixture)
from test_results_figures import written

from actprobe import report
from actprobe.cache import store
from actprobe.probes import alarms, paired, thresholds
from actprobe.probes.metrics.binary import auc
from actprobe.results import csvs, layout, rows
from actprobe.results import paired as pairs
from actprobe.results.make import read_of_rows


def fitted(
    folder: Path, n: int = 240, group: bool = False, **entry
) -> tuple[dict, rows.Collections]:
    """Rules of kept fits by path: two methods on two sites, a k-sparse probe, two text baselines."""
    x, y = data(n, 6, strength=1.0)
    latents, _ = sparse_data(n, 30)
    words = np.random.default_rng(0).choice(["red", "blue", "old"], n)
    cache = Cache(folder / "cache")
    named = {"group": [f"g{i // 4}" for i in range(n)]} if group else {}
    text = cache.texts("d", y, [f"{w} {i}" for i, w in enumerate(words)], **named)
    cache.activations("d", x)
    cache.latents("d", latents)
    asked = {
        "protocol": "actprobe-1", "methods": ["logreg", "knn", "ksparse_b", "baseline_length",
        "baseline_tfidf"], **entry,
    }  # fmt: skip
    rules = layout.threshold_rules(cache.plan(cache.config(asked)))
    cache.run(asked)
    return rules, rows.Collections([text.path])


@pytest.fixture(scope="module", params=["alone", "grouped"])
def made(request, tmp_path_factory) -> tuple[dict, rows.Collections]:
    group = request.param == "grouped"
    threshold = {"rule": "fpr", "fpr": 0.1}
    return fitted(tmp_path_factory.mktemp(request.param), group=group, threshold=threshold)


def test_numbers_are_those_of_the_rows(made, request) -> None:
    rules, known = made
    group = request.node.callspec.params["made"] == "grouped"
    found = pairs.table(rules, known, "e")
    assert found.columns.tolist() == pairs.COLUMNS
    fits = {
        (row["key"], row["method"], row["k"], row["seed"]): row
        for path in rules
        for row in store.read_table(path).to_pylist()
    }
    for told in found.astype(object).where(found.notna(), None).to_dict("records"):
        both = [
            fits[told[f"{of}key"], told[f"{of}method"], told[f"{of}k"], told["seed"]]
            for of in ("", "reference_")
        ]
        assert [b["method"] for b in both] == [told["method"], told["reference_method"]]
        assert both[0]["seed"] == both[1]["seed"] == told["seed"]
        first = len(both[0]["kept_train"]) + len(both[0]["kept_validation"])
        y = np.array(both[0]["kept_label"][first:], int)
        a, b = (np.array(f["kept_scores"])[-len(y) :] for f in both)
        assert (told["auc"], told["reference_auc"]) == (auc(y, a), auc(y, b))
        assert told["auc_delta"] == pytest.approx(auc(y, a) - auc(y, b))
        assert told["auc_low"] <= told["auc_delta"] <= told["auc_high"]
        assert told["tpr"] == alarms.tpr_at_fpr(y, a, 0.1) and told["allowed"] == 0.1
        assert told["tpr_delta"] == told["tpr"] - told["reference_tpr"]
        rule = {"rule": "fpr", "fpr": 0.1}
        flags = [s > thresholds.of_fit(rule, f).value for s, f in zip((a, b), both, strict=True)]
        alone = paired.mcnemar(*(f[y == 1] for f in flags))
        assert (told["found_alone"], told["reference_found_alone"], told["found_p"]) == alone
        assert told["positives"] + told["negatives"] == len(y)
        assert told["clusters"] == (len(y) / 4 if group else len(y))


def test_each_fit_stands_against_its_place_and_the_best_text_baseline(made) -> None:
    rules, known = made
    found = pairs.table(rules, known, "e")
    one = found[found["seed"] == found["seed"].min()]
    place = one[one["against"] == pairs.PLACE]
    assert set(place["reference_method"]) == {"logreg"} and "logreg" not in set(place["method"])
    assert {"knn", "ksparse_b"} <= set(place["method"])
    texts = one[one["against"] == pairs.BASELINE]
    assert {"logreg", "knn", "ksparse_b"} <= set(texts["method"])
    assert texts["reference_source"].eq("texts").all()
    assert texts["reference_method"].nunique() == 1, "one best baseline, by its validation score"
    assert not (one["source"] == "texts").any()


def test_where_test_rows_choose_the_threshold_there_is_no_mcnemar() -> None:
    row = {
        "dataset": "d", "label": "", "protocol": "p", "setting": "normal", "condition": "", "seed": 0,
        "source": "s", "method": "m", "k": None, "key": "", "val_score": None,
        "kept_train": [], "kept_validation": [], "kept_test": list(range(8)), "kept_held_out": None,
        "kept_label": [0, 0, 0, 0, 1, 1, 1, 1], "kept_scores": [0.1, 0.2, 0.3, 0.4, 0.3, 0.5, 0.6, 0.7],
    }  # fmt: skip
    fit, at = pairs._read(row, {"rule": "boundary"})
    assert fit.threshold is None and fit.allowed == 0.01 and at.tolist() == list(range(8))
    assert pairs._flagged(fit, fit) == {}


def test_the_table_is_written_and_read(made, tmp_path) -> None:
    rules, known = made
    found = pairs.table(rules, known, "e")
    config = {"results_dir": str(tmp_path), "experiment": "e"}
    assert read_of_rows(config)["paired"].empty
    path = Path(layout.folder(config)) / layout.ROW_TABLES["paired"]
    path.parent.mkdir(parents=True)
    csvs.write(found, path)
    again = read_of_rows(config)["paired"]
    assert again["auc_p"].to_numpy() == pytest.approx(found["auc_p"].astype(float), nan_ok=True)
    assert again["method"].tolist() == found["method"].tolist()


def pair(fit: dict, **more) -> dict:
    """A pair of a fit: better by .1 AUC, as many found, no threshold of other rows."""
    told = {c: fit.get(c) for c in pairs.COLUMNS} | {
        "against": pairs.BASELINE, "reference_source": "texts", "reference_method": "baseline_tfidf",
        "negatives": 40, "positives": 40, "clusters": 80, "auc": 0.9, "reference_auc": 0.8,
        "auc_delta": 0.1, "auc_low": 0.05, "auc_high": 0.15, "auc_p": 0.001, "allowed": 0.01,
        "tpr": 0.5, "reference_tpr": 0.5, "tpr_delta": 0.0, "tpr_low": -0.1, "tpr_high": 0.1,
        "tpr_p": 1.0,
    }  # fmt: skip
    return told | more


def test_the_page_says_how_often_the_headline_beats_the_texts(tmp_path, table) -> None:  # noqa: F811
    config = written(tmp_path, table)
    found = pd.DataFrame([pair(fit) for fit in table.to_dict("records")], columns=pairs.COLUMNS)
    csvs.write(found, Path(layout.folder(config)) / layout.ROW_TABLES["paired"])
    report.make_report(config)
    page = (tmp_path / "quickstart/report.html").read_text()
    part = page[page.index("<h2>On the same rows") : page.index("<h2>Comparisons")]
    n = table["dataset"].nunique()
    assert f"AUC: better in {n}, worse in 0 of {n}" in part
    assert f"found at 1.0%: better in 0, worse in 0 of {n}" in part
    assert "lets through 0 of the fewest test rows" in part
    assert part.count(">baseline_tfidf") == n and "+0.100" in part and "0.900 / 0.800" in part
