"""What the report says of the SAEs behind the probes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from actprobe.base import keys
from actprobe.cache import store
from actprobe.report import figures
from actprobe.report import layout as shown
from actprobe.report.saes import about
from actprobe.results import layout, saes
from actprobe.results.make import Written
from actprobe.results.tables import tidy
from actprobe.sae.records import LatentArgs, LocalPlace

ROOT = {"results_dir": "r", "experiment": "e"}


def facts(dead, l0, explained, warnings=(), massive=0):
    return {
        "architecture": "topk", "live": 100 - dead, "dead": dead, "variance_explained": explained,
        "ordinary_explained": explained, "massive": massive, "sample": 50,
        "warnings": list(warnings),
        "l0": {"mean": l0, "min": 1, "median": l0, "max": 9},
    }  # fmt: skip


def entry(folder: Path, dataset: str, trained: str = "", **kept) -> dict[str, str]:
    path = folder / f"{dataset}.h5"
    if kept:
        store.write_h5(path, {"data": np.zeros(1)}, {"dataset": dataset}, kept)
        store.publish([path])
    place = {"model": "m", "site": "resid_post.4", "position": "mean"}
    more = {"trained": trained, "texts": str(folder / "gone.parquet"), "tests": []}
    return {"sae": "s", "dataset": dataset, **place, "latents": str(path), **more}


@pytest.fixture
def encoded(tmp_path):
    trained = tmp_path / "sae.h5"
    curve = [[512, 0.9, 0.8, 0, 0.85], [1024, 0.5, 0.4, 3, 0.45]]
    about = {"curve": curve, "rows": "all", "rows_used": 7, "rows_there": 9}
    store.write_h5(trained, {"w": np.zeros(1)}, {"sae": 1}, {"training": about})
    store.write_bad(tmp_path / "bad.h5", {"dataset": "bad"}, "row 3 is not finite")
    store.publish([trained, tmp_path / "bad.h5"])
    return [
        entry(tmp_path, "a", str(trained), **facts(20, 4.0, 0.8)),
        entry(tmp_path, "b", str(trained), **facts(40, 6.0, None, ["not sparse"])),
        entry(tmp_path, "gone", str(trained)),
        entry(tmp_path, "bad", str(trained)),
    ]


def test_each_sae_and_dataset_has_a_row(encoded):
    table = saes.codes_table(encoded).set_index("dataset")
    assert list(table.loc["a", ["n_latents", "l0_mean", "silent"]]) == [100, 4.0, 20]
    assert table.loc["a", "key"] == keys.short(keys.spec_key({"dataset": "a"}))
    assert math.isnan(table.loc["b", "variance_explained"])
    assert table["note"].to_dict() == {
        "a": "", "b": "not sparse", "gone": saes.GONE, "bad": "row 3 is not finite",
    }  # fmt: skip


def test_the_report_has_one_row_per_sae(encoded, tmp_path):
    saes.codes_table(encoded).to_csv(tmp_path / "saes.csv", index=False)
    [row] = about(pd.read_csv(tmp_path / "saes.csv")).rows
    assert row[:4] == ["s", "m, resid_post.4, mean", "100, topk", "2"]
    assert row[4:7] == ["5 (4 … 6)", "30% (20% … 40%)", "0.800"]
    assert "not sparse (1 dataset)" in row[7] and f"{saes.GONE} (1 dataset)" in row[7]


def test_massive_activations_are_told_with_what_they_make_of_the_number(tmp_path):
    """The number of the report is the one without them."""
    one = facts(20, 4.0, 0.997, massive=5) | {"ordinary_explained": 0.3}
    [row] = about(saes.codes_table([entry(tmp_path, "a", **one)])).rows
    assert row[6] == "0.300"
    assert row[7].startswith("10.0% of the rows of 1 dataset have a massive activation")
    assert row[7].endswith("with them it is 0.997")


def test_all_latents_are_gone(tmp_path):
    [row] = about(saes.codes_table([entry(tmp_path, "a"), entry(tmp_path, "b")])).rows
    assert row == ["s", *[""] * 6, f"{saes.GONE} (2 datasets)"]


def draw(curves, folder):
    found = Written(tidy(pd.DataFrame(columns=["experiment"])), {"sae_training": curves})
    figures.write(found, [], folder, ["sae_training"], 0.95)


def test_training_curves_are_a_table_and_a_figure(encoded, tmp_path):
    curves = saes.training_table(encoded)
    assert list(curves.columns) == [*saes.CURVE, *saes.TRAINED]
    assert curves[saes.CURVE].to_numpy().tolist() == [
        ["s", 512, 0.9, 0.8, 0, 0.85], ["s", 1024, 0.5, 0.4, 3, 0.45],
    ]  # fmt: skip
    assert curves[saes.TRAINED[:3]].to_numpy().tolist() == [["all", 7, 9]] * 2
    draw(curves, tmp_path / "one")
    draw(curves, tmp_path / "two")
    for name in ("sae_training.svg", "sae_training.png"):
        one, two = ((tmp_path / n / name).read_bytes() for n in ("one", "two"))
        assert one == two and len(one) > 5000
    assert saes.training_table([entry(tmp_path, "a", str(tmp_path / "deleted.h5"))]).empty
    draw(curves.iloc[:0], tmp_path / "none")


def test_only_latents_that_probes_read_are_told(tmp_path):
    args = LatentArgs(
        source="s", model="m", site="x", position="mean", activations="x.h5", extracted=True,
        sae=LocalPlace(path="f", format="saelens"),
    )  # fmt: skip
    read, other = (SimpleNamespace(args=args, item=d, inputs=()) for d in "ab")
    probe = {"matrix": "a.h5", "texts": "a.parquet", "protocol": "actprobe-1"}
    probe = SimpleNamespace(args=probe, spec={"setting": "normal"})
    targets = {"a.h5": read, "b.h5": other, "p": probe}
    stages = {"probes": ["p"], "latents": ["a.h5", "b.h5"]}
    found = layout.encoded(SimpleNamespace(targets=targets, paths=stages.get))
    assert [(e["dataset"], e["latents"], e["trained"]) for e in found] == [("a", "a.h5", "")]
    assert found[0]["texts"] == "a.parquet" and found[0]["tests"] == [["actprobe-1", "normal"]]


def test_tables_and_figure_come_with_saes():
    assert not set(layout.SAE_TABLES) & set(layout.outputs({**ROOT, "saes": {}}))
    config = {**ROOT, "saes": {"s": {"train": {"k": 4}}}}
    assert set(layout.SAE_TABLES) < set(layout.outputs(config))
    assert shown.TRAINING in shown.figures(config)
    assert shown.TRAINING not in shown.figures({"saes": {"s": {"train": None}}})
