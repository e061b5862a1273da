"""Hugging Face `datasets` tables of LoRAs: the same features as files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import lora_tools as tools
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.lora import features, index, tables
from actprobe.probes.sources import labelled


def _load(made, name: str) -> features.Features:
    return features.load(tools.path_of(made, name))


def _as_table(files: Path, path: Path, fixed: bool) -> None:
    """The LoRAs of rank 2 as a `datasets` table: nested lists, or Array2D-like fixed lists."""
    rows = [load_file(p) for p in sorted(files.glob("*.safetensors"))]
    columns = {}
    for name in rows[0]:
        cells = [r[name] for r in rows]
        values = pa.array(np.concatenate([c.ravel() for c in cells]))
        n, width = cells[0].shape
        if fixed:
            inner = pa.FixedSizeListArray.from_arrays(values, width)
            columns[name] = pa.FixedSizeListArray.from_arrays(inner, n)
        else:
            offsets = pa.array(np.arange(0, len(values) + 1, width, dtype=np.int32))
            inner = pa.ListArray.from_arrays(offsets, values)
            ends = pa.array(np.arange(0, len(inner) + 1, n, dtype=np.int32))
            columns[name] = pa.ListArray.from_arrays(ends, inner)
    table = pa.table(
        {**columns, "folder": [p.stem for p in sorted(files.glob("*.safetensors"))],
         "category": ["cat", "dog"] * (len(rows) // 2), "num_epochs": list(range(len(rows)))}
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_tables_of_datasets_give_the_same_features_as_files(
    tmp_path: Path, fixed: bool, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)  # blocks that begin within a batch
    files = tmp_path / "files"
    for i in range(8):
        tools.write_lora(files / f"l{i}.safetensors", i, 2)
    _as_table(files, tmp_path / "tables" / f"data-00000.{ending}", fixed)
    names = ["stats", "singular_values"]
    loras = {"c": {"files": str(files), "representations": names}}
    of_files = tools.run(tools.resolved(tmp_path / "a", loras))
    options = {"tables": str(tmp_path / "tables"), "id": "folder", "representations": names}
    of_tables = tools.run(tools.resolved(tmp_path / "b", {"c": options}))
    for name in names:
        a, b = _load(of_files, f"c/{name}"), _load(of_tables, f"c/{name}")
        order = [b.id.tolist().index(i) for i in a.id]
        np.testing.assert_allclose(a.x, b.x[order], rtol=1e-6)
    found = index.Index.open(tools.path_of(of_tables, "c"))
    assert json.loads(found["metadata"][3]) == {"category": "dog", "num_epochs": "3"}


def test_probes_read_labels_from_a_table_and_the_recipe_does_not(tmp_path: Path) -> None:
    files = tmp_path / "files"
    for i in range(24):
        tools.write_lora(files / f"l{i:02d}.safetensors", i, 2)
    _as_table(files, tmp_path / "tables" / "data.arrow", fixed=False)
    loras = {"c": {"tables": str(tmp_path / "tables"), "id": "folder", "label": "category",
                   "recipe_ignore": ["num_epochs"], "representations": ["stats"]}}  # fmt: skip
    probes = [{"sources": ["c/*"], "methods": ["ridge"]}]
    made = tools.run(tools.resolved(tmp_path, loras, probes))
    rows = tools.rows_of(made, "c/stats")
    assert json.loads(rows[0]["classes"]) == ["cat", "dog"] and not rows[0]["reason"]
    assert rows[0]["leak_fraction"] == 0, "rows of one file are no copies"
    recipe = tools.rows_of(made, "c/recipe_only")
    assert recipe[0]["n_columns"] == recipe[0]["n_constant"], "neither label nor epochs are read"
    probes[0]["label"] = "colour"
    with pytest.raises(ActprobeError, match="no column 'colour'"):
        tools.run(tools.resolved(tmp_path, loras, probes))


def test_a_table_with_ragged_matrices_or_unknown_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name, cells, reason in [
        ("ragged", [[[1.0, 2.0], [3.0]]], "differ in length"),
        ("flat", [[1.0, 2.0]], "expected matrices"),
    ]:
        table = pa.table({f"unet.{tools.BLOCK}.attn1.to_q.lora.down.weight": cells})
        pq.write_table(table, tmp_path / "tables" / f"{name}.parquet")
        cfg = tools.resolved(tmp_path, {"c": {"tables": str(tmp_path / "tables")}})
        with pytest.raises(ActprobeError, match=reason):
            tools.run(cfg)
        (tmp_path / "tables" / f"{name}.parquet").unlink()


def test_cells_of_every_list_type_with_nulls_in_a_slice() -> None:
    cells = [[[9.0, 9.0]], [[1.0, 2.0], [3.0, 4.0]], None, [[5.0, 6.0], [7.0, 8.0]]]
    for inner in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)):
        for outer in (pa.list_(inner), pa.large_list(inner)):
            found = tables.matrices(pa.array(cells, outer)[1:])
            assert found.rows.tolist() == [2, 0, 2]
            assert found[0].tolist() == [[1, 2], [3, 4]] and found[2].tolist() == [[5, 6], [7, 8]]
    fixed = pa.array([cells[1], None, cells[3]], pa.list_(pa.list_(pa.float32(), 2), 2))[1:]
    found = tables.matrices(fixed)
    assert found.rows.tolist() == [0, 2] and found[1].tolist() == [[5, 6], [7, 8]]
    for kind in (pa.list_(pa.list_(pa.list_(pa.float32()))), pa.list_(pa.list_(pa.string()))):
        with pytest.raises(BadInput, match="expected matrices"):
            tables.matrices(pa.array([], kind))


def test_tables_with_missing_tensors_other_lists_and_null_labels(tmp_path: Path) -> None:
    files = tmp_path / "files"
    for i in range(6):
        tools.write_lora(files / f"l{i}.safetensors", i, 2)
    _as_table(files, tmp_path / "whole.parquet", fixed=False)
    table = pq.read_table(tmp_path / "whole.parquet")
    for name in (c for c in table.column_names if "attn2" in c):  # row 1 has no attn2
        cells = [None if i == 1 else cell for i, cell in enumerate(table[name].to_pylist())]
        table = table.set_column(table.column_names.index(name), name, pa.array(cells))
    down = next(c for c in table.column_names if "attn1" in c and "down" in c)
    cells = [None if i == 2 else cell for i, cell in enumerate(table[down].to_pylist())]
    table = table.set_column(table.column_names.index(down), down, pa.array(cells))
    table = table.append_column("prompts", pa.array([["a", "b"]] * 6))
    table = table.append_column("image", pa.array([{"path": "x"}] * 6))
    table = table.append_column("colour", pa.array(["red", "blue", None, "red", None, "blue"]))
    (tmp_path / "tables").mkdir()
    pq.write_table(table, tmp_path / "tables" / "t.parquet")
    options = {"tables": str(tmp_path / "tables"), "id": "folder", "label": "colour",
               "representations": ["stats"]}  # fmt: skip
    cfg = tools.resolved(
        tmp_path,
        {"c": options},
        [{"sources": ["c/*"], "methods": ["ridge"], "label": "colour", "min_per_class": 2}],
    )
    made = tools.planned(cfg)
    for stage in ("lora_index", "lora_primitives", "features"):
        for batch in made.of(stage):
            tools.RUN[stage](batch, cfg, 1)
    found = index.Index.open(tools.path_of(made, "c"))
    reasons = dict(zip(found["id"], found.refused, strict=True))
    assert "has no partner" in reasons.pop("l2") and not any(reasons.values())
    stats = _load(made, "c/stats")
    assert stats.mask[stats.id.tolist().index("l1")].tolist() == [True, True, False, False]
    args = next(t.args for t in made.targets.values() if t.args.get("source") == "c/stats")
    said = labelled.lora.labels.read("c", args["table"], args["columns"], found)
    assert said["l0"]["label"] == "red" and said["l4"]["label"] == "", "null is no label"


def test_alphas_of_a_table_are_not_ignored_silently(tmp_path: Path) -> None:
    for i in range(2):
        tools.write_lora(tmp_path / "files" / f"l{i}.safetensors", i, 2)
    _as_table(tmp_path / "files", tmp_path / "tables" / "t.parquet", fixed=False)
    table = pq.read_table(tmp_path / "tables" / "t.parquet")
    name = f"unet.{tools.BLOCK}.attn1.to_q.alpha"
    pq.write_table(table.append_column(name, pa.array([1.0, 1.0])), tmp_path / "tables/t.parquet")
    options = {"tables": str(tmp_path / "tables"), "id": "folder", "representations": ["stats"]}
    with pytest.raises(ActprobeError, match=r"to_q\.alpha: alphas of tables are not read"):
        tools.run(tools.resolved(tmp_path / "a", {"c": options}))
    made = tools.run(tools.resolved(tmp_path / "b", {"c": {**options, "alpha": "one"}}))
    assert _load(made, "c/stats").x.shape[0] == 2
