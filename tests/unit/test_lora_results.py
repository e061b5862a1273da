"""Tables, figures and the page of probes of LoRA weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import lora_tools as tools
import numpy as np
import pandas as pd
import pytest

from actprobe import lora, report, results
from actprobe.lora import synthetic
from actprobe.probes import metrics
from actprobe.probes.feature_targets import EACH
from actprobe.probes.intervals import wilson
from actprobe.report import features as told
from actprobe.report import figures
from actprobe.report import layout as shown
from actprobe.report.figures import features as drawn
from actprobe.report.figures.confusions import confusion as draw_confusion
from actprobe.results import confusion, features, layout, seeds, tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("results")
    synthetic.write(folder, per_class=12)
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "representations": ["stats", "left_projector"]}}  # fmt: skip
    probes = [{"sources": ["toy/*"], "methods": ["ridge"], "columns": ["*", "*.attn1.*"]},
              {"sources": ["toy/stats"], "methods": ["ridge"],
               "each_column_group": "module"}]  # fmt: skip
    cfg = tools.resolved(folder, loras, probes)
    found = tools.make_results(cfg, tools.run(cfg))
    report.make_figures(cfg)
    report.make_report(cfg)
    return cfg, found


def _files(cfg: dict) -> list[Path]:
    pages = [p for kind in report.outputs(cfg).values() for p in kind.values()]
    return [Path(p) for p in [*results.outputs(cfg).values(), *pages]]


def test_every_output_is_written_and_equal_input_gives_equal_bytes(made) -> None:
    files = _files(made[0])
    assert all(p.stat().st_size > 0 for p in files)
    names = {p.stem for p in files if p.suffix == ".svg"}
    assert names == {*shown.FEATURES, shown.CONFUSION}, "nothing of texts"
    before = {p: p.read_bytes() for p in files if p.suffix in (".svg", ".png", ".html")}
    report.make_figures(made[0])
    report.make_report(made[0])
    assert before == {p: p.read_bytes() for p in before}


def test_the_summary_has_means_intervals_and_the_controls_beside_them(made) -> None:
    cfg, found = made
    summary = found["representations"]
    runs = results.read_probes(Path(layout.folder(cfg)) / layout.TABLES["probes"])
    row = summary[(summary["source"] == "toy/stats") & (summary["columns"] == "*.attn1.*")].iloc[0]
    fits = runs[(runs["source"] == "toy/stats") & (runs["columns"] == "*.attn1.*")]
    assert row["n_runs"] == len(fits) == 5 and row["metric"] == "acc"
    for column in ("test_score", "test_acc", "test_auc", "train_score"):
        assert row[column] == pytest.approx(fits[column].mean(), rel=1e-5)
        assert row[f"{column}_std"] == pytest.approx(fits[column].std(ddof=0), rel=1e-5)
    assert row["test_score"] == row["test_acc"]
    controls = summary[features.is_control(summary)].set_index(["source", "columns", "method"])
    controls = controls["test_score"]
    assert row["norm_only"] == controls["toy/norm_only", "*.attn1.*", "ridge"]
    recipe = controls["toy/recipe_only", "*"]
    assert set(recipe.index) == {"ridge", "tree"}, "the recipe is always read by a tree, too"
    assert row["recipe_only"] == recipe.max()
    modules = found["modules"]
    assert len(modules) == 2 * 12 and set(modules["n_runs"]) == {5}, "stats and norm_only"
    assert set(modules["recipe_only"]) == {recipe.max()} and set(modules["looks"]) == {12}
    assert modules["norm_only"].notna().all() and modules["norm_only"].nunique() > 1


def test_a_metric_of_ones_own_is_in_tables_and_page(tmp_path: Path, monkeypatch) -> None:
    rows = ["id,label"]
    for i in range(30):
        tools.write_lora(tmp_path / "f" / f"l{i:02d}.safetensors", i)
        rows.append(f"l{i:02d},{'ab'[i % 2]}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    wrong = metrics.Metric("wrong", "rows that are wrong", ("binary",), 0, 99, False,
                           lambda y, scores, said: float(np.sum(y != said)))  # fmt: skip
    metrics.all_metrics()
    monkeypatch.setitem(metrics._REGISTERED, "wrong", wrong)
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv")}}
    cfg = tools.resolved(tmp_path, loras, [{"sources": ["c/stats"], "methods": ["ridge"]}])
    found = tools.make_results(cfg, tools.run(cfg))["representations"]
    report.make_figures(cfg)
    report.make_report(cfg)
    missed = found["n_test"] * (1 - found["test_acc"])
    assert found["test_wrong"].to_numpy() == pytest.approx(missed.to_numpy(), rel=1e-4)
    page = (Path(layout.folder(cfg)) / shown.PAGE).read_text()
    assert "wrong: rows that are wrong" in page


def test_refused_files_are_in_table_and_page(made) -> None:
    refused = made[1]["refused"].set_index("id")["reason"]
    assert len(refused) == 7 and "NaN" in refused["broken/nan"]
    page = (Path(layout.folder(made[0])) / shown.PAGE).read_text()
    assert "broken/lokr" in page and "LoKr is not supported" in page
    assert "left_projector" in page and "recipe_only" in page
    assert "No dataset has a number" not in page and "No probe has a number" not in page


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
    telling = lora.telling(plan.paths("features"))
    assert sorted(Path(p).name.partition(".")[0] for p in telling) == ["norm_only", "stats"]
    refused = lora.left_out([], telling)
    assert refused["collection"].tolist() == ["a", "b"] and set(refused["id"]) == {"broken/nan"}


def test_confusions_sum_to_the_test_rows(made) -> None:
    cfg, found = made
    runs = results.read_probes(Path(layout.folder(cfg)) / layout.TABLES["probes"])
    tested = runs[runs["columns"] != EACH]
    assert found["confusion"]["n"].sum() == tested["n_test"].sum()
    assert set(found["confusion"]["true"]) <= set(json.loads(tested["classes"].iloc[0]))


def test_texts_and_features_are_one_table_and_each_has_its_own_parts(made) -> None:
    """Rows of features are no candidates of a comparison of texts, and the other way round."""
    from results_rows import fake_rows

    cfg, _ = made
    runs = results.read_probes(Path(layout.folder(cfg)) / layout.TABLES["probes"])
    both = tables.tidy(pd.concat([runs, fake_rows(3, 2)]).assign(experiment="test"))
    mixed = {**cfg, "experiment": "both", "probes": [*cfg["probes"], {
        "protocol": "actprobe-1", "settings": ["normal"]}]}  # fmt: skip
    facts = tables.dataset_table([])
    results.write_tables(mixed, both, pd.DataFrame(columns=tables.SKIPPED), facts)
    report.make_figures(mixed)
    lines = report.make_report(mixed)
    root = Path(layout.folder(mixed))
    assert "toy" not in (root / "tables/summary.csv").read_text().split("dataset")[0]
    compared = results.read_tables(mixed)["comparisons"]
    of_features = compared["dataset"] == "toy"
    assert (compared["reference_source"].str.startswith("toy/") == of_features).all()
    assert (compared["source"].str.startswith("toy/") == of_features).all() and of_features.any()
    assert set(results.read_tables(mixed)["representations"]["dataset"]) == {"toy"}
    assert any("choosing among" in line for line in lines) and not lines[0].startswith("toy")
    of_rows = {Path(path).name for path in layout.ROW_TABLES.values()}  # of fits, not of tables
    assert all(p.stat().st_size for p in _files(mixed) if p.name not in of_rows)


def test_the_interval_over_runs_is_that_of_student_where_runs_share_no_rows() -> None:
    values = np.array([0.4, 0.5, 0.6])
    low, high = seeds.interval(values, 0.0)
    assert (low, high) == pytest.approx((0.2515862, 0.7484138), rel=1e-6)
    wider = seeds.interval(values, 0.25)  # (1/3 + 1/4) / (1/3) = 7/4 times the variance
    assert wider[1] - 0.5 == pytest.approx((high - 0.5) * np.sqrt(7 / 4))
    assert all(np.isnan(seeds.interval(np.array([0.5]), 0.25)))


def _runs(accuracies: dict[str, float], n_test: int, params: str = "{}") -> pd.DataFrame:
    """Five runs on toy that all have the same accuracy, by representation."""
    rows = []
    for (source, hit), seed in itertools.product(accuracies.items(), range(5)):
        low, high = wilson(hit, n_test)
        rows.append(
            {"experiment": "t", "protocol": "x", "setting": "normal", "dataset": "toy",
             "source": f"toy/{source}", "columns": "*", "method": "ridge", "kind": "binary",
             "metric": "acc", "seed": seed, "n_train": 4 * n_test, "n_test": n_test, "n_columns": 3,
             "n_constant": 0, "n_repeated": 0, "chance": 0.5, "ci_low": low, "ci_high": high,
             "outliers": "[]", "classes": '["a", "b"]', "params": params, "val_score": hit,
             "train_score": hit, "test_score": hit, "test_acc": hit}
        )  # fmt: skip
    return results.tidy(pd.DataFrame(rows))


def _tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"representations": features.summarise(runs), "choices": features.choices(runs)}


def test_runs_that_share_their_test_rows_are_no_more_certain_than_one() -> None:
    accuracies = {"stats": 0.6, "recipe_only": 0.55}
    runs = _runs(accuracies, 20, '{"test_rows": "shared"}')
    summary = features.summarise(runs).set_index("source")
    for source, hit in accuracies.items():
        found = summary.loc[f"toy/{source}", ["ci_low", "ci_high"]].tolist()
        assert found == pytest.approx(wilson(hit, 20))
    assert not told._leak(summary.reset_index()), "11 of 20 is no leak"
    alone = _runs(accuracies, 20)
    assert told._leak(features.summarise(alone))
    assert len(told.headline(_tables(alone))) == 2
    values = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    wide = runs.assign(test_score=np.tile(values, 2))
    low = seeds.interval(values, 0.25)[0]
    assert features.summarise(wide)["ci_low"].iloc[0] == low < wilson(0.5, 20)[0]


def test_chance_is_no_less_than_guessing() -> None:
    runs = _runs({"stats": 0.5}, 20)
    for largest, chance in ((0.3, 0.5), (0.6, 0.6)):
        assert features.summarise(runs.assign(chance=largest))["chance"].item() == chance
    nothing = runs.assign(reason="bad", test_score=np.nan)
    assert np.isnan(features.summarise(nothing)["chance"].item())


def test_which_runs_share_their_test_rows(tmp_path: Path) -> None:
    rows = ["id,label,side"]
    for i in range(40):
        tools.write_lora(tmp_path / "f" / f"l{i:02d}.safetensors", i)
        rows.append(f"l{i:02d},{'ab'[i % 2]},{'test' if i > 29 else 'train'}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    small = tmp_path / "small.yaml"
    small.write_text(
        "name: small\ndescription: x\nextends: weightspace\nmethods: {mlp: {max_epochs: 2}}\n"
    )
    loras = {"a": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv")}}
    entry = {"sources": ["a/stats"], "methods": ["tree"]}
    probes = [entry, {**entry, "split": "side"}, {**entry, "protocol": str(small)}]
    runs = tools.runs(tools.run(tools.resolved(tmp_path, loras, probes)))
    shared = runs["params"].str.contains("shared")
    assert set(runs.loc[shared, "protocol"] + " " + runs.loc[shared, "dataset"]) == {
        "lora-1 a:split=side", "small a",
    }  # fmt: skip
    assert set(runs.loc[~shared, "dataset"]) == {"a"}


def test_leaking_recipes_are_told_on_the_page() -> None:
    runs = _runs({"stats": 0.6, "recipe_only": 0.9}, 100)
    runs.loc[0, "outliers"] = '["l7"]'
    lines = told.headline(_tables(runs))
    assert "5 of 5 runs chose toy/stats, *, ridge" in lines[0]
    assert "gives its labels away" in lines[1] and "0.900 with ridge" in lines[1]
    assert "far outside of all others in some representation: l7" in lines[2]


def test_empty_tables_give_pages_that_say_so(tmp_path: Path) -> None:
    cfg = tools.resolved(tmp_path, {}, [{}])
    results.make_tables(cfg, [], [])
    report.make_figures(cfg)
    report.make_report(cfg)
    page = (Path(layout.folder(cfg)) / shown.PAGE).read_text()
    assert "No probe of features has a number" in page


def test_a_probe_without_a_number_is_told_with_its_reason(tmp_path: Path) -> None:
    cfg = tools.resolved(tmp_path, {}, [{}])
    runs = _runs({"stats": 0.6}, 20).assign(test_score=np.nan, reason="too few rows")
    skipped = pd.DataFrame(columns=tables.SKIPPED)
    results.write_tables(cfg, runs, skipped, tables.dataset_table([]))
    report.make_figures(cfg)
    report.make_report(cfg)
    assert "too few rows" in (Path(layout.folder(cfg)) / shown.PAGE).read_text()


def test_figures_of_probes_that_differ_in_everything() -> None:
    """Two protocols: other columns, representations and labels in each."""
    rows = [
        ["a", "toy", "c/stats", "*", "", "ridge", 0.7, 0.6, 0.5, 0.7, 0.25, 0.3],
        ["a", "toy", "c/stats", "attn1", "", "ridge", 0.6, 0.5, np.nan, np.nan, 0.25, 0.3],
        ["b", "toy", "c/product", "*", "", "mlp", 0.9, 0.9, 0.8, 1.0, 0.5, 0.5],
        ["b", "toy", "c/recipe_only", "*", "", "mlp", 0.5, 0.5, 0.4, 0.6, 0.5, 0.5],
        ["b", "toy", "c/recipe_only", "*", "", "tree", 0.5, 0.5, 0.4, 0.6, 0.5, 0.5],
    ]
    columns = ["protocol", "dataset", "source", "columns", "site", "method", "val_score",
               "test_score", "ci_low", "ci_high", "chance", "recipe_only"]  # fmt: skip
    same = {"setting": "normal", "label": "", "metric": "acc"}
    summary = pd.DataFrame(rows, columns=columns).assign(**same)
    titles = [ax.get_title() for ax in drawn.representations(summary).axes]
    assert titles == ["a, toy, ridge", "b, toy, mlp"]
    single = summary.assign(columns=EACH, site=["m", "n", "m", "m", "m"])
    titles = [ax.get_title() for ax in drawn.modules(single).axes]
    assert titles == ["a, toy", "b, toy"]
    cells = pd.DataFrame(
        [
            {**dict.fromkeys(confusion.CELL, ""), **{c: r[c] for c in features.CELL}, "k": None,
             "chosen": r["val_score"] in (0.7, 0.9), "true": t, "predicted": p, "n": 3}
            for r in summary.to_dict("records") for t in "xy" for p in "xy"
        ]
    )  # fmt: skip
    titles = [ax.get_title() for ax in draw_confusion(cells).axes]
    assert [t.replace("\n", " ") for t in titles] == [
        "a, toy, c/stats, *, ridge", "b, toy, c/product, *, mlp",
    ]  # fmt: skip
    assert confusion.square(cells.head(4)).shape == (2, 2)
    assert set(figures.FIGURES) & set(shown.FEATURES) == set()
