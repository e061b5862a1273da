"""Small files for the tests of the texts stage, and what they are read as."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actprobe import config
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import plan, store
from actprobe.cache.plan import Target, take_over
from actprobe.experiment import targets as experiment
from actprobe.texts import Texts
from actprobe.texts.records import FileSource, TextArgs, TextSpec, TextTarget
from actprobe.texts.table import load as texts_of
from actprobe.texts.tabulate import tabulate

SPEC = TextSpec(source=FileSource(sha256=""), format="csv", text="text")


def hand_made(cache: str | Path, name: str, content: str, **args: Any) -> TextTarget:
    """The target of texts that a test writes itself; content tells them from others."""
    known = {"file": f"{name}.csv", "bytes": 1, "provenance": {}, "columns": {}, "rows": content}
    return plan.target(
        cache, "texts", 1, name, replace(SPEC, source=FileSource(sha256=content)),
        loader="texts", item=name, ext="parquet", args=TextArgs(**known | args),
    )  # fmt: skip


def with_facts(t: TextTarget) -> TextTarget:
    """The target as it is once its artefact is there."""
    return replace(t, args=replace(t.args, facts=store.read_header(t.path)["facts"]))


def make(data: bytes | str, **spec: Any) -> tuple[pa.Table, dict[str, Any]]:
    """Table and facts of a file; without labels unless `label` names their column."""
    data = data if isinstance(data, bytes) else data.encode()
    return tabulate([("d.csv", data)], replace(SPEC, **spec), "d")


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


def configured(folder: Path, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A resolved config of some datasets, its cache in the folder."""
    given = {"experiment": "e", "cache_dir": f"{folder}/cache", "results_dir": f"{folder}/results"}
    return config.resolve(given | {"datasets": list(entries), "on_bad_dataset": "stop"} | more)


def build(folder: Path, *entries: dict[str, Any], **more: Any) -> list[Target]:
    """The texts targets of some datasets, made as a run makes them."""
    resolved = configured(folder, *entries, **more)
    planned = experiment.plan_texts(resolved)
    take_over(planned)
    for batch in plan.thaw(plan.freeze(planned, folder / "plans")).in_order():
        experiment.run(batch, resolved, 1)
    return [planned.targets[p] for p in planned.paths("texts")]


def loaded(folder: Path, data: bytes | str, **entry: Any) -> Texts:
    """A file of these bytes as a dataset without labels; jsonl unless the entry says otherwise."""
    data = data if isinstance(data, bytes) else data.encode()
    file = folder / f"d.{entry.get('format', 'jsonl')}"
    file.write_bytes(data)
    [t] = build(folder, {"name": "d", "path": str(file), "label": None, **entry})
    return texts_of(t.path)


def unusable(folder: Path, data: bytes | str, *words: str, **entry: Any) -> None:
    """Assert that a file is refused, naming the dataset, with all these words."""
    with pytest.raises(ActprobeError) as e:
        loaded(folder, data, **entry)
    assert "dataset d" in str(e.value)
    missing = [w for w in words if w not in str(e.value)]
    assert not missing, str(e.value)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
]
