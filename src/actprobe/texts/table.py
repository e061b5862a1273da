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

from actprobe.cache import store
from actprobe.texts import chats
from actprobe.texts.chats import Chat
from actprobe.texts.spans import Span

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
_PART = pa.struct([("start", pa.int32()), ("end", pa.int32())])
_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.int8())])
# Columns that only some datasets have.
_MORE = {
    "value": pa.field("value", pa.float64(), nullable=False),
    "answer": pa.field("answer", pa.string(), nullable=False),
    "messages": pa.field("messages", pa.string(), nullable=False),
    "tools": pa.field("tools", pa.string()),
    "finish": pa.field("finish", pa.string(), nullable=False),
    "extra": pa.field("extra", pa.string(), nullable=False),
    "spans": pa.field("spans", pa.list_(_SPAN), nullable=False),
    "part": pa.field("part", _PART, nullable=False),
}
_OPTIONAL = ("group", "split", "pair")
UNLABELLED = -1


@dataclass(frozen=True)
class Texts:
    """One dataset, rows in file order.

    id, text, digest: object arrays [N] of strings; digest is the SHA-256 of what a model is given: of
    the UTF-8 text, or of a chat's messages and tools. The text of a chat is what its messages say.
    label: int32 [N], -1 in a row without one, or None without labels; classes: name of each label.
    value: float64 [N] of a continuous label, else None.
    group, split, pair: object arrays [N] of strings or None, or None where no row has any.
    answer: object array [N] of strings for contrastive pairs, else None. chats: of every row, None
    for texts. spans: of every row, None where the dataset has none (`facts["spans"]` names their
    classes). finish: object array [N], why a model's answer ended: end (of its turn), stop (a string
    that stops it) or limit (of tokens); None where no model answered. extra: of prompts, the columns
    that the labels of answers need, by name. facts: those of `tabulate`, and `provenance`.
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
    chats: Sequence[Chat] | None = None
    spans: Sequence[Sequence[Span]] | None = None
    finish: np.ndarray | None = None
    extra: Sequence[Mapping[str, Any]] | None = None
    value: np.ndarray | None = None
    parts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.text)

    @property
    def contrastive(self) -> bool:
        """True for pairs of answers: the config, not a column, says which rows belong together."""
        return self.answer is not None

    @property
    def rows(self) -> Sequence[str | Chat]:
        """What a model is given of each row."""
        return self.text.tolist() if self.chats is None else self.chats


def made(columns: Mapping[str, Any]) -> pa.Table:
    """A table of these columns: those of SCHEMA, and any of the others."""
    more = [field for name, field in _MORE.items() if name in columns]
    return pa.table(dict(columns), schema=pa.schema([*SCHEMA, *more]))


def load(path: str | Path) -> Texts:
    """The dataset in a texts artefact.

    Raises BadInput with the stored reason for a tombstone, Damaged for a damaged file.
    """
    table = store.read_table(path)
    header = store.read_header(path)
    label = table.column("label")
    labels = None
    if label.null_count < len(label):
        labels = label.fill_null(UNLABELLED).to_numpy()
    plain: dict[str, Any] = {
        name: table.column(name).to_numpy() for name in ("id", "text", "digest")
    }
    optional: dict[str, Any] = {
        name: table.column(name).to_numpy() if table.column(name).null_count < len(table) else None
        for name in _OPTIONAL
    }
    return Texts(
        dataset=dataset_name(path),
        key=header["key"],
        label=labels,
        answer=_column(table, "answer"),
        finish=_column(table, "finish"),
        extra=_extra(table),
        classes=tuple(header["facts"]["classes"]),
        facts=header["facts"],
        chats=_chats(table),
        spans=_spans(table),
        value=_column(table, "value"),
        parts=_parts(table),
        **plain,
        **optional,
    )


def _column(table: pa.Table, name: str) -> np.ndarray | None:
    return table.column(name).to_numpy() if name in table.column_names else None


def _extra(table: pa.Table) -> list[Mapping[str, Any]] | None:
    if "extra" not in table.column_names:
        return None
    return [json.loads(row) for row in table["extra"].to_pylist()]


def _chats(table: pa.Table) -> list[Chat] | None:
    if "messages" not in table.column_names:
        return None
    rows = zip(table["messages"].to_pylist(), table["tools"].to_pylist(), strict=True)
    return [chats.loads(messages, tools) for messages, tools in rows]


def _spans(table: pa.Table) -> list[list[Span]] | None:
    if "spans" not in table.column_names:
        return None
    return [[Span(**span) for span in row] for row in table["spans"].to_pylist()]


def _parts(table: pa.Table) -> np.ndarray | None:
    if "part" not in table.column_names:
        return None
    found = table["part"].combine_chunks()
    return np.stack([found.field(k).to_numpy() for k in ("start", "end")], axis=1)


def dataset_name(path: str | Path) -> str:
    """The dataset's name, which stands first in the artefact's file name."""
    return Path(path).name.rsplit(".", 2)[0]


def identity(table: pa.Table, classes: Sequence[str]) -> dict[str, str | None]:
    """What dependents are keyed by, whatever file and columns a dataset came from.

    rows: SHA-256 of the rows' digests in their order, which stand for all that a model reads; parts:
    of the parts that labels are of, None where there are none; content: of ids, digests, labels,
    groups, splits, pairs, answers, spans and parts.
    """
    rows = hashlib.sha256("\n".join(table["digest"].to_pylist()).encode())
    content = hashlib.sha256(json.dumps(["classes", *classes]).encode())
    for name in table.column_names:
        if name not in ("text", "messages", "tools"):  # for which the digests stand
            content.update(json.dumps([name, table[name].to_pylist()]).encode())
    parts = None
    if "part" in table.column_names:
        parts = hashlib.sha256(json.dumps(table["part"].to_pylist()).encode()).hexdigest()
    return {"rows": rows.hexdigest(), "parts": parts, "content": content.hexdigest()}


def write_bad(path: str, spec: Mapping[str, Any], reason: str) -> Path:
    """Write the tombstone of a dataset that cannot be used; returns the sealed part."""
    return store.write_table(path, SCHEMA.empty_table(), spec, bad=reason)


def describe(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """What a report says about each texts artefact, from the headers alone.

    Keys: dataset, n, texts and multiline (different texts, texts of several lines), sampled_from (rows
    of which `n` are a sample), unfinished (answers that a model did not end), classes (name ->
    rows), duplicates, conflicting (see `checks.duplicates`), provenance, bad. For a dataset that
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
                "sampled_from": (facts.get("sample") or {}).get("of"),
                "unfinished": (facts.get("generated") or {}).get("limit"),
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
