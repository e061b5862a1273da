"""Tables, figures and the page of LoRA probes."""

from __future__ import annotations

import itertools
from pathlib import Path

import lora_tools as tools
import numpy as np
import pandas as pd
import pytest

from actprobe.lora import figures, inference, layout, report, results, synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("results")
    synthetic.write(folder, per_class=12)
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "representations": ["stats", "left_projector"]}}  # fmt: skip
    probes = {"p": {"loras": ["toy"], "methods": ["ridge"], "each_layer": ["stats"],
                    "layers": {"all": "*", "attn1": "*.attn1.*"}}}  # fmt: skip
    cfg = tools.resolved(folder, loras, probes)
    plan = tools.run(cfg)
    results.make_tables(
        cfg,
        plan.paths("lora_probes"),
        plan.paths("lora_index"),
        layout.telling(plan.paths("features")),
    )
    figures.make_figures(cfg)
    report.make_report(cfg)
    return cfg


def test_every_output_is_written_and_equal_input_gives_equal_bytes(made: dict) -> None:
    files = [Path(p) for kind in layout.outputs(made).values() for p in kind.values()]
    assert all(p.stat().st_size > 0 for p in files)
    before = {p: p.read_bytes() for p in files if p.suffix in (".svg", ".png", ".html")}
    figures.make_figures(made)
    report.make_report(made)
    assert before == {p: p.read_bytes() for p in before}


def test_the_summary_has_means_intervals_and_the_controls_beside_them(made: dict) -> None:
    tables = results.read_tables(made)
    summary, runs = tables["summary"], tables["runs"]
    row = summary[(summary["source"] == "stats") & (summary["condition"] == "attn1")].iloc[0]
    fits = runs[(runs["source"] == "stats") & (runs["condition"] == "attn1")]
    assert row["n_runs"] == len(fits) == 5
    assert row["test_acc"] == pytest.approx(fits["test_acc"].mean(), rel=1e-5)
    assert row["test_acc_std"] == pytest.approx(fits["test_acc"].std(ddof=0), rel=1e-5)
    controls = summary[summary["source"].isin(["norm_only", "recipe_only"])].set_index(
        ["source", "condition", "method"]
    )["test_acc"]
    assert row["norm_only"] == controls["norm_only", "attn1", "ridge"]
    recipe = controls["recipe_only", "all"]
    assert set(recipe.index) == {"ridge", "tree"}, "the recipe is always read by a tree, too"
    assert row["recipe_only"] == recipe.max()
    layers = tables["layers"]
    assert len(layers) == 2 * 12 and set(layers["n_runs"]) == {5}, "stats and norm_only"
    assert set(layers["recipe_only"]) == {recipe.max()} and set(layers["looks"]) == {12}
    assert layers["norm_only"].notna().all() and layers["norm_only"].nunique() > 1


def test_refused_files_stand_in_table_and_page(made: dict) -> None:
    refused = results.read_tables(made)["refused"].set_index("id")["reason"]
    assert len(refused) == 7 and "NaN" in refused["broken/nan"]
    page = (Path(layout.folder(made)) / layout.REPORT).read_text()
    assert "broken/lokr" in page and "LoKr is not supported" in page
    assert "left_projector" in page and "recipe_only" in page


def test_unusable_weights_are_told_of_collections_that_nobody_probes(tmp_path: Path) -> None:
    for name in "ab":
        synthetic.write(tmp_path / name, per_class=1)
    named = {"a": ["product", "norm_only"], "b": ["flat_vec", "stats", "recipe_only"]}
    cfg = tools.resolved(
        tmp_path,
        {k: {"files": str(tmp_path / k / "files"), "representations": v} for k, v in named.items()},
        on_bad_dataset="skip",
    )
    plan = tools.run(cfg)
    features = layout.telling(plan.paths("features"))
    assert sorted(Path(p).name.partition(".")[0] for p in features) == ["norm_only", "stats"]
    results.make_tables(cfg, [], [], features)
    refused = results.read_tables(cfg)["refused"]
    assert refused["collection"].tolist() == ["a", "b"] and set(refused["id"]) == {"broken/nan"}


def test_confusions_sum_to_the_test_rows(made: dict) -> None:
    tables = results.read_tables(made)
    counts = tables["confusion"].groupby(results.CELL[:-1], dropna=False)["n"].sum()
    tested = tables["runs"][tables["runs"]["condition"] != "each"]
    assert counts.sum() == tested["n_test"].sum()


def test_the_interval_over_runs_is_that_of_student_where_runs_share_no_rows() -> None:
    values = np.array([0.4, 0.5, 0.6])
    low, high = inference.interval(values, 0.0)
    assert (low, high) == pytest.approx((0.2515862, 0.7484138), rel=1e-6)
    wider = inference.interval(values, 0.25)  # (1/3 + 1/4) / (1/3) = 7/4 times the variance
    assert wider[1] - 0.5 == pytest.approx((high - 0.5) * np.sqrt(7 / 4))
    assert all(np.isnan(inference.interval(np.array([0.5]), 0.25)))


def _runs(accuracies: dict[str, float], n_test: int, seeds: int = 5) -> pd.DataFrame:
    """Runs of p on toy that all have the same accuracy, by representation."""
    rows = []
    for (source, hit), seed in itertools.product(accuracies.items(), range(seeds)):
        low, high = inference.wilson(hit, n_test)
        row = {"setting": "p", "protocol": "x", "dataset": "toy", "source": source, "condition": "all",
               "site": "", "method": "ridge", "seed": seed, "n_train": 4 * n_test, "n_test": n_test,
               "n_columns": 3, "n_constant": 0, "n_repeated": 0, "chance": 0.5, "ci_low": low,
               "ci_high": high, "reason": "", "converged": None, "leak_fraction": None,
               "outliers": "[]", "classes": '["a", "b"]'}  # fmt: skip
        rows.append(row | dict.fromkeys(results._MEANS, hit))
    return pd.DataFrame(rows)


def test_runs_that_share_their_test_rows_are_no_more_certain_than_one() -> None:
    runs = _runs({"stats": 0.6, "recipe_only": 0.55}, 20)
    summary = results.summarise(runs, {("p", "toy")}).set_index("source")
    for source, hit in (("stats", 0.6), ("recipe_only", 0.55)):
        found = summary.loc[source, ["ci_low", "ci_high"]].tolist()
        assert found == pytest.approx(inference.wilson(hit, 20))
    assert not report._leak(summary.reset_index()), "11 of 20 is no leak"
    assert report._leak(results.summarise(runs))
    assert len(report.headline(results.summarise(runs), results.choices(runs))) == 2
    wide = runs.assign(test_acc=np.tile([0.1, 0.3, 0.5, 0.7, 0.9], 2))
    low = inference.interval(np.array([0.1, 0.3, 0.5, 0.7, 0.9]), 0.25)[0]
    assert (
        results.summarise(wide, {("p", "toy")})["ci_low"].iloc[0]
        == low
        < inference.wilson(0.5, 20)[0]
    )


def test_chance_is_no_less_than_guessing() -> None:
    runs = _runs({"stats": 0.5}, 20)
    for largest, chance in ((0.3, 0.5), (0.6, 0.6)):
        assert results.summarise(runs.assign(chance=largest))["chance"].item() == chance
    assert np.isnan(results.summarise(runs.assign(reason="bad"))["chance"].item())


def test_which_runs_share_their_test_rows(tmp_path: Path) -> None:
    loras = {"a": {"files": "x"}, "b": {"files": "x", "split": "side"}}
    probes = {"p": {"loras": ["a", "b"]}, "q": {"loras": ["a"], "split": "side"},
              "w": {"loras": ["a"], "protocol": "weightspace"}}  # fmt: skip
    found = results.one_split(tools.resolved(tmp_path, loras, probes))
    assert found == {("p", "b"), ("q", "a"), ("w", "a")}


def test_leaking_recipes_are_told_on_the_page() -> None:
    runs = _runs({"stats": 0.6, "recipe_only": 0.9}, 100)
    runs.loc[0, "outliers"] = '["l7"]'
    lines = report.headline(results.summarise(runs), results.choices(runs))
    assert "5 of 5 runs chose stats, all, ridge" in lines[0]
    assert "gives its labels away" in lines[1] and "0.900 with ridge" in lines[1]
    assert "far outside of all others in some representation: l7" in lines[2]


def test_empty_tables_give_pages_that_say_so(tmp_path: Path) -> None:
    cfg = tools.resolved(tmp_path, {})
    results.make_tables(cfg, [], [], [])
    figures.make_figures(cfg)
    report.make_report(cfg)
    assert "No classifier has a number" in (Path(layout.folder(cfg)) / layout.REPORT).read_text()


def test_figures_of_probes_that_differ_in_everything() -> None:
    """Two entries: other layers, representations and labels in each."""
    columns = ["setting", "dataset", "source", "condition", "site", "method", "val_acc", "test_acc",
               "ci_low", "ci_high", "chance", "recipe_only"]  # fmt: skip
    summary = pd.DataFrame(
        [
            ["a", "toy", "stats", "all", "", "ridge", 0.7, 0.6, 0.5, 0.7, 0.25, 0.3],
            ["a", "toy", "stats", "attn1", "", "ridge", 0.6, 0.5, np.nan, np.nan, 0.25, 0.3],
            ["b", "toy", "product", "all", "", "mlp", 0.9, 0.9, 0.8, 1.0, 0.5, 0.5],
            ["b", "toy", "recipe_only", "all", "", "mlp", 0.5, 0.5, 0.4, 0.6, 0.5, 0.5],
            ["b", "toy", "recipe_only", "all", "", "tree", 0.5, 0.5, 0.4, 0.6, 0.5, 0.5],
        ],
        columns=columns,
    ).assign(protocol="lora-default")
    titles = [ax.get_title() for ax in figures.representations(summary).axes]
    assert titles == ["a, toy, lora-default, ridge", "b, toy, lora-default, mlp"]
    single = summary.assign(condition="each", site=["m", "n", "m", "m", "m"])
    titles = [ax.get_title() for ax in figures.layers(single).axes]
    assert titles == ["a, toy, lora-default", "b, toy, lora-default"]
    counts = pd.DataFrame(
        [[*row[:4], row[5], t, p, 3] for row in summary.to_numpy() for t in "xy" for p in "xy"],
        columns=["setting", "dataset", "source", "condition", "method", "true", "predicted", "n"],
    ).assign(protocol="lora-default")
    titles = [ax.get_title() for ax in figures.confusion(counts, summary).axes]
    assert [t.replace("\n", " ") for t in titles] == [
        "a, toy, lora-default, stats, all, ridge", "b, toy, lora-default, product, all, mlp",
    ]  # fmt: skip
