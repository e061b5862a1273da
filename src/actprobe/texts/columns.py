"""Which columns of a file a dataset is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from actprobe.texts import templates
from actprobe.texts.records import Alpaca, Message, Messages, TextSpec


def wanted(spec: TextSpec) -> dict[str, str]:
    """Config key -> column, for all that is read."""
    found = dict(content(spec)) | spec.columns
    found |= {f"keep.{column}": column for column in spec.keep}
    found |= {f"where.{column}": column for column in spec.where}
    if spec.sample and spec.sample.column is not None:
        found["sample.by"] = spec.sample.column
    if spec.spans:
        found["spans.column"] = spec.spans.column
    if spec.turns and spec.turns.labels is not None:
        found["turns.labels"] = spec.turns.labels
    return found | {f"generate.label: {column}": column for column in spec.extra}


def content(spec: TextSpec) -> Iterator[tuple[str, str]]:
    """(config key, column) of the columns that a row's text or chat is made of."""
    own = [templates.ANSWER] if spec.answers else []
    yield from ((f"contrastive.{column}", column) for column in spec.answers)
    patterns = [spec.template or "{text}"]
    if spec.chat:
        items = spec.chat.items
        yield from (("messages", i.column) for i in items if isinstance(i, Messages))
        for item in items:
            if isinstance(item, Alpaca):
                yield from ((f"alpaca.{k}", column) for k, column in item.columns.items())
        if spec.chat.tools is not None:
            yield "tools", spec.chat.tools
        patterns = [i.template for i in items if isinstance(i, Message)]
    for field, column in templates.columns_of(patterns, spec.text, own).items():
        yield "text" if field == templates.TEXT else f"template: {{{field}}}", column


def digests(columns: Mapping[str, list[Any]], spec: TextSpec) -> list[str]:
    """A digest of what each row says, whatever its labels are."""
    names = list(dict.fromkeys(column for _, column in content(spec)))
    rows = zip(*(columns[name] for name in names), strict=True)
    return [
        hashlib.sha256(json.dumps(row, default=str, ensure_ascii=True).encode()).hexdigest()
        for row in rows
    ]
