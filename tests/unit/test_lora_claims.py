"""What the page claims: classes that can be probed, controls, outliers, the best of many, confusions."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import lora_tools as tools
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.lora import classes, controls
from actprobe.probes import protocol
from actprobe.probes.feature_targets import EACH
from actprobe.probes.intervals import wilson
from actprobe.probes.scaling import standardise
from actprobe.probes.search import search
from actprobe.results import confusion, features, seeds

RULE = {"kind": "stratified", "test": 0.2, "validation": 0.1, "seed": "per_run"}


def _rows(counts: dict[str, int], **more: str) -> list[dict[str, str]]:
    return [{"label": c, **more} for c, n in counts.items() for _ in range(n)]


@pytest.mark.parametrize(
    ("rows", "least", "problem"),
    [
        (_rows({"a": 20, "b": 20}), None, ""),
        (_rows({"a": 20, "b": 20, "c": 1}), None, "too few LoRAs of 'c' (1): a class needs 2"),
        (_rows({"a": 20, "b": 20, "c": 1}), 3, ""),
        (_rows({"a": 20, "b": 2}), 3, "all LoRAs have the label 'a'; two classes are needed"),
        (_rows({"a": 20, "": 9}), None, "all LoRAs have the label 'a'; two classes are needed"),
        (_rows({"a": 1, "b": 1}), 3, "no LoRA is left; two classes are needed (min_per_class: 3"),
        (_rows({"a": 2, "b": 2}), None, ""),
        (_rows({"a": 20, "b": 20}, group="g"), None, "too few groups of 'a' (1), 'b' (1)"),
        (_rows({"a": 20, "b": 20}, group=""), None, ""),
        (_rows({"a": 20, "b": 20}, split="train") + _rows({"a": 5}, split="test"), None, ""),
        (_rows({"a": 20}, split="train") + _rows({"b": 5}, split="test"), None,
         "too few training rows of 'b' (0): a class needs 2"),
        (_rows({"a": 20, "b": 1}, split="train") + _rows({"b": 5}, split="test")
         + _rows({"b": 5}, split="validation"), None, ""),
        (_rows({"a": 20, "b": 1}, split="train") + _rows({"b": 5}, split="test"), None,
         "too few training rows of 'b' (1): a class needs 2"),
    ],
)  # fmt: skip
def test_c12_classes_that_cannot_be_split_are_named(rows, least, problem) -> None:
    found = classes.problem(rows, least, RULE)
    assert found.startswith(problem) if problem else not found


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [
        (_rows({"a": 20, "b": 20}), ""),
        (_rows({"a": 6, "b": 6}), "12 LoRAs of 2 classes are too few to put 20% and 10% of them"),
        (
            _rows({"a": 30, "b": 2}),
            "there are so few LoRAs of 'b' (2) that not every split can train",
        ),
        (_rows({"a": 30}, group="g") + _rows({"b": 30}, group="h"), "2 groups are too few"),
        (_rows({"a": 6, "b": 6}, split="train"), ""),
    ],
)
def test_c12_collections_that_may_be_too_small_are_told(rows, doubt) -> None:
    found = classes.doubt(rows, None, RULE)
    assert found.startswith(doubt) if doubt else not found


def test_c12_random_splits_know_no_groups_and_may_miss_a_class() -> None:
    rule = {**RULE, "kind": "random"}
    rows = _rows({"a": 9}, group="g") + _rows({"b": 1}, group="h")
    assert not classes.problem(rows, None, rule)
    assert "so few LoRAs of 'b' (1)" in classes.doubt(rows, None, rule)
    assert not classes.doubt(_rows({"a": 5, "b": 5}, group="g"), None, rule)


def test_c12_a_class_of_one_is_named_in_the_plan_and_left_out_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["cat"] * 12 + ["dog"] * 12 + ["emu"]
    for i in range(len(labels)):
        tools.write_lora(tmp_path / "f" / f"l{i}.safetensors", i)
    table = "".join(f"l{i},{c}\n" for i, c in enumerate(labels))
    (tmp_path / "l.csv").write_text(f"id,label\n{table}")
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv"),
                   "representations": ["stats"]}}  # fmt: skip
    entry = {"sources": ["c/*"], "methods": ["ridge"]}
    with pytest.raises(
        ConfigError, match=r"probes\[0\]: c: .*'emu' \(1\).*`min_per_class: 2` \(or more\)"
    ):
        tools.planned(tools.resolved(tmp_path, loras, [entry]))
    cfg = tools.resolved(tmp_path, loras, [{**entry, "min_per_class": 3}])
    made = tools.run(cfg)
    assert any("1 classes of c with fewer than 3 LoRAs" in m for m in caplog.messages)
    rows = tools.rows_of(made, "c/stats")
    assert all(json.loads(r["classes"]) == ["cat", "dog"] and not r["reason"] for r in rows)

    for i in range(12, 23):  # dogs that turn out to be no LoRAs leave one
        (tmp_path / "f" / f"l{i}.safetensors").write_bytes(b"nothing")
    cfg = tools.resolved(tmp_path, loras, [entry])
    (tmp_path / "l.csv").write_text(f"id,label\n{table.replace('l24,emu', 'l24,')}")
    caplog.clear()
    made = tools.planned(cfg)
    for batch in made.of("lora_index"):
        tools.RUN["lora_index"](batch, cfg, 1)
    said = "of the LoRAs of c that can be used, too few LoRAs of 'dog' (1)"
    assert any(m.startswith(f"probes[0]: {said}") for m in caplog.messages)
    with pytest.raises(
        ActprobeError, match=r"of the LoRAs that can be used, too few .*'dog' \(1\)"
    ):
        tools.run(cfg)


def test_label_tables_with_odd_lines_are_refused_by_line(tmp_path: Path) -> None:
    for i in range(3):
        tools.write_lora(tmp_path / "f" / f"l{i}.safetensors", i)
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv")}}
    for text, reason in (
        ('id,label\nl0,"cat\nl1,dog\n', "line 3: unexpected end of data"),
        ('id,label\n"l0,cat\nl1,"dog\n', r"line 3: ',' expected"),
        ("id,label\nl0,cat\nl1,dog, big\n", "line 3 has 3 cells, the first line 2"),
        ("id,label\nl0\n", "line 2 has 1 cells"),
        ("id,label,label\nl0,cat,dog\n", "has 2 column 'label'"),
        ("", "has no column 'id'; it has nothing"),
    ):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(ConfigError, match=reason):
            tools.planned(tools.resolved(tmp_path, loras, [{"sources": ["c/*"]}]))


def test_c13_a_thousand_classes_take_memory_by_test_rows(tmp_path: Path) -> None:
    """45 cells of a thousand classes had 45 million pairs of classes; 900 are tested."""
    rng = np.random.default_rng(0)
    y = np.arange(10_000) % 1000
    runs = tools.probed(rng.normal(size=(10_000, 3)), y, seeds=1)
    assert len(json.loads(runs["confusion"][0])) <= runs["n_test"][0] == 2000
    many = pd.concat([runs.assign(source=f"toy/s{i}") for i in range(45)], ignore_index=True)
    tracemalloc.start()
    table = confusion.confusions(many)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert table.groupby("source")["n"].sum().tolist() == [2000] * 45 and (table["n"] > 0).all()
    cells = table[table["source"] == "toy/s0"].drop(columns=features.CELL)
    counts = confusion.square(cells)
    assert counts.shape[0] == counts.shape[1] <= 1000 and counts.to_numpy().sum() == 2000


@pytest.mark.parametrize("label", ["ranks", "exclusive or"])
def test_d6_the_recipe_control_is_as_strong_as_a_tree(tmp_path: Path, label: str) -> None:
    """Neither label is linear in the numbers of the recipe; ranks 1 and 4 against 2 and 8 gave 0.45."""
    rng = np.random.default_rng(0)
    said = ["id,label"]
    for i in range(80):
        rank, scale = int(rng.choice([1, 2, 4, 8])), float(rng.choice([1, 2]))
        stem = f"unet.{tools.BLOCK}.attn1.to_q"
        tools.write_lora(tmp_path / "f" / f"l{i}.safetensors", i, rank, 1,
                         **{f"{stem}.alpha": np.array(rank * scale, "f4")})  # fmt: skip
        first = rank in (1, 4)
        said.append(f"l{i},{first if label == 'ranks' else first != (scale == 1)}")
    (tmp_path / "l.csv").write_text("\n".join(said))
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv"),
                   "representations": ["stats"]}}  # fmt: skip
    entry = {"sources": ["c/*"], "methods": ["ridge"]}
    made = tools.run(tools.resolved(tmp_path, loras, [entry]))
    summary = features.summarise(tools.runs(made))
    recipe = summary[summary["source"] == "c/recipe_only"].set_index("method")["test_acc"]
    assert recipe["ridge"] > 0.9 and recipe["tree"] > 0.9
    assert set(summary["recipe_only"]) == {recipe.max()}, "of every method, the best is reported"


def test_d6_joint_cells_leave_out_what_is_ignored(tmp_path: Path) -> None:
    x, names = controls._encoded(["a", None, 3, "a"])
    assert names == ["=3", "=None", "=a"] and x.tolist() == [
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
    ]
    x, names = controls._encoded([4, None, 1, 4])
    assert names == ["", "=1.0", "=4.0", "=None"] and x[:, 0].tolist() == [4, 0, 1, 4]
    x, names = controls._encoded([*range(100), None])
    assert names == ["", "=None"], "too many values for a column each"
    a, b = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 0, 1, 0, 1])
    cells = controls.joint(np.column_stack([a, b, np.arange(8) * 0.3]).astype("f4"))
    assert sorted(cells.sum(axis=0)) == [2, 2, 2, 2] and (cells.sum(axis=1) == 1).all()


def test_a_tree_fits_what_no_line_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (300, 3)).astype("f4")
    y = np.isin(x[:, 0], (0, 2)).astype(int)
    how = {**protocol.load("lora-1")["methods"]["tree"], "depth": [1, 2, 4, 8]}
    fitted = search(tools.task(x, y, how, 200))
    assert (fitted.predicted == y[200:]).all() and fitted.params["max_depth"] == 4


def test_d14_one_lora_that_is_far_too_large_spoils_no_scale_and_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(320) % 2
    x = np.exp(rng.normal(size=(320, 6)) + 0.5 * y[:, None])
    plain = tools.probed(x, y)
    x[17] *= 1e20
    spoiled = tools.probed(x, y)
    assert spoiled["test_acc"].mean() == pytest.approx(plain["test_acc"].mean(), abs=0.03)
    assert set(spoiled["outliers"]) == {'["l17"]'} and set(plain["outliers"]) == {"[]"}
    assert features.summarise(spoiled)["outliers"].item() == "l17"


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_d14_a_lora_times_1e20_through_all_stages(tmp_path: Path) -> None:
    for i in range(60):
        path = tools.write_lora(tmp_path / "f" / f"l{i}.safetensors", i)
        size = np.float32(1.0 + i % 2) * np.float32(1e20 if i == 7 else 1)
        save_file({k: v * size if ".up." in k else v for k, v in load_file(path).items()}, path)
    said = "".join(f"l{i},{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "l.csv").write_text(f"id,label\n{said}")
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv"),
                   "representations": ["singular_values"]}}  # fmt: skip
    entry = {"sources": ["c/*"], "methods": ["ridge"]}
    made = tools.run(tools.resolved(tmp_path, loras, [entry]))
    rows = tools.rows_of(made, "c/norm_only")
    assert np.mean([r["test_acc"] for r in rows]) > 0.85
    assert {r["outliers"] for r in rows} == {'["l7"]'}


def test_scaling_cuts_single_rows_and_no_population() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype("f4")
    x[:40, 1] *= 1e4  # a tenth of the rows is a population
    x[5, 0] = -1e9
    x[:, 2] = 0
    x[9, 2] = 1e9  # where all others agree there is no range
    z, mask = x.copy(), np.ones((400, 1), bool)
    cut = standardise(z, mask, np.zeros(3, int), np.arange(300), 1e-6).cut
    assert np.flatnonzero(cut).tolist() == [5] and cut[5] == pytest.approx(1 / 3)
    assert -15 < z[5, 0] < -8
    expected = (x[:, 1] - x[:300, 1].mean()) / x[:300, 1].std()
    np.testing.assert_allclose(z[:, 1], expected, rtol=1e-3, atol=1e-5)
    nowhere = x.copy()
    standardise(nowhere, np.zeros((400, 1), bool), np.zeros(3, int), np.arange(300), 1e-6)
    assert not nowhere.any(), "no row has the module"


def test_d13_each_run_chooses_by_its_own_validation_rows() -> None:
    """The best cell by mean validation is the one whose rows the other runs test."""
    rows = [
        ("x", 0, 0.9, 0.1), ("x", 1, 0.5, 0.7), ("y", 0, 0.6, 0.3), ("y", 1, 0.8, 0.4),
        ("z", 1, 0.8, 0.9), ("z", 0, None, None),
    ]  # fmt: skip
    runs = pd.DataFrame(rows, columns=["source", "seed", "val_score", "test_score"])
    best = seeds.chosen(runs.assign(setting="p"), ["setting"])
    assert best["source"].tolist() == ["x", "y"] and best["test_score"].mean() == pytest.approx(
        0.25
    )


def test_d13_choices_tell_what_was_chosen_and_what_that_reaches() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    signal = rng.normal(size=(200, 4)) + 3 * y[:, None]
    runs = pd.concat(
        [tools.probed(signal, y).assign(source="c/stats"),
         *(tools.probed(rng.normal(size=(200, 4)), y).assign(source=s)
           for s in ("c/spectral", "c/norm_only")),
         *(tools.probed(rng.normal(size=(200, 4)), y, m).assign(source="c/recipe_only")
           for m in ("ridge", "tree"))], ignore_index=True
    )  # fmt: skip
    (row,) = features.choices(runs).to_dict("records")
    assert row["most"] == "c/stats, *, ridge" and row["of_runs"] == 5 and row["among"] == 2
    assert row["ci_low"] > 0.9 and row["norm_only"] < 0.7 and row["recipe_only"] < 0.7


def test_d13_intervals_of_single_modules_hold_for_all_of_them() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(120) % 2
    runs = pd.concat(
        [tools.probed(rng.normal(size=(120, 4)), y).assign(columns=EACH, site=f"m{m}")
         for m in range(24)], ignore_index=True
    )  # fmt: skip
    table = features.summarise(runs)
    assert (table["looks"] == 24).all() and not (table["ci_low"] > 0.5).any()
    one = table.iloc[0]
    wide = wilson(one["test_acc"], int(one["n_test"]), 1 - 0.05 / 24)
    assert (one["ci_low"], one["ci_high"]) == pytest.approx(wide)
