"""Which columns of a file a dataset is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from actprobe.texts import templates

NAMED = ("id", "label", "group", "split", "pair")


def wanted(spec: Mapping[str, Any]) -> dict[str, str]:
    """Config key -> column, for all that is read."""
    found = dict(content(spec))
    found |= {k: spec[k] for k in NAMED if spec.get(k) is not None}
    found |= {f"keep.{column}": column for column in spec["keep"]}
    found |= {f"where.{column}": column for column in spec.get("where", {})}
    if (sample := spec.get("sample")) and sample["column"] is not None:
        found["sample.by"] = sample["column"]
    if spans := spec.get("spans"):
        found["spans.column"] = spans["column"]
    if (turns := spec.get("turns")) and turns["labels"] is not None:
        found["turns.labels"] = turns["labels"]
    return found | {f"generate.label: {column}": column for column in spec.get("extra", ())}


def content(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(config key, column) of the columns that a row's text or chat is made of."""
    answers = spec.get("answers") or ()
    own = [templates.ANSWER] if answers else []
    yield from ((f"contrastive.{column}", column) for column in answers)
    if chat := spec.get("chat"):
        items = chat["from"]
        yield from (("messages", item["column"]) for item in items if "column" in item)
        for item in items:
            yield from (
                (f"alpaca.{k}", column)
                for k, column in item.get("alpaca", {}).items()
                if column is not None
            )
        if chat["tools"] is not None:
            yield "tools", chat["tools"]
        patterns = [item["template"] for item in items if "template" in item]
    else:
        patterns = [spec.get("template") or "{text}"]
    for field, column in templates.columns_of(patterns, spec["text"], own).items():
        yield "text" if field == templates.TEXT else f"template: {{{field}}}", column


def digests(columns: Mapping[str, list[Any]], spec: Mapping[str, Any]) -> list[str]:
    """A digest of what each row says, whatever its labels are."""
    names = list(dict.fromkeys(column for _, column in content(spec)))
    rows = zip(*(columns[name] for name in names), strict=True)
    return [
        hashlib.sha256(json.dumps(row, default=str, ensure_ascii=True).encode()).hexdigest()
        for row in rows
    ]
