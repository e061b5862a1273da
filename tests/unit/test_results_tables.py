"""The tidy table: collected from artefacts, checked, summarised and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from results_rows import fake_rows

from actprobe import results
from actprobe.base import keys
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.config import section
from actprobe.probes import batch, columns
from actprobe.probes.metrics import all_metrics
from actprobe.results import layout, tables


def artefact(folder: Path, rows: pd.DataFrame, bad: str | None = None) -> Path:
    """A published probe artefact with these rows of one (source, dataset, method)."""
    first = rows.iloc[0]
    spec = {c: first[c] for c in ("protocol", "setting", "method", "dataset", "source")}
    name = f"{first['dataset']}.{first['method']}.{keys.short(keys.spec_key(spec))}.parquet"
    path = folder / "probes" / first["protocol"] / first["setting"] / first["source"] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    typed = {c: t for c, t in columns.types().items() if c != "experiment"}
    schema = pa.schema([(c, tables._ARROW[t]) for c, t in typed.items()])
    table = pa.Table.from_pandas(
        rows.reindex(columns=list(typed)), schema=schema, preserve_index=False
    )
    part = store.write_table(path, table.slice(0, 0) if bad else table, spec, bad=bad)
    store.publish([path], [part])
    return path


def config_for(folder: Path) -> dict:
    return {
        "results_dir": str(folder),
        "experiment": "e",
        "results": {"confidence": 0.95, "confusion": "multiclass"},
    }


def tidy_rows(**changes: object) -> pd.DataFrame:
    return results.tidy(fake_rows(3, 4).assign(experiment="e", **changes))


def test_collect_joins_artefacts_and_lists_tombstones(tmp_path: Path) -> None:
    groups = fake_rows(3, 4).groupby(["source", "dataset", "method"])
    paths = [artefact(tmp_path, rows) for _, rows in groups]
    reason = "bad.csv: one class only (label 1), expected two"
    lost = fake_rows(1, 1).assign(dataset="9_bad set.v2")
    paths.append(artefact(tmp_path, lost, bad=reason))

    table, skipped = results.collect(reversed(paths), "quickstart")

    assert list(table.columns) == list(columns.types())
    assert len(table) == 3 * (4 + 4)
    assert set(table["experiment"]) == {"quickstart"}
    assert table["dataset"].unique().tolist() == [
        "5_hist_fig_ismale",
        "66_living-room",
        "87_glue_cola",
    ]
    assert skipped.pop("fits").isna().all()
    assert skipped.to_dict("records") == [
        {
            "dataset": "9_bad set.v2",
            "label": "",
            "protocol": "saeprobes-0.4.2",
            "setting": "normal",
            "source": "minilm/resid_post.0.mean",
            "method": "logreg",
            "reason": reason,
        }
    ]


def test_d15_fits_without_a_number_are_skipped_rows_with_their_reason(tmp_path: Path) -> None:
    table = tidy_rows(setting="scarcity", condition="64")
    few = tidy_rows(setting="scarcity", condition="1024")
    table.loc[0, ["test_score", "val_score"]], table.loc[0, "reason"] = np.nan, "one class"
    few[["test_score", "val_score"]], few["reason"] = np.nan, "needs 1024 train rows"
    both = results.tidy(pd.concat([table, few]))
    tombstone = pd.DataFrame(
        [["x", "", "p", "s", "a", "knn", "bad file", None]], columns=tables.SKIPPED
    )
    results.write_tables(config_for(tmp_path), both, tombstone, tables.dataset_table([]))
    rows = pd.read_csv(tmp_path / "e/tables/skipped.csv")
    assert rows["fits"].sum() == both["test_score"].isna().sum() == 1 + len(few)
    reasons = rows.groupby("reason")["fits"].agg(["size", "sum"]).T.to_dict()
    assert reasons["one class"] == {"size": 1, "sum": 1}
    assert reasons["bad file"] == {"size": 1, "sum": 0}
    assert reasons["needs 1024 train rows"]["size"] == len(few)


def test_a_tombstone_of_one_versus_rest_tasks_names_its_dataset(tmp_path: Path) -> None:
    spec = {"protocol": "p", "setting": "normal", "method": "knn", "labels": "one_vs_rest"}
    name = f"a.b.one_vs_rest.knn.{keys.short(keys.spec_key(spec))}.parquet"
    path = tmp_path / "probes/p/normal/m/resid_post.3.mean" / name
    path.parent.mkdir(parents=True)
    store.publish([path], [store.write_table(path, pa.table({}), spec, bad="too few rows")])
    [row] = results.collect([path], "e")[1].to_dict("records")
    assert (row["dataset"], row["label"], row["source"]) == ("a.b", "", "m/resid_post.3.mean")


def test_nothing_but_tombstones_still_gives_tables(tmp_path: Path) -> None:
    path = artefact(tmp_path, fake_rows(1, 1), bad="empty file")
    table, skipped = results.collect([path], "e")
    results.write_tables(config_for(tmp_path), table, skipped, tables.dataset_table([]))
    assert len(table) == 0 and len(skipped) == 1
    assert (tmp_path / "e/tables/summary.csv").read_text().startswith("experiment,protocol,")


def test_rows_are_sorted_as_a_reader_counts() -> None:
    rows = pd.concat([fake_rows(5, 12), fake_rows(5, 12).assign(setting="scarcity", condition="4")])
    table = results.tidy(rows.sample(frac=1, random_state=0).assign(experiment="e"))
    assert table["source"].unique().tolist() == [f"minilm/resid_post.{i}.mean" for i in range(12)]
    at_3 = table[(table["site"] == "resid_post.3") & (table["dataset"] == "87_glue_cola")]
    assert at_3["method"].tolist() == ["logreg", "pca", "knn", "xgboost", "mlp"] * 2
    assert sorted(["0.5", "0.05", "10", "9"], key=tables.natural) == ["0.05", "0.5", "9", "10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_score": 1.2},
            r"test_score must lie in \[0, 1\].*5_hist_fig_ismale.*test_score=1.2",
        ),
        ({"test_score": np.nan}, "no test_score and no reason"),
        ({"dataset": ""}, "dataset must not be empty"),
        ({"dataset": "one", "site": "x", "source": "y"}, "two rows for one fit"),
        ({"n_train": "many"}, "column n_train is not Int64"),
    ],
)
def test_wrong_rows_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ActprobeError, match=message):
        tidy_rows(**changes)


def test_an_artefact_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"probes/p/normal/s/d.logreg.{keys.short(keys.spec_key({}))}.parquet"
    part = store.write_table(path, pa.table({"dataset": ["d"]}), {})
    store.publish([path], [part])
    with pytest.raises(ActprobeError, match=r"d\.logreg.*no column protocol, setting"):
        results.collect([path], "e")


def test_one_list_of_columns_is_that_of_rows_artefacts_and_tables() -> None:
    metrics = {m.column for m in all_metrics().values()}
    assert {"test_auc", "test_r2", "test_balanced_acc"} <= metrics
    table = [c for c in tidy_rows().columns if c not in metrics]
    assert table == [*columns.NAMED]
    assert set(batch.columns().names) == {*table, *metrics} - {"experiment"}
    assert set(columns.EMPTY) < set(table)
    assert all(c.what.endswith(".") for c in columns.NAMED.values())


def test_the_config_has_defaults_that_the_library_shares() -> None:
    assert section("results", {}).confidence == tables.CONFIDENCE


def test_summary_is_the_mean_over_datasets_after_seeds() -> None:
    table = tidy_rows()
    other = table.assign(seed=43, test_score=table["test_score"] - 0.1)
    both = results.tidy(pd.concat([table, other]))
    first = results.summarise(both).iloc[0]
    mine = table[(table["site"] == "resid_post.0")]
    assert (first["site"], first["method"], first["n_datasets"]) == ("resid_post.0", "logreg", 3)
    assert first["test_score"] == pytest.approx(mine["test_score"].mean() - 0.05)
    assert first["ci_low"] < first["test_score"] < first["ci_high"]


def test_summary_counts_rows_without_numbers_and_unconverged_fits() -> None:
    rows = fake_rows(3, 1).assign(experiment="e", converged=[False, True, None])
    rows.loc[0, ["test_score", "val_score"]] = np.nan
    rows.loc[0, "reason"] = "one class in the test rows"
    summary = results.summarise(results.tidy(rows))
    assert summary[["n_datasets", "n_without", "n_unconverged"]].iloc[0].tolist() == [2, 1, 1]


def test_written_tables_are_equal_byte_for_byte_and_read_back_exactly(tmp_path: Path) -> None:
    table = tidy_rows()
    table["mine_other"] = table["test_score"].where(table.index > 3)
    datasets = tables.dataset_table(
        [{"dataset": "5_hist_fig_ismale", "n": 17, "classes": {"no": 9, "yes": 8}, "bad": None}]
    )
    skipped = pd.DataFrame(columns=tables.SKIPPED)
    for out, order in (("a", table), ("b", results.tidy(table.sample(frac=1, random_state=1)))):
        results.write_tables(config_for(tmp_path / out), order, skipped, datasets)
    for name in layout.TABLES.values():
        assert (tmp_path / "a/e" / name).read_bytes() == (tmp_path / "b/e" / name).read_bytes(), (
            name
        )
    for name in ("probes_csv", "probes"):
        back = results.read_probes(tmp_path / "a/e" / layout.TABLES[name])
        pd.testing.assert_frame_equal(back, table)
    assert (
        "5_hist_fig_ismale,17,,,,no (9) | yes (8),,,,,,,,{}"
        in (tmp_path / "a/e/tables/datasets.csv").read_text()
    )
