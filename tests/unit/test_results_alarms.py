"""False alarms of kept fits: the table, and its part of the page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from probes_inputs import Cache, data
from test_results_errors import table  # noqa: F401  (a fixture)
from test_results_figures import written

from actprobe import report
from actprobe.cache import store
from actprobe.probes import alarms as numbers
from actprobe.probes import thresholds
from actprobe.report import alarms as told
from actprobe.results import alarms, csvs, layout
from actprobe.results.make import read_of_rows


def fitted(folder: Path, n: int = 300, **entry) -> tuple[dict, dict]:
    """Rules of kept fits of weak probes by path, and the rows of their file."""
    x, y = data(n, 6, strength=1.0)
    cache = Cache(folder / "cache")
    cache.texts("d", y)
    cache.activations("d", x)
    asked = {"protocol": "actprobe-1", "methods": ["logreg"], "sources": ["m/*"], **entry}
    rules = layout.threshold_rules(cache.plan(cache.config(asked)))
    cache.run(asked)
    [path] = rules
    return rules, store.read_table(path).to_pylist()


def test_counts_are_those_of_the_rows(tmp_path) -> None:
    rules, rows = fitted(tmp_path, threshold={"rule": "fpr", "fpr": 0.05})
    found = alarms.table(rules, "e")
    assert found.columns.tolist() == alarms.COLUMNS and len(found) == len(rows) == 5
    for told_, row in zip(found.to_dict("records"), rows, strict=True):
        y, scores, which = thresholds.deciding(row)
        assert (told_["allowed"], told_["decided_by"]) == (0.05, which) and which != "test rows"
        assert told_["negatives"] == np.sum(y == 0)
        assert told_["flagged"] == np.sum(scores[y == 0] > told_["threshold"])
        assert told_["flagged"] <= 0.05 * told_["negatives"]
        n = len(row["kept_train"]) + len(row["kept_validation"])
        label, above = np.array(row["kept_label"][n:]), row["kept_scores"][n:]
        above = np.array(above) > told_["threshold"]
        assert told_["false_alarms"] == above[label == 0].sum()
        assert told_["found"] == above[label == 1].sum() > 0
        share = numbers.share(told_["found"], told_["test_positives"])
        assert (told_["tpr"], told_["tpr_low"], told_["tpr_high"]) == (
            share.value, share.low, share.high,
        )  # fmt: skip
        assert told_["true_low"] < told_["flagged"] / told_["negatives"] < told_["true_high"]


def test_without_a_stated_rate_it_is_one_percent(tmp_path) -> None:
    rules, _ = fitted(tmp_path)
    assert set(alarms.table(rules, "e")["allowed"]) == {0.01}


def test_rows_that_decided_themselves_have_no_interval() -> None:
    row = {
        "kept_train": [], "kept_validation": [], "kept_test": list(range(8)), "kept_held_out": None,
        "kept_label": [0, 0, 0, 0, 1, 1, 1, 1], "kept_scores": [0.1, 0.2, 0.3, 0.4, 0.3, 0.5, 0.6, 0.7],
    }  # fmt: skip
    found = alarms.of(row, {"rule": "boundary"})
    assert found["decided_by"] == "test rows" and found["threshold"] == 0.4
    assert (found["false_alarms"], found["found"], found["tpr"]) == (0, 3, 0.75)
    assert math.isnan(found["fpr_low"]) and math.isnan(found["tpr_high"])


def of_fits(table: pd.DataFrame, negatives: int) -> pd.DataFrame:  # noqa: F811
    """A row for every fit of a table: one alarm among 40 test rows, 30 of 40 found."""
    fpr, tpr = numbers.share(1, 40), numbers.share(30, 40)
    low, high = numbers.true_rate(negatives // 100, negatives)
    more = {
        "allowed": 0.01, "threshold": 0.875, "decided_by": "validation rows",
        "negatives": negatives, "flagged": negatives // 100, "true_low": low, "true_high": high,
        "test_negatives": 40, "false_alarms": 1, "fpr": fpr.value, "fpr_low": fpr.low,
        "fpr_high": fpr.high, "test_positives": 40, "found": 30, "tpr": tpr.value,
        "tpr_low": tpr.low, "tpr_high": tpr.high,
    }  # fmt: skip
    return table.assign(**more)[alarms.COLUMNS]


@pytest.mark.parametrize(("negatives", "few"), [(120, True), (5000, False)])
def test_the_page_says_what_so_few_rows_cannot(tmp_path, table, negatives, few) -> None:  # noqa: F811
    config = written(tmp_path, table)
    csvs.write(of_fits(table, negatives), Path(layout.folder(config)) / layout.ROW_TABLES["alarms"])
    report.make_report(config)
    page = (tmp_path / "quickstart/report.html").read_text()
    part = page[page.index("<h2>False alarms") : page.index("<h2>Comparisons")]
    assert f"stands on {negatives:,} rows of class 0" in part
    assert ("too few to say 1.0%" in part) == few == ("299 such rows without an alarm" in part)
    n = table["dataset"].nunique()
    assert f"{n} false alarms in {40 * n:,} rows of class 0 (2.5%)" in part
    assert part.count("knn on") == n, "the headline's probe of each dataset"
    assert "1 of 40" in part and "30 of 40" in part and "0.875" in part


def test_without_thresholds_there_is_no_part(tmp_path, table) -> None:  # noqa: F811
    config = written(tmp_path, table)
    assert read_of_rows(config)["alarms"].empty and told.part(None, table) is None
    assert told.part(of_fits(table, 100).assign(key="another"), table) is None
    assert "False alarms" not in (tmp_path / "quickstart/report.html").read_text()
