"""The texts artefact: one Parquet table per dataset, and what its header says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actprobe import store

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("group", pa.string()),
        pa.field("split", pa.string()),
        pa.field("pair", pa.string()),
        pa.field("digest", pa.string(), nullable=False),
    ]
)
PAIRS_SCHEMA = SCHEMA.append(pa.field("answer", pa.string(), nullable=False))


@dataclass(frozen=True)
class Texts:
    """One dataset, rows in file order.

    id, text, digest: object arrays [N] of strings; digest is the SHA-256 of the UTF-8 text.
    label: int32 [N], or None without labels; classes: name of each label.
    group, split, pair: object arrays [N] of strings or None, or None where the config names no
    column. answer: object array [N] of strings for contrastive pairs, else None. facts: those of
    `run.tabulate`, and `provenance`.
    """

    dataset: str
    key: str
    id: np.ndarray
    text: np.ndarray
    label: np.ndarray | None
    group: np.ndarray | None
    split: np.ndarray | None
    pair: np.ndarray | None
    digest: np.ndarray
    answer: np.ndarray | None
    classes: tuple[str, ...]
    facts: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def contrastive(self) -> bool:
        """True for pairs of answers: the config, not a column, says which rows belong together."""
        return self.answer is not None


def load(path: str | Path) -> Texts:
    """The dataset in a texts artefact.

    Raises BadInput with the stored reason for a tombstone, Damaged for a damaged file.
    """
    table = store.read_table(path)
    header = store.read_header(path)
    pairs = "answers" in header["spec"]
    own = ("label", "group", "pair") if pairs else ()
    columns: dict[str, Any] = {
        name: table.column(name).to_numpy()
        if name in own or header["spec"].get(name, "") is not None
        else None
        for name in SCHEMA.names
        if name != "id"
    }
    return Texts(
        dataset=dataset_name(path),
        key=header["key"],
        id=table.column("id").to_numpy(),
        answer=table.column("answer").to_numpy() if pairs else None,
        classes=tuple(header["facts"]["classes"]),
        facts=header["facts"],
        **columns,
    )


def dataset_name(path: str | Path) -> str:
    """The dataset's name, which stands first in the artefact's file name."""
    return Path(path).name.rsplit(".", 2)[0]


def identity(table: pa.Table, classes: Sequence[str]) -> dict[str, str]:
    """What dependents are keyed by, whatever file and columns a dataset came from.

    rows: SHA-256 of the texts' digests in their order, which is all that a model reads; content: of
    ids, digests, labels, groups, splits, pairs and answers.
    """
    rows = hashlib.sha256("\n".join(table["digest"].to_pylist()).encode())
    content = hashlib.sha256(json.dumps(["classes", *classes]).encode())
    for name in table.column_names:
        if name != "text":
            content.update(json.dumps([name, table[name].to_pylist()]).encode())
    return {"rows": rows.hexdigest(), "content": content.hexdigest()}


def write_bad(path: str, spec: Mapping[str, Any], reason: str) -> Path:
    """Write the tombstone of a dataset that cannot be used; returns the sealed part."""
    return store.write_table(path, SCHEMA.empty_table(), spec, bad=reason)


def describe(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """What a report says about each texts artefact, from the headers alone.

    Keys: dataset, n, texts and multiline (different texts, texts of several lines), classes (name
    -> rows), duplicates, conflicting (see `checks.duplicates`), provenance, bad. For a dataset that
    cannot be used `bad` is the reason and the others are empty.
    """
    rows = []
    for path in paths:
        header = store.read_header(path)
        facts = header["facts"]
        repeated = facts.get("duplicates", {})
        rows.append(
            {
                "dataset": dataset_name(path),
                **{k: facts.get(k) for k in ("n", "texts", "multiline")},
                "classes": dict(
                    zip(facts.get("classes", ()), facts.get("counts", ()), strict=True)
                ),
                "duplicates": repeated.get("rows"),
                "conflicting": repeated.get("conflicting"),
                "provenance": facts.get("provenance", {}),
                "bad": header["bad"],
            }
        )
    return rows
