"""Single rows on the page: the errors of the headline's probe, their texts as text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from probes_inputs import Cache, data
from test_results_figures import tidy_rows, written

from actprobe import report
from actprobe.base import keys
from actprobe.cache import store
from actprobe.probes import thresholds
from actprobe.report import errors as told
from actprobe.results import csvs, layout, rows
from actprobe.results.make import read_of_rows

LONG = "<script>alert(1)</script> " + "words & more\n" * 60


def errors_of(table: pd.DataFrame, texts=(LONG, "=<b>short</b>")) -> pd.DataFrame:
    """Twelve errors of every fit, which the fit's method is named in."""
    found = [
        {
            **{c: fit[c] for c in rows.SCORES if c in fit},
            "id": f"{fit['method']}-{i}", "collection": fit["dataset"], "task": fit["label"],
            "split": "test", "label": "0", "score": 0.99 - i / 100, "prediction": "1",
            "margin": 0.49 - i / 100, "text": texts[i % 2],
        }
        for fit in table.to_dict("records")
        for i in range(12)
    ]  # fmt: skip
    return pd.DataFrame(found)[rows.ERRORS]


@pytest.fixture
def table() -> pd.DataFrame:
    rows_ = tidy_rows(3, 4)
    best = (rows_["method"] == "knn").astype(float)
    return rows_.assign(val_score=0.5 + 0.4 * best, key=[f"k{i:03d}" for i in range(len(rows_))])


def put(folder: Path, table: pd.DataFrame, errors: pd.DataFrame) -> str:
    """The page with these errors."""
    config = written(folder, table)
    csvs.write(errors, Path(layout.folder(config)) / layout.ROW_TABLES["errors"])
    report.make_report(config)
    return (folder / "quickstart/report.html").read_text()


def test_each_dataset_shows_the_ten_worst_rows_of_the_chosen_fit(table) -> None:
    found = told.part(errors_of(table), table)
    assert len(found["tables"]) == table["dataset"].nunique() and found["more"] == ""
    for one in found["tables"]:
        assert [r[0] for r in one.rows] == [f"knn-{i}" for i in range(10)]
        assert "knn on" in one.title and one.columns[1:4] == ["text", "label", "prediction"]
        assert [r[-1] for r in one.rows[:2]] == ["0.49", "0.48"]
    kept = errors_of(table[table["dataset"] != table["dataset"].iloc[0]])
    assert len(told.part(kept, table)["tables"]) == 2, "a fit that kept nothing has no table"
    assert told.part(errors_of(table[table["method"] != "knn"]), table) is None
    assert told.part(None, table) is None and told.part(kept.iloc[:0], table) is None


def test_texts_are_text_and_long_ones_are_cut(table, tmp_path) -> None:
    page = put(tmp_path, table, errors_of(table))
    part = page[page.index("<h2>Errors") : page.index("<h2>Comparisons")]
    assert "<script>" not in part and "<b>" not in part and part.count("alert(1)") > 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in part and ">=&lt;b&gt;short" in part
    assert part.count("<details>") == 15, "five long texts of each dataset"
    assert "words &amp; more\n" * 60 in part, "the whole is there"
    cell = next(r[1] for r in told.part(errors_of(table), table)["tables"][0].rows)
    assert len(cell["text"]) <= 302 and cell["whole"] == LONG


def test_without_texts_the_rows_are_told_by_id(table, tmp_path) -> None:
    page = put(tmp_path, table, errors_of(table, ("", "")))
    part = page[page.index("<h2>Errors") : page.index("<h2>Comparisons")]
    assert "knn-0" in part and ">text<" not in part


def test_without_errors_there_is_no_part(table, tmp_path) -> None:
    config = written(tmp_path, table)
    found = read_of_rows(config)["errors"]
    assert found.empty and found.columns.tolist() == rows.ERRORS
    page = (tmp_path / "quickstart/report.html").read_text()
    assert "<h2>Errors" not in page and "<h2>Transfer" not in page


def test_seeds_and_k_tell_fits_apart(table) -> None:
    """A file holds several fits: only the rows of the one that is named are shown."""
    one = errors_of(table)
    others = [one.assign(seed=1), one.assign(k=16), one.assign(task="other"), one.assign(key="x")]
    mixed = pd.concat([*(o.assign(id="wrong", margin=9.0) for o in others), one])
    assert [t.rows for t in told.part(mixed, table)["tables"]] == [
        t.rows for t in told.part(one, table)["tables"]
    ]


def test_rows_are_those_of_texts_with_the_same_content_whatever_their_file(tmp_path) -> None:
    """A fit is not made again when only the way to its texts changed, so their key may be another."""
    x, y = data(80, 6, strength=4.0)
    cache = Cache(tmp_path / "cache")
    texts = cache.texts("d", y)
    cache.activations("d", x)
    asked = {"protocol": "actprobe-1", "methods": ["logreg"], "sources": ["m/*"]}
    cache.run(asked)
    [fit] = (tmp_path / "cache/probes").rglob("*.parquet")
    facts = store.read_header(texts.path)["facts"] | {"content": texts.identity}
    table, spec = store.read_table(texts.path), {"stage": "texts", "quotes": "none"}
    other = tmp_path / f"d.{keys.short(keys.spec_key(spec))}.parquet"
    store.publish([other], [store.write_table(other, table, spec, facts)])
    found = rows.scores(
        rows.frames({str(fit): {"rule": "boundary"}}, rows.Collections([other]), "e")
    )
    assert set(found["collection"]) == {"d"} and set(found["id"]) == set(map(str, range(80)))


def test_two_classes_are_told_apart_by_the_threshold_of_the_fit(tmp_path) -> None:
    x, y = data(200, 6, strength=1.0)
    cache = Cache(tmp_path / "cache")
    texts = cache.texts("d", y)
    cache.activations("d", x)
    asked = {"protocol": "actprobe-1", "methods": ["logreg"], "sources": ["m/*"]}
    asked["threshold"] = {"rule": "fpr", "fpr": 0.05}
    planned = cache.plan(cache.config(asked))
    cache.run(asked)
    rules = layout.threshold_rules(planned)
    of_fits = list(rows.frames(rules, rows.Collections([texts.path]), "e"))
    [fit] = rules
    kept = store.read_table(fit).to_pylist()
    assert len(of_fits) == len(kept) == 5
    for table, row in zip(of_fits, kept, strict=True):
        threshold = thresholds.of_fit(rules[fit], row).value
        assert threshold > 0.5
        flagged = table["prediction"] == "yes"
        assert (flagged == (table["score"] > threshold)).all()
        wrong = table["prediction"] != table["label"]
        assert table["margin"][wrong].tolist() == (table["score"] - threshold)[wrong].abs().tolist()
        assert (table["margin"][~wrong] == 0).all()
    told = rows.errors(of_fits, rows.Collections([texts.path]), most=1000)
    wrong = pd.concat(of_fits).query("split == 'test' and prediction != label")
    assert len(told) == len(wrong) > 0
