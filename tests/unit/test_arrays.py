"""Arrays: features from files land in the rows of a dataset, or are refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import contrastive_inputs as inputs
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from configs import edited
from safetensors.numpy import save_file

from actprobe import arrays
from actprobe.arrays.run import run as run_batch
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import plan, store
from actprobe.experiment import costs, shapes
from actprobe.experiment import targets as experiment
from actprobe.models import load_activations, open_activations

N = 12
IDS = [f"t{i}" for i in range(N)]
X = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
SHUFFLED = np.random.default_rng(1).permutation(N)


def write_dataset(folder: Path, name: str = "d", ids: list[str] = IDS) -> dict[str, Any]:
    """A dataset with ids; its entry."""
    rows = [{"id": v, "text": f"{name} text {v}", "label": i % 2} for i, v in enumerate(ids)]
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return {"name": name, "path": str(folder / f"{name}.csv"), "id": "id"}


def setup(folder: Path, file: str, datasets: list[dict] | None = None, /, **entry: Any):
    """A config with the source `own`, and its texts."""
    made = datasets or [write_dataset(folder)]
    own = {"path": str(folder / file), **entry}
    config = inputs.resolve(folder, made, arrays={"own": own})
    return config, inputs.make_texts(config)


def targets(config: dict[str, Any], texts: list[plan.Target], **known: Any) -> list[plan.Target]:
    memo = keys.DigestMemo(config["cache_dir"])
    return arrays.targets(config, {"texts": texts, **known}, memo)


def make(folder: Path, file: str, datasets: list[dict] | None = None, /, **entry: Any):
    """Make the arrays of a config; returns their targets."""
    config, texts = setup(folder, file, datasets, **entry)
    found = targets(config, texts)
    for batch in plan.make(config, found, [t.path for t in found]).batches:
        run_batch(batch, config, 1)
    return found


def frame(order: Any = slice(None), **more: Any) -> pd.DataFrame:
    table = pd.DataFrame(X, columns=["f_0", "f_1", "f_2"]).assign(name=IDS, **more)
    return table.iloc[order if not isinstance(order, slice) else range(N)]


def save(folder: Path, kind: str, order: np.ndarray) -> tuple[str, dict[str, Any]]:
    """A file of this kind with ids in this order, and the options that read it."""
    table, path = frame(order), folder / f"x.{kind}"
    ids = [IDS[i] for i in order]
    match kind:
        case "csv":
            table.to_csv(path, index=False)
        case "tsv":
            table.to_csv(path, index=False, sep="\t")
        case "parquet":
            table.to_parquet(path, row_group_size=5)
        case "npz":
            np.savez_compressed(path, x=X[order], name=np.array(ids))
        case "safetensors":
            save_file({"x": X[order]}, path, {"name": json.dumps(ids)})
    return path.name, {"id": "name"}


KINDS = ["csv", "tsv", "parquet", "npz", "safetensors"]


@pytest.mark.parametrize("order", [np.arange(N), SHUFFLED], ids=["in order", "shuffled"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_matched_by_id(tmp_path, kind, order):
    file, options = save(tmp_path, kind, order)
    (t,) = make(tmp_path, file, **options)
    np.testing.assert_array_equal(load_activations(t.path), X)
    with open_activations(t.path) as a:
        assert a.x.dtype == np.float32 and a.offsets is None and a.n_tokens.tolist() == [-1] * N
    facts = store.verify(t.path)["facts"]
    named = ["f_0", "f_1", "f_2"] if kind in ("csv", "tsv", "parquet") else None
    assert facts["columns"] == named and facts["n_extra"] == 0
    assert [t.args[k] for k in ("source", "model", "site", "position")] == ["own", "own", "", ""]
    assert t.path.startswith(str(tmp_path / "cache/arrays/own/d."))


@pytest.mark.parametrize("x", [X, X.astype(np.float64), X.astype(np.float16), X[:, 0]])
def test_an_npy_file_is_in_the_datasets_order(tmp_path, x):
    np.save(tmp_path / "d.npy", x)
    (t,) = make(tmp_path, "{dataset}.npy")
    np.testing.assert_array_equal(load_activations(t.path), x.reshape(N, -1).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_ids_are_in_the_datasets_order(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind in ("csv", "tsv"):
        frame().to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "parquet":
        frame().to_parquet(path)
    elif kind == "npz":
        np.savez(path, x=X)
    else:
        save_file({"x": X}, path)
    (t,) = make(tmp_path, path.name)
    np.testing.assert_array_equal(load_activations(t.path), X)
    if kind in ("csv", "tsv", "parquet"):
        assert store.read_header(t.path)["facts"]["left_out"] == ["name"]


def test_ids_that_are_whole_numbers(tmp_path):
    made = [write_dataset(tmp_path, ids=[str(i) for i in range(100, 100 + N)])]
    ids = 100 + SHUFFLED
    save_file({"x": X[SHUFFLED], "key": ids}, tmp_path / "x.safetensors")
    pd.DataFrame(X[SHUFFLED]).rename(columns=str).assign(key=ids).to_parquet(tmp_path / "x.parquet")
    for file in ("x.safetensors", "x.parquet"):
        (t,) = make(tmp_path, file, made, id="key")
        np.testing.assert_array_equal(load_activations(t.path), X)


def test_one_file_for_several_datasets_and_rows_of_none(tmp_path, caplog):
    caplog.set_level("INFO")
    other = [f"u{i}" for i in range(5)]
    made = [write_dataset(tmp_path), write_dataset(tmp_path, "e", other)]
    x = np.concatenate([X, X[:5] + 1, X[:2] * np.nan])  # what no dataset has may be anything
    np.savez(tmp_path / "x.npz", x=x, key=np.array([*IDS, *other, "v0", "v1"]))
    found = {t.item: load_activations(t.path) for t in make(tmp_path, "x.npz", made, id="key")}
    np.testing.assert_array_equal(found["d"], X)
    np.testing.assert_array_equal(found["e"], X[:5] + 1)
    assert "7 rows of ids that dataset d does not have" in caplog.text


def test_lists_of_numbers_are_features(tmp_path):
    lists = pa.array(X.tolist(), pa.list_(pa.float32()))
    fixed = pa.array(X.tolist(), pa.list_(pa.float32(), 3))
    table = pa.table({"name": IDS, "a": lists, "n": pa.array(range(N)), "b": fixed})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=5)
    (t,) = make(tmp_path, "x.parquet", id="name")
    expected = np.concatenate([X, np.arange(N)[:, None], X], axis=1)
    np.testing.assert_array_equal(load_activations(t.path), expected)
    assert store.read_header(t.path)["facts"]["columns"][:4] == ["a[0]", "a[1]", "a[2]", "n"]


def test_columns_are_chosen_by_name_or_pattern_in_the_files_order(tmp_path):
    frame(g=1, label=list(range(N))).to_csv(tmp_path / "x.csv", index=False)
    (t,) = make(tmp_path, "x.csv", id="name", columns=["label", "f_[02]"])
    expected = np.stack([X[:, 0], X[:, 2], np.arange(N)], axis=1)
    np.testing.assert_array_equal(load_activations(t.path), expected)
    assert store.read_header(t.path)["facts"]["columns"] == ["f_0", "f_2", "label"]


BOOLS = [i % 3 == 0 for i in range(N)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_booleans_and_whole_numbers_are_exact(tmp_path, kind):
    whole = [2**24 - i if i % 2 else 2**40 * i for i in range(N)]
    table = pd.DataFrame({"a": BOOLS, "b": whole})
    getattr(table, f"to_{kind}")(tmp_path / f"x.{kind}", index=False)
    (t,) = make(tmp_path, f"x.{kind}")
    np.testing.assert_array_equal(load_activations(t.path), np.stack([BOOLS, whole], axis=1))


def numbers(bad: Any, row: int = 5) -> pd.DataFrame:
    column: list[Any] = [0.5] * N
    column[row] = bad
    return pd.DataFrame({"a": range(N), "b": column})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("", r"column 'b' is empty; expected a finite number"),
        ("n/a", r"column 'b' holds 'n/a'; expected a finite number"),
        ("nan", r"column 'b' holds 'nan'; expected a finite number"),
        ("inf", r"column 'b' holds inf; expected a finite number"),
        ("1e39", r"column 'b' holds 1e\+39; expected a finite number within float32"),
        ("1_0", r"column 'b' holds '1_0'; expected a finite number"),
        ("16777217", r"column 'b' holds '16777217'; expected a whole number that float32 holds"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path, bad, said):
    numbers(bad).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ActprobeError, match=rf"x.csv: row 5 \(counted from 0\), {said}"):
        make(tmp_path, "x.csv")


def test_the_count_of_what_cannot_be_used_is_told(tmp_path):
    x = X.copy()
    x[3:6, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ActprobeError, match=r"row 3 .*column 1 holds nan.*\(3 such values\)"):
        make(tmp_path, "x.npy")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([0.5] * 5 + [None] * 7, r"row 5 .*column 'b' is missing.*\(7 such values\)"),
        ([1] * 5 + [None] * 7, r"row 5 .*column 'b' is missing.*\(7 such values\)"),
        ([2**24 + 1] * N, r"row 0 .*column 'b' holds 16777217; expected a whole number"),
        ([1e39] * N, r"row 0 .*column 'b' holds 1e\+39; expected a finite number"),
        ([[1.0, 2.0]] * 4 + [[1.0]] * 8, r"row 4 .*'b' has 1 numbers, the first row has 2"),
        ([[1.0, 2.0]] * 4 + [None] * 8, r"row 4 .*'b' is missing, the first row has 2"),
        ([[1.0, None]] * N, r"row 0 .*column 'b\[1\]' is missing"),
    ],
)
def test_what_parquet_cannot_give_is_named(tmp_path, column, said):
    pq.write_table(pa.table({"a": range(N), "b": column}), tmp_path / "x.parquet")
    with pytest.raises(ActprobeError, match=said):
        make(tmp_path, "x.parquet")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((N, 2), 2**24 + 1), "holds 16777217; expected a whole number"),
        (np.full((N, 2), -(2**63)), None),
        (np.full((N, 2), 2**64 - 1, np.uint64), "holds 18446744073709551615"),
        (np.ones((N, 2), bool), None),
        (np.full((N, 2), np.inf, np.float16), "holds inf"),
    ],
)
def test_numbers_of_each_dtype_are_exact_or_refused(tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    if said is None:
        (t,) = make(tmp_path, "x.npy")
        np.testing.assert_array_equal(load_activations(t.path), array.astype(np.float64))
    else:
        with pytest.raises(ActprobeError, match=said):
            make(tmp_path, "x.npy")


def test_a_column_of_text_that_begins_with_an_empty_cell_is_left_out(tmp_path):
    frame(note=["", *"abcdefghijk"]).to_csv(tmp_path / "x.csv", index=False)
    (t,) = make(tmp_path, "x.csv", id="name")
    assert store.read_header(t.path)["facts"]["left_out"] == ["note"]


def test_features_stand_beside_the_texts_of_a_dataset(tmp_path):
    made = [write_dataset(tmp_path)]
    table = pd.read_csv(tmp_path / "d.csv").assign(f=X[:, 0])
    table.loc[5, "text"] = "12"
    table.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(ActprobeError, match="column 'label' would be a feature"):
        make(tmp_path, "d.csv", made, id="id")
    table["label"] = ["yes", "no"] * (N // 2)
    table.to_csv(tmp_path / "d.csv", index=False)
    (t,) = make(tmp_path, "d.csv", made, id="id")
    np.testing.assert_array_equal(load_activations(t.path), X[:, :1])


def test_a_column_of_text_and_numbers_is_refused(tmp_path):
    numbers("n/a", row=0).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ActprobeError, match=r"column 'b' holds 'n/a' \(line 2, a number in 3\)"):
        make(tmp_path, "x.csv")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (frame(), {"columns": ["f_*", "name"]}, "column 'name'"),
        (frame(), {"columns": ["g_*"]}, r"no column matches 'g_\*' \(config key `columns`\)"),
        (frame(), {"id": "nam"}, r"no column 'nam' \(config key `id`\).*did you mean 'name'"),
        (frame(label=1), {"id": "name"}, "column 'label' would be a feature"),
        (frame(label=1), {"columns": ["*l*"]}, "column 'label' would be a feature"),
        (frame(id=range(N)), {}, "column 'id' says whose its rows are; write `id: id` to match"),
        (frame(id=IDS), {"columns": ["f_*"]}, "column 'id' says whose its rows are"),
        (frame()[["name"]], {}, "no column of numbers among 'name'; expected at least one feature"),
        (frame().iloc[:0], {}, "no rows|no column of numbers"),
        (frame(range(11)), {}, "11 rows, but dataset d has 12.*ids to match them by"),
        (frame(range(11)), {"id": "name"}, "no row for 1 of 12 ids of dataset d, first 't11'"),
        (frame([*range(N), 3]), {"id": "name"}, "row 12 .*: the id 't3' is also that of row 3"),
        (frame().replace("t4", ""), {"id": "name"}, "row 4 .*the id is missing"),
    ],
)  # fmt: skip
def test_tables_are_refused_by_name(tmp_path, kind, table, options, said):
    getattr(table, f"to_{kind}")(tmp_path / f"x.{kind}", index=False)
    with pytest.raises(ActprobeError, match=rf"x\.{kind}.*({said})"):
        make(tmp_path, f"x.{kind}", **options)


def test_row_labels_of_pandas_are_no_features(tmp_path):
    table = frame(SHUFFLED)
    table.to_csv(tmp_path / "x.csv")
    table.to_parquet(tmp_path / "x.parquet")
    table.rename_axis("row").to_parquet(tmp_path / "y.parquet")
    for file, name in (("x.csv", ""), ("x.parquet", "__index_level_0__"), ("y.parquet", "row")):
        (t,) = make(tmp_path, file, id="name")
        np.testing.assert_array_equal(load_activations(t.path), X)
        assert store.read_header(t.path)["facts"]["left_out"] == [name]
        (t,) = make(tmp_path, file, id="name", columns=["f_0", name])
        at = store.read_header(t.path)["facts"]["columns"].index(name)
        np.testing.assert_array_equal(load_activations(t.path)[:, at], np.arange(N))


def test_a_column_of_ids_is_let_be_where_a_dataset_has_none(tmp_path):
    frame(id=IDS).to_csv(tmp_path / "x.csv", index=False)
    made = [{**write_dataset(tmp_path), "id": None}]
    (t,) = make(tmp_path, "x.csv", made, columns=["f_*"])
    np.testing.assert_array_equal(load_activations(t.path), X)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,a\n" + "1,2\n" * N)
    with pytest.raises(ActprobeError, match="columns 1 and 2 are both called 'a'"):
        make(tmp_path, "x.csv")


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"x": X, "ids": np.array(IDS)}, {}, "'ids' says whose its rows are; write `id: ids`"),
        ({"x": X, "y": X}, {}, "expected one array .rows, features., or its name as `array`"),
        ({"x": X, "y": X}, {"array": "z"}, r"no array 'z' \(config key `array`\)"),
        ({"x": X[:, None]}, {}, r"has the shape \(12, 1, 3\)"),
        ({"x": X[:, :0]}, {}, r"has the shape \(12, 0\)"),
        ({"x": X}, {"id": "key"}, r"no ids 'key' \(config key `id`\).*np.array\(ids, dtype=str\)"),
        ({"x": X, "key": X[:, 0]}, {"id": "key"}, "no ids 'key'"),
        ({"x": X, "key": np.array(IDS, object)}, {"id": "key"}, "no ids 'key'"),
        ({"x": X, "key": np.array(IDS[:3])}, {"id": "key"}, "3 ids 'key' for 12 rows"),
        ({"x": X, "key": np.array(["a"] * N)}, {"id": "key"}, "the id 'a' is also that of row 0"),
        ({"x": X, "key": np.array([*IDS[:-1], "z"])}, {"id": "key"}, "no row for 1 of 12 ids"),
        ({"x": X[:5]}, {}, "5 rows, but dataset d has 12"),
    ],
)
def test_archives_are_refused_by_name(tmp_path, content, options, said):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(ActprobeError, match=rf"x\.npz.*{said}"):
        make(tmp_path, "x.npz", **options)


def test_the_array_and_a_column_of_an_archive(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=X[:, :2], key=np.array(IDS, "S"))
    (t,) = make(tmp_path, "x.npz", array="y", id="key")
    np.testing.assert_array_equal(load_activations(t.path), X[:, :2])


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("x.npy", {"id": "id"}, r".id: a .npy file has none; .*np.savez writes"),
        ("x.npy", {"array": "x"}, ".array: a .npy file has none"),
        ("x.npy", {"columns": ["a"]}, ".columns: a .npy file has none"),
        ("x.csv", {"array": "x"}, ".array: a .csv file has none"),
        ("x.xlsx", {}, r".path: .*x.xlsx; expected a file that ends with .csv, .tsv"),
        ("y{dataset}.npy", {}, "yd.npy does not exist; expected a file with the features of d"),
        ("{dataset}.npy", {"datasets": ["e"]}, "e.npy does not exist"),
        ("{dataset}.npy", {"datasets": ["f"]}, ".datasets: no dataset matches 'f'"),
        ("x.npy", {"datasets": ["*"]}, "one file for 2 datasets .* write `id`"),
    ],
)
def test_the_config_is_refused_by_name(tmp_path, file, options, said):
    for name in ("x.npy", "d.npy"):
        np.save(tmp_path / name, X)
    made = [write_dataset(tmp_path), {**write_dataset(tmp_path, "e"), "id": None}]
    config, texts = setup(tmp_path, file, made, **options)
    with pytest.raises(ConfigError, match=rf"arrays\.own.*{said}"):
        targets(config, texts)


def test_one_file_for_datasets_that_count_their_rows_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, key=np.arange(N))
    made = [write_dataset(tmp_path), {**write_dataset(tmp_path, "e"), "id": None}]
    config, texts = setup(tmp_path, "x.npz", made, id="key")
    with pytest.raises(ConfigError, match="e has no ids of its own"):
        targets(config, texts)


def test_a_dataset_that_a_pattern_fits_may_have_no_file(tmp_path):
    np.save(tmp_path / "d.npy", X)
    made = [write_dataset(tmp_path), write_dataset(tmp_path, "e")]
    assert [t.item for t in make(tmp_path, "{dataset}.npy", made)] == ["d"]


@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("models", {"own": {"source": "m"}}),
        ("saes", {"own": {"source": "s", "format": "gemma_scope", "model": "m", "site": "embed"}}),
        ("imports", {"own": {"layout": "v1", "folder": "f", "model": "m", "datasets": ["d"]}}),
        ("imports", {"i": {"layout": "v1", "folder": "f", "model": "own", "datasets": ["d"]}}),
    ],
)
def test_a_name_that_something_else_has_is_refused(tmp_path, section, entry):
    np.save(tmp_path / "x.npy", X)
    own = {"own": {"path": str(tmp_path / "x.npy")}}
    config = inputs.resolve(
        tmp_path, [write_dataset(tmp_path)], arrays=own, **{section: entry}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"arrays.own: .* is called own as well"):
        targets(config, inputs.make_texts(config))


def paths(folder: Path, file: str, made: list[dict], **entry: Any) -> str:
    config, texts = setup(folder, file, made, **entry)
    return targets(config, texts)[0].path


def test_the_key_follows_content_ids_and_options_alone(tmp_path):
    frame().to_csv(tmp_path / "x.csv", index=False)
    made = [write_dataset(tmp_path)]
    first, by_id = paths(tmp_path, "x.csv", made), paths(tmp_path, "x.csv", made, id="name")
    assert first != by_id != paths(tmp_path, "x.csv", made, id="name", columns=["f_0"])
    (tmp_path / "x.csv").rename(tmp_path / "y.csv")
    assert paths(tmp_path, "y.csv", made) == first
    data = (tmp_path / "d.csv").read_text()
    (tmp_path / "d.csv").write_text(data.replace(",1\n", ",2\n"))  # labels
    assert paths(tmp_path, "y.csv", made) == first
    (tmp_path / "d.csv").write_text(data.replace("t3", "u3", 1))  # an id
    assert paths(tmp_path, "y.csv", made) == first
    assert paths(tmp_path, "y.csv", made, id="name") != by_id
    frame(g=1).to_csv(tmp_path / "y.csv", index=False)
    assert paths(tmp_path, "y.csv", made) != first


def test_a_source_by_another_name_is_made_by_a_link(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (t,) = make(tmp_path, "x.npy")
    config, texts = setup(tmp_path, "x.npy")
    config = edited(config, ["arrays"], {"other": config["arrays"]["own"]})
    (other,) = targets(config, texts)
    assert other.key == t.key and other.path != t.path
    states = plan.make(config, [other], [other.path]).states
    assert states[other.path].status == plan.ELSEWHERE


def test_a_bad_file_is_skipped_with_its_reason(tmp_path):
    np.save(tmp_path / "x.npy", X[:5])
    config, texts = setup(tmp_path, "x.npy")
    config = edited(config, ["on_bad_dataset"], "skip")
    (t,) = targets(config, texts)
    for batch in plan.make(config, [t], [t.path]).batches:
        run_batch(batch, config, 1)
    with pytest.raises(BadInput, match="5 rows, but dataset d has 12"):
        load_activations(t.path)


def test_a_file_that_was_changed_after_the_plan_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    config, texts = setup(tmp_path, "x.npy")
    (t,) = targets(config, texts)
    np.save(tmp_path / "x.npy", X + 1)
    batches = plan.make(config, [t], [t.path]).batches
    with pytest.raises(ActprobeError, match="was changed after the plan was made"):
        run_batch(batches[0], config, 1)


def test_an_interrupted_import_ends_with_the_same_bytes(tmp_path, monkeypatch):
    from actprobe.arrays import features

    monkeypatch.setattr("actprobe.arrays.tensors.SLICE", 48)
    np.savez(tmp_path / "x.npz", x=X[SHUFFLED], key=np.array(IDS)[SHUFFLED])
    (t,) = make(tmp_path, "x.npz", id="key")
    whole, rows = Path(t.path).read_bytes(), features.Checked.rows
    Path(t.path).unlink()
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows(*args)

    monkeypatch.setattr(features.Checked, "rows", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "x.npz", id="key")
    assert not Path(t.path).exists() and store.part_path(t.path).exists()
    monkeypatch.setattr(features.Checked, "rows", rows)
    make(tmp_path, "x.npz", id="key")
    assert Path(t.path).read_bytes() == whole


def test_many_slices_give_the_same_numbers(tmp_path, monkeypatch):
    for module in ("tables", "tensors", "parquet"):
        monkeypatch.setattr(f"actprobe.arrays.{module}.SLICE", 48)
    for kind in KINDS:
        file, options = save(tmp_path, kind, SHUFFLED)
        (t,) = make(tmp_path, file, **options)
        np.testing.assert_array_equal(load_activations(t.path), X)


def test_probes_take_an_array_and_contrastive_directions_do_not(tmp_path):
    np.save(tmp_path / "d.npy", X)
    probes = [{"protocol": "actprobe-1", "sources": ["own"]}]
    made = [write_dataset(tmp_path), write_dataset(tmp_path, "e")]
    own = {"own": {"path": str(tmp_path / "{dataset}.npy")}}
    config = inputs.resolve(tmp_path, made, arrays=own, probes=probes)
    found = experiment.stages(config, keys.DigestMemo(config["cache_dir"]))
    assert {t.args["source"] for t in found["probes"]} == {"own"}
    assert {t.loader.rpartition(".")[2] for t in found["probes"]} == {"own"}
    entry = {"protocol": "contrastive-1", "datasets": ["d"], "apply_to": ["e"], "sources": ["own"]}
    config = edited(config, ["probes"], inputs.resolve(tmp_path, [], probes=[entry])["probes"])
    with pytest.raises(ConfigError, match="no source of d matches 'own'"):
        experiment.stages(config, keys.DigestMemo(config["cache_dir"]))


def test_costs_follow_the_size_of_the_file(tmp_path):
    np.save(tmp_path / "d.npy", np.tile(X, 100))
    own = {"own": {"path": str(tmp_path / "d.npy")}}
    probes = [{"protocol": "actprobe-1", "methods": ["logreg"]}]
    config = inputs.resolve(tmp_path, [write_dataset(tmp_path)], arrays=own, probes=probes)
    inputs.make_texts(config)
    made = experiment.plan(config, ("arrays", "probes"))
    [matrix] = [t for t in made.targets.values() if t.stage == "arrays"]
    assert shapes.array_width(matrix, shapes.Rows(N, 1.0, True)) == pytest.approx(300, rel=0.02)
    [batch] = [b for b in made.batches if b.stage == "arrays"]
    cost = costs.Estimator(made).cost(batch)
    assert cost.disk_bytes == (tmp_path / "d.npy").stat().st_size and cost.gpu == 0
    assert set(costs.estimates(made)) == {b.rule for b in made.batches}


def test_golden(tmp_path):
    golden: Mapping[str, Any] = json.loads(
        (Path(__file__).parents[1] / "golden" / "arrays.json").read_text()
    )
    table = pd.DataFrame({"a": range(N), "b": [i / 8 for i in range(N)], "name": IDS})
    table.iloc[::-1].to_csv(tmp_path / "x.csv", index=False)
    (t,) = make(tmp_path, "x.csv", id="name")
    x = load_activations(t.path)
    got = {"version": arrays.VERSION, "digest": hashlib.sha256(x.tobytes()).hexdigest()[:16]}
    assert got == golden, (
        "arrays give another output: raise VERSION in arrays/targets.py, then put what was found "
        "here into tests/golden/arrays.json"
    )
