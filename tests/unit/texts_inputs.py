"""Small files for the tests of the texts stage, and what they are read as."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actprobe.errors import BadInput
from actprobe.texts.run import tabulate

SPEC: dict[str, Any] = {
    "format": "csv",
    "text": "text",
    "label": None,
    "positive": None,
    "keep": {},
    **dict.fromkeys(("id", "group", "split", "pair")),
}


def make(data: bytes | str, **spec: Any) -> tuple[pa.Table, dict[str, Any]]:
    """Table and facts of a file; without labels unless `label` names their column."""
    data = data if isinstance(data, bytes) else data.encode()
    return tabulate(data, SPEC | spec, "d", "d.csv")


def texts(data: bytes | str, **spec: Any) -> list[str]:
    return make(data, **spec)[0]["text"].to_pylist()


def classes(data: bytes | str, **spec: Any) -> list[str]:
    """The class name of each row."""
    table, facts = make(data, **{"label": "label"} | spec)
    return [facts["classes"][y] for y in table["label"].to_pylist()]


def refused(data: bytes | str, *words: str, **spec: Any) -> None:
    """Assert that a file is refused by the dataset's name with all these words."""
    with pytest.raises(BadInput) as e:
        make(data, **spec)
    assert str(e.value).startswith("dataset d, d.csv: ")
    assert all(w in str(e.value) for w in words), str(e.value)


def parquet(*columns: tuple[str, Any]) -> bytes:
    """A Parquet file of (name, values) pairs; a name may stand twice."""
    arrays = [v if isinstance(v, pa.Array) else pa.array(v) for _, v in columns]
    out = io.BytesIO()
    pq.write_table(pa.table(arrays, names=[n for n, _ in columns]), out)
    return out.getvalue()


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(r) + "\n" for r in rows)
