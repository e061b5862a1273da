"""Scores are of the metric that a row names: never mixed, within its range, chosen in its direction."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from printed import Page
from results_rows import continuous, fake_rows, multiclass, one_versus_rest

from actprobe import report, results
from actprobe.base.errors import ActprobeError
from actprobe.probes import extensions, metrics
from actprobe.report import figures
from actprobe.results import compare, scores, select, tables, views
from actprobe.results.make import Written


@pytest.fixture
def registered(monkeypatch):
    """Metrics may be registered, until the test ends."""
    metrics.all_metrics()
    monkeypatch.setattr(metrics, "_REGISTERED", dict(metrics._REGISTERED))
    return metrics.metric


@pytest.fixture
def error(registered, monkeypatch):
    """The main metric of continuous labels is one of which less is better."""
    monkeypatch.setitem(metrics.MAIN, "continuous", "rmse")
    return metrics.all_metrics()["rmse"]


def mixed() -> pd.DataFrame:
    rows = pd.concat([fake_rows(4, 4), continuous(3, 4), multiclass(3, 4)])
    return results.tidy(rows.assign(experiment="e"))


def written(folder: Path, table: pd.DataFrame, **changes: object) -> dict:
    config = {
        "results_dir": str(folder),
        "experiment": "e",
        "results": {"confidence": 0.95, "confusion": "multiclass"},
        **changes,
    }
    datasets = tables.dataset_table([{"dataset": d} for d in table["dataset"].unique()])
    results.write_tables(config, table, pd.DataFrame(columns=tables.SKIPPED), datasets)
    report.make_figures(config)
    report.make_report(config)
    return config


def test_scores_of_two_metrics_are_never_averaged_or_compared():
    table = mixed()
    summary = results.summarise(table)
    for name, rows in summary.groupby("metric"):
        mine = table[(table["metric"] == name) & (table["site"] == "resid_post.0")]
        [first] = rows[rows["site"] == "resid_post.0"].to_dict("records")
        assert first["test_score"] == pytest.approx(mine["test_score"].mean())
        assert first["n_datasets"] == mine["dataset"].nunique()
    pairs = results.comparison_table(table)
    assert pairs.groupby("metric")["n_pairs"].max().to_dict() == {"auc": 7, "r2": 3}
    assert results.quiver_table(table)["metric"].tolist() == ["auc", "r2"]
    with pytest.raises(ValueError, match="scores of several metrics: auc, r2"):
        select.quiver(table)


def test_a_family_of_comparisons_is_of_one_metric():
    rows = results.comparison_table(mixed())
    families = rows.groupby("metric")["family"].max()
    counted = rows[compare.claims(rows)].groupby("metric").size()
    assert families.to_dict() == counted.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_score": 1.2}, r"test_score must lie in \(-inf, 1\].*test_score=1.2"),
        ({"test_rmse": -0.1}, r"test_rmse must lie in \[0, inf\).*test_rmse=-0.1"),
        ({"test_spearman": -1.1}, r"test_spearman must lie in \[-1, 1\]"),
        ({"kind": "ordinal"}, "kind must be one of binary, multiclass, continuous.*kind=ordinal"),
        ({"metric": "mine"}, "metric 'mine' is not registered.*under `extensions:`"),
    ],
)
def test_each_column_has_the_range_of_its_metric(changes, message):
    rows = continuous(2, 1).assign(experiment="e")
    assert len(results.tidy(rows.assign(test_score=-40.0, test_rmse=1e4))) == 2
    with pytest.raises(ActprobeError, match=message):
        results.tidy(rows.assign(**changes))


def test_intervals_are_cut_to_the_range_of_the_metric():
    table = results.tidy(continuous(4, 1).assign(experiment="e"))
    table["test_score"] = [-3.0, -0.5, 0.9, 0.95]
    [row] = results.summarise(table).to_dict("records")
    assert row["ci_low"] < 0 and row["ci_high"] == 1.0
    assert scores.differences(metrics.all_metrics()["rmse"]) == (-np.inf, np.inf)
    assert scores.differences(metrics.all_metrics()["auc"]) == (-1.0, 1.0)


def errors(n: int = 12) -> pd.DataFrame:
    """Two probes of continuous labels: ridge errs less than knn, on validation and test rows."""
    rows = continuous(n, 4).query("site == 'resid_post.3' and method in ['ridge', 'knn']")
    off = np.where(rows["method"] == "ridge", 0.0, 1.0)
    values = {c: 8 + rows.groupby("method").cumcount() + off for c in ("val_score", "test_score")}
    values |= {"ci_low": None, "ci_high": None, "test_score_unseen": values["test_score"] + 1}
    return results.tidy(rows.assign(experiment="e", metric="rmse", **values))


def test_where_less_is_better_the_least_is_chosen_and_wins(error):
    table = errors()
    assert set(select.quiver(table)["method"]) == {"ridge"}
    assert set(select.best_by_validation(table)["method"]) == {"ridge"}
    [row] = results.comparison_table(table).to_dict("records")
    assert (row["probe"], row["reference"], row["delta"]) == ("knn", "ridge", 1.0)
    assert (row["wins"], row["losses"]) == (0, 12)
    [first, *_] = report.headline(table)
    words = "ridge on minilm, resid_post.3, mean reaches a mean root mean squared error of 13.500"
    assert first.startswith(words) and "by validation root mean squared error" in first
    assert (views.featured(table.assign(gain=0.0))["test_score"] >= 8).all()


def test_where_less_is_better_figures_say_so(error, tmp_path):
    table = errors(3)
    fig = figures.leakage(table)
    assert "root mean squared error with leaked rows is lower" in fig.texts[1].get_text().replace(
        "\n", " "
    )
    drawn = [y for x in fig.axes[0].lines if x.get_marker() != "None" for y in x.get_ydata()]
    np.testing.assert_allclose(drawn, 1.0)
    page = Path(written(tmp_path, table)["results_dir"], "e/report.html").read_text()
    assert "Root mean squared error with its interval" in page


def test_the_labels_of_a_dataset_count_as_one_dataset():
    many = one_versus_rest(10, 1)
    table = results.tidy(pd.concat([many, fake_rows(3, 1)]).assign(experiment="e"))
    [row] = results.summarise(table).to_dict("records")
    means = table.groupby("dataset")["test_score"].mean()
    assert (row["n_datasets"], row["n_tasks"]) == (4, 13)
    assert row["test_score"] == pytest.approx(means.mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(results.mean_interval(means)[1:])


def test_a_label_is_compared_with_itself():
    rows = one_versus_rest(10, 4).query("site == 'resid_post.3' and method in ['logreg', 'knn']")
    table = results.tidy(pd.concat([rows, rows.assign(dataset="other")]).assign(experiment="e"))
    [row] = results.comparison_table(table).to_dict("records")
    assert (row["n_pairs"], row["n_datasets"]) == (20, 2)
    assert row["wins"] + row["losses"] + row["ties"] == 20
    chosen = select.quiver(table)
    assert len(chosen) == 20 and not chosen.duplicated(["dataset", "label"]).any()
    wide = table.pivot(index=["dataset", "label"], columns="method", values="test_score")
    assert row["delta"] == pytest.approx((wide["knn"] - wide["logreg"]).mean())
    [first, *_] = report.headline(table)
    assert "over 2 datasets with 20 tasks" in first


def test_a_page_of_300_labels_can_be_read(tmp_path):
    table = results.tidy(one_versus_rest(300, 1).assign(experiment="e"))
    written(tmp_path, table)
    page = Page((tmp_path / "e/report.html").read_text())
    assert page.alike() == []
    [labels] = [t for t in page.tables if len(t) > 250]
    assert [cell for cell, _ in labels[1]][:2] == ["genres", "class 0"]


def test_a_metric_of_a_file_of_the_users_is_known_by_its_registration(
    registered, tmp_path, monkeypatch
):
    """It stands in probes.csv, summary.csv, the figures' rows and the page."""
    mine = {"label": "share of <mine>", "kinds": ("binary",), "high": 9.0, "higher": False}
    file = tmp_path / "mine.py"
    file.write_text(
        "from actprobe.probes.metrics import metric\n"
        f"metric('mine', **{mine})(lambda y, scores, predicted: 2.5)\n"
    )
    monkeypatch.setattr(extensions, "_LOADED", {})
    raw = fake_rows(3, 4).assign(experiment="e", test_mine=2.5)
    extensions.load([str(file)])
    table = results.tidy(raw)
    assert list(table.columns).index("test_mine") < list(table.columns).index("converged")
    config = written(tmp_path, table, extensions=[str(file)])
    root = tmp_path / "e"
    assert set(pd.read_csv(root / "tables/probes.csv")["test_mine"]) == {2.5}
    assert set(pd.read_csv(root / "tables/summary.csv")["test_mine"]) == {2.5}
    assert set(views.featured(table)["test_mine"]) == {2.5}
    page = (root / "report.html").read_text()
    part = page[page.index("<h2>All metrics") : page.index("<h2>Comparisons")]
    assert ">mine<" in part and "share of &lt;mine&gt;" in part and ">2.500<" in part
    with pytest.raises(ActprobeError, match=r"test_mine must lie in \[0, 9\]"):
        results.tidy(raw.assign(test_mine=10.0))
    assert report.told(config)


def test_the_page_shows_every_metric_by_probe_and_kind(tmp_path):
    written(tmp_path, mixed())
    page = (tmp_path / "e/report.html").read_text()
    part = page[page.index("<h2>All metrics") : page.index("<h2>Comparisons")]
    titles = re.findall(r"<h3>(.*?)</h3>", part)
    assert titles == [
        "saeprobes-0.4.2, test AUC, binary", "saeprobes-0.4.2, test AUC, multiclass",
        "saeprobes-0.4.2, R², continuous",
    ]  # fmt: skip
    heads = [re.findall(r"<th[^>]*>(.*?)</th>", t) for t in part.split("<h3>")[1:]]
    assert heads[0][-5:] == ["auc", "acc", "f1", "brier", "ece"]
    assert heads[1][-6:] == ["auc", "acc", "f1", "balanced_acc", "macro_f1", "top5"]
    assert heads[2][-3:] == ["r2", "spearman", "rmse"]
    for words in ("Test AUC or R² with its interval", "best validation AUC or validation R²"):
        assert words in page


def test_each_metric_is_drawn_by_itself_in_one_file(tmp_path):
    """And equal input gives equal bytes."""
    table = mixed()
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        figures.write(Written(table, {}), [], folder, ["scores_by_layer", "scarcity"], 0.95)
        made.append({f.name: f.read_bytes() for f in sorted(folder.iterdir())})
    assert made[0] == made[1]
    svg = made[0]["scores_by_layer.svg"].decode()
    assert svg.count("<svg ") == 3 and made[0]["scarcity.svg"].decode().count("<svg ") == 1
    names = re.findall(r'\bid="([^"]+)"', svg)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= set(names)


def test_reference_lines_are_where_nothing_is_known():
    known = metrics.all_metrics()
    rows = pd.DataFrame({"dataset": ["a", "a", "b"], "label": "", "chance": [0.4, 0.4, 0.6]})
    found = {n: scores.chance(known[n], rows) for n in ("auc", "r2", "spearman", "acc")}
    assert found == pytest.approx({"auc": 0.5, "r2": 0.0, "spearman": 0.0, "acc": 0.5})
    assert np.isnan(scores.chance(known["acc"], rows.assign(chance=np.nan)))


def test_values_far_below_zero_do_not_squash_a_figure():
    table = results.tidy(continuous(4, 4).assign(experiment="e"))
    table.loc[table["dataset"] == "0_rating", "test_score"] = -300.0
    for draw in (figures.scores_by_dataset, figures.scores_by_layer):
        fig = draw(table)
        ends = (
            fig.axes[0].get_xlim() if draw is figures.scores_by_dataset else fig.axes[0].get_ylim()
        )
        assert ends[0] == -1.0
        assert "Values below -1 are outside of the figure" in fig.texts[1].get_text().replace(
            "\n", " "
        )


def test_the_level_of_the_accuracy_is_that_of_the_commonest_class_of_each_dataset(monkeypatch):
    monkeypatch.setitem(metrics.MAIN, "multiclass", "acc")
    table = results.tidy(multiclass(3, 4).assign(experiment="e", metric="acc"))
    table["chance"] = table["dataset"].map(
        dict(zip(table["dataset"].unique(), (0.5, 0.3, 0.4), strict=True))
    )
    (ax,) = figures.scores_by_dataset(table).axes
    [ticks] = [line.get_xdata() for line in ax.lines if line.get_marker() == "|"]
    assert sorted(ticks) == [0.3, 0.4, 0.5]
    assert "accuracy" in ax.get_xlabel()
