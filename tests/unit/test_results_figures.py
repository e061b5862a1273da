"""Figures and report: always written, equal byte for byte, whole and offline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_rows import fake_rows, with_saes

from actprobe import report, results
from actprobe.report import figures, layout
from actprobe.results import tables, views
from actprobe.results.make import Written


def tidy_rows(n_datasets: int = 4, layers: int = 5) -> pd.DataFrame:
    return results.tidy(fake_rows(n_datasets, layers).assign(experiment="quickstart"))


def config_for(folder: Path) -> dict:
    options = {"confidence": 0.95, "confusion": "multiclass"}
    return {"results_dir": str(folder), "experiment": "quickstart", "results": options}


def written(folder: Path, table: pd.DataFrame, skipped: list[list[str]] | None = None) -> dict:
    """Tables, figures and report of `table` below `folder`; returns the config."""
    config = config_for(folder)
    lost = pd.DataFrame(skipped or [], columns=tables.SKIPPED)
    names = table["dataset"].unique()
    facts = tables.dataset_table([{"dataset": d, "classes": {"no": 9, "yes": 8}} for d in names])
    results.write_tables(config, table, lost, facts)
    report.make_figures(config)
    report.make_report(config)
    return config


def outputs(config: dict) -> dict[str, str]:
    """All files of results by name."""
    shown = report.outputs(config)
    return results.outputs(config) | shown["figures"] | shown["report"]


def test_outputs_are_exactly_what_is_written(tmp_path: Path) -> None:
    config = written(tmp_path, tidy_rows())
    declared = outputs(config)
    made = {str(p) for p in (tmp_path / "quickstart").rglob("*") if p.is_file()}
    assert made == set(declared.values()) and all(name.isidentifier() for name in declared)


def test_everything_is_equal_byte_for_byte_on_a_second_run(tmp_path: Path) -> None:
    config = written(tmp_path, tidy_rows())
    paths = [Path(p) for p in outputs(config).values()]
    before = [p.read_bytes() for p in paths]
    written(tmp_path, tidy_rows())
    assert [p.read_bytes() for p in paths] == before
    assert b"<dc:date>" not in (tmp_path / "quickstart/figures/scores_by_layer.svg").read_bytes()


@pytest.mark.parametrize(
    "table",
    [tidy_rows(1, 1), tidy_rows(3, 1), tidy_rows(60, 2), tidy_rows().iloc[:0]],
    ids=["one dataset", "one layer and method", "many datasets", "no rows"],
)
def test_figures_are_drawn_where_little_applies(tmp_path: Path, table: pd.DataFrame) -> None:
    written(tmp_path, table)
    for name in ("scores_by_layer", "scores_by_dataset"):
        svg = (tmp_path / f"quickstart/figures/{name}.svg").read_text()
        assert svg.rstrip().endswith("</svg>")


def test_layers_are_lines_and_single_layers_points() -> None:
    fig = figures.scores_by_layer(tidy_rows(4, 5))
    (ax,) = fig.axes
    drawn = {line.get_label(): line for line in ax.get_lines()}
    table = tidy_rows(4, 5)
    means = table[table["method"] == "logreg"].groupby("site")["test_score"].mean()
    np.testing.assert_allclose(drawn["logreg"].get_ydata(), means)
    assert {"pca", "knn", "xgboost", "mlp"} <= set(ax.get_legend_handles_labels()[1])
    assert "logreg" in drawn and "pca" not in drawn


def test_settings_and_saes_of_the_config_call_for_more_figures(tmp_path: Path) -> None:
    plain = {"probes": [{"settings": ["normal"]}], **config_for(tmp_path)}
    assert layout.figures(plain) == [*layout.ALWAYS, layout.CONFUSION]
    rich = {**plain, "saes": {"sae_16k": {}}, "probes": [{"settings": ["normal", "scarcity"]}]}
    assert layout.figures(rich) == [*layout.ALWAYS, *layout.WITH_SAES, "scarcity", layout.CONFUSION]
    assert set(layout.figures(rich)) < {*figures.FIGURES, layout.CONFUSION}


def test_a_figure_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    for name, draw in figures.FIGURES.items():
        fig = draw(tidy_rows().iloc[:0], 0.95)
        assert len(fig.texts) == 2 and not fig.axes, name
    for name in (*layout.WITH_SAES, *layout.OF_SETTINGS):
        assert not figures.FIGURES[name](tidy_rows(), 0.95).axes, name


def test_sae_probes_stand_beside_the_baseline_of_their_place() -> None:
    table = with_saes()
    (ax,) = figures.sae_scatter(table).axes
    drawn = np.concatenate([line.get_xydata() for line in ax.get_lines()[:2]])
    assert len(drawn) == 6
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], -0.02)
    heat = figures.sae_by_dataset(table).axes[0].images[0].get_array()
    np.testing.assert_allclose(heat, np.full((6, 1), -0.02))
    lines = {line.get_label(): line for line in figures.scores_by_k(table).axes[0].lines}
    np.testing.assert_array_equal(lines["sae_16k, ksparse_b"].get_xdata(), [1, 16, 128])


def test_curves_show_only_datasets_with_every_condition() -> None:
    table = with_saes()
    lost = (table["dataset"] == "66_living-room") & (table["condition"] == "1024")
    lost &= table["method"] == "knn"
    table.loc[lost, "test_score"] = np.nan
    (ax,) = figures.scarcity(table).axes
    assert ax.get_title() == "minilm, resid_post.3, mean: 5 of 6 datasets"
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"logreg", "pca", "knn", "xgboost", "mlp", "sae_16k, ksparse_b"}
    kept = table[(table["setting"] == "scarcity") & (table["dataset"] != "66_living-room")]
    means = kept[kept["method"] == "pca"].groupby("condition")["test_score"].mean()
    np.testing.assert_allclose(lines["pca"].get_ydata(), means[["16", "1024"]])


def test_quiver_figure_draws_the_tie_band() -> None:
    table = with_saes().assign(val_score=0.9)
    fig = figures.quiver(table)
    quivers = results.quiver_table(table)
    bars = {(round(b.get_x(), 6), round(b.get_width(), 6)) for ax in fig.axes for b in ax.patches}
    assert bars == {
        (round(r["tie_low"], 6), round(r["tie_high"] - r["tie_low"], 6))
        for _, r in quivers.iterrows()
    }


def test_featured_place_has_most_methods_and_is_chosen_without_test_scores() -> None:
    table = tidy_rows(4, 5)
    assert set(views.featured(table)["site"]) == {"resid_post.3"}
    alone = table[table["method"] == "logreg"].assign(test_score=0.5)
    alone.loc[alone["site"] == "resid_post.1", "test_score"] = 1.0
    assert set(views.featured(alone)["site"]) == {"resid_post.4"}


def test_headline_names_the_best_by_validation_and_the_caveats() -> None:
    lines = report.headline(tidy_rows(4, 6), skipped=2)
    table = tidy_rows(4, 6)
    mean = table[table["site"] == "resid_post.5"]["test_score"].mean()
    assert lines[0].startswith("logreg on minilm, resid_post.5, mean reaches a mean test AUC of")
    assert f"{mean:.3f}" in lines[0] and "over 4 datasets" in lines[0]
    same = "The same without leaked test rows (saeprobes-0.4.2): logreg"
    assert any(line.startswith(same) for line in lines)
    assert any(
        "logreg by layer (minilm, mean; saeprobes-0.4.2): resid_post.0" in line for line in lines
    )
    assert any("the most in 131_temp_cat_Typical Time (1.5%)" in line for line in lines)
    assert "1 of 40 fits did not converge." in lines
    assert (
        lines[-1] == "0 fits gave no number, 2 targets skipped; the report and skipped.csv say why."
    )
    assert report.headline(tidy_rows().iloc[:0]) == ["No probe has a number; 0 targets skipped."]


def test_headline_tells_saes_apart_and_mixes_no_protocols() -> None:
    table = with_saes()
    [line] = [x for x in report.headline(table) if x.startswith("SAE probes")]
    assert line.startswith("SAE probes (saeprobes-0.4.2; minilm, resid_post.3, mean): sae_")
    assert "(k = " in line and ", logreg on all dimensions 0." in line
    other = table[~views.baseline(table)].assign(protocol="other", val_score=1.0)
    mixed = report.headline(pd.concat([table, other], ignore_index=True))
    alone = report.headline(table)
    assert mixed[:3] == alone[:3] and any(x.startswith("SAE probes (other;") for x in mixed)


def test_report_holds_everything_and_needs_no_network(tmp_path: Path) -> None:
    table = tidy_rows()
    table.loc[0, ["test_score", "val_score"]] = np.nan
    table.loc[0, "reason"] = "the test rows hold <one> class"
    lost = [["9_bad", "", "p", "normal", "s", "logreg", "9_bad.csv: no rows", None]]
    written(tmp_path, table, lost)
    page = (tmp_path / "quickstart/report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 4
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    for words in ("9_bad.csv: no rows", "the test rows hold &lt;one&gt; class", "no (9) | yes (8)"):
        assert words in page
    assert "131_temp_cat_Typical Time" in page and "experiment: quickstart" in page
    for target in re.findall(r'href="([^"]+)"', page):
        assert (tmp_path / "quickstart" / target).is_file()


def test_the_room_is_light_to_import() -> None:
    heavy = "('pandas', 'pyarrow', 'matplotlib', 'numpy', 'jinja2')"
    code = f"import sys, actprobe.results; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("setting", "conditions", "named"),
    [
        ("scarcity", ["2", "64", "1024"], "scarcity 1024"),
        ("imbalance", ["0.05", "0.5", "0.95"], "imbalance 0.5"),
        ("label_noise", ["0", "0.25"], "label_noise 0"),
        ("ood", ["x_OOD", "y_OOD"], "ood"),
    ],
)
def test_headline_without_the_setting_normal_is_about_one_condition(setting, conditions, named):
    normal = tidy_rows(4, 6)
    rows = [
        normal.assign(setting=setting, condition=c, test_score=normal["test_score"] - 0.1 * i)
        for i, c in enumerate(conditions)
    ]
    lines = report.headline(pd.concat(rows, ignore_index=True))
    frame = f"saeprobes-0.4.2, {named}"
    assert f"over 4 datasets ({frame}), the best of 10 probes" in lines[0]
    start = f"Methods on minilm, resid_post.3, mean ({frame}): logreg 0."
    assert any(line.startswith(start) for line in lines)


def test_a_method_without_a_condition_costs_that_condition() -> None:
    table = with_saes()
    lost = (table["method"] == "knn") & (table["condition"] == "16")
    (ax,) = figures.scarcity(table[~lost]).axes
    assert {tuple(line.get_xdata()) for line in ax.lines} == {(1024,)}
    assert ax.get_title() == "minilm, resid_post.3, mean: 6 of 6 datasets"


def test_two_protocols_at_one_place_are_two_panels() -> None:
    table = with_saes()
    both = pd.concat([table, table.assign(protocol="other")], ignore_index=True)
    titles = [ax.get_title() for ax in figures.scarcity(both).axes]
    assert len(titles) == 2 and "other: 6 of 6 datasets" in titles[1]


def test_points_of_ood_are_means_over_seeds() -> None:
    normal = tidy_rows(1, 3)
    normal = normal[normal["method"] == "logreg"]
    ood = normal.assign(setting="ood", condition="x_OOD")
    rows = [
        t.assign(seed=s, test_score=auc)
        for t, aucs in ((normal, (0.9, 0.7)), (ood, (0.5, 0.7)))
        for s, auc in enumerate(aucs)
    ]
    (ax,) = figures.ood(pd.concat(rows, ignore_index=True)).axes
    inside, outside = (
        [x.get_xdata() for x in ax.lines if x.get_marker() in "Xh<" and filled(x) == of]
        for of in (False, True)
    )
    np.testing.assert_allclose(np.concatenate(inside), 0.8)
    np.testing.assert_allclose(np.concatenate(outside), 0.6)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == [f"logreg, resid_post.{i}" for i in range(3)]


def filled(line) -> bool:
    return line.get_markerfacecolor() != "white"


def test_the_level_beside_curves_by_k_is_that_of_the_same_datasets() -> None:
    table = with_saes()
    few = table[views.baseline(table) | (table["dataset"] == "66_living-room")]
    (ax,) = figures.scores_by_k(few).axes
    shown = [t.get_text() for t in ax.texts]
    base = few[(few["method"] == "logreg") & (few["dataset"] == "66_living-room")]
    level = base[base["setting"] == "normal"]["test_score"].mean()
    assert shown == [f"logreg, all dimensions: {level:.3f}"]


def test_leakage_compares_means_over_the_same_seeds() -> None:
    table = tidy_rows(2, 4)
    other = table.assign(seed=1, test_score=0.5, test_score_unseen=0.4)
    table = table.assign(test_score=0.9, test_score_unseen=0.9)
    fig = figures.leakage(pd.concat([table, other], ignore_index=True))
    drawn = [
        y for line in fig.axes[0].lines if line.get_marker() != "None" for y in line.get_ydata()
    ]
    np.testing.assert_allclose(drawn, 0.05)


def test_c1_datasets_without_other_test_rows_are_counted_and_have_no_point() -> None:
    table = tidy_rows(3, 4)
    table.loc[table["dataset"] == "66_living-room", "test_score_unseen"] = np.nan
    fig = figures.leakage(table)
    assert " 1 without a number on the other rows are not shown." in fig.texts[
        1
    ].get_text().replace("\n", " ")
    none = figures.leakage(table.assign(test_score_unseen=np.nan))
    assert not none.axes and "No dataset has a test AUC without leaked" in none.texts[1].get_text()


def test_d4_every_protocol_has_its_own_lines_and_table(tmp_path: Path) -> None:
    """Two protocols at one place; one of them has no number for a dataset."""
    first = tidy_rows(2, 4)
    second = first.assign(protocol="actprobe-1", val_score=0.5)
    lost = second["dataset"] == "66_living-room"
    second.loc[lost, ["test_score", "val_score"]] = np.nan
    second.loc[lost, "reason"] = "too few test rows"
    written(tmp_path, pd.concat([first, second], ignore_index=True))
    lines = report.told(config_for(tmp_path))
    assert "over 2 datasets (saeprobes-0.4.2)" in lines[0]
    assert any("over 1 dataset (actprobe-1)" in line for line in lines)
    page = (tmp_path / "quickstart/report.html").read_text()
    for protocol in ("saeprobes-0.4.2", "actprobe-1"):
        assert f"<h3>{protocol}: minilm, resid_post.3, mean</h3>" in page
        assert f"<h3>{protocol}, normal</h3>" in page
    cells = [re.sub(r"<[^>]*>", "|", row) for row in re.findall(r"<tr>.*?</tr>", page)]
    [left_out] = [row for row in cells if "too few test rows" in row]
    words = [w for w in left_out.split("|") if w]
    assert words[:4] == ["66_living-room", "some", "actprobe-1", "normal"]
    assert words[-1] == f"{lost.sum()} fits"


def test_d5_what_is_corrected_together_is_shown_together(tmp_path: Path) -> None:
    """60 comparisons in a family, more than a table used to hold; a control is no part of it."""
    rows = []
    for i in range(61):
        rows.append(tidy_rows(12, 4).query("site == 'resid_post.3' and method == 'logreg'"))
        method = "logreg" if i == 0 else f"other_{i}"
        rows[-1] = rows[-1].assign(method=method, test_score=rows[-1]["test_score"] - 0.001 * i)
    rows.append(rows[1].assign(method="control_shuffled_labels"))
    table = results.tidy(pd.concat(rows, ignore_index=True))
    written(tmp_path, table)
    page = (tmp_path / "quickstart/report.html").read_text()
    comparisons = page[page.index("<h2>Comparisons") : page.index("<h2>Choice")]
    assert "The p values are corrected for 60 comparisons." in comparisons
    assert len(re.findall(r"<tr><td", comparisons)) == 61


def test_h_names_from_data_are_text_in_the_page(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\x00\u202e"
    table = tidy_rows(2, 4)
    table = table.assign(method=table["method"].replace("knn", name))
    written(tmp_path, results.tidy(table))
    page = (tmp_path / "quickstart/report.html").read_text()
    assert "<img src=x" not in page and "\x00" not in page and "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;\ufffd\ufffd" in page


def test_a_place_without_a_dataset_for_every_method_is_an_empty_panel(tmp_path: Path) -> None:
    """Beside one with curves, and alone."""
    table = with_saes(4)
    table["test_score"] -= 0.4  # so that an AUC of 0.5 is in sight
    apart = table[table["method"].isin(["logreg", "knn"])].assign(site="resid_post.1", source="x")
    one = apart["dataset"] == "5_hist_fig_ismale"
    apart = apart[one == (apart["method"] == "knn")]
    both = pd.concat([table, apart], ignore_index=True)
    for rows in (both, apart):
        figures.write(Written(rows, {}), [], tmp_path, ["scarcity"], 0.95)
    assert figures.scarcity(both).axes[1].get_title().endswith("0 of 4 datasets")
