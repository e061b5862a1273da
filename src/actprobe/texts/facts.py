"""What the header of a texts artefact says of a dataset: enough to know what it cannot serve for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actprobe.texts.chats import Chat, dumps
from actprobe.texts.checks import duplicates


def facts(
    content: Mapping[str, Any], label: np.ndarray | None, classes: Sequence[str]
) -> dict[str, Any]:
    """Counts of a dataset's table.

    content: the columns `text`, `group`, `split`, `pair`, `digest`, and `part` where rows are parts of
    texts; label: int32 [N] or None.

    n, texts: rows, and different texts (or parts) among them. characters: of all rows together.
    classes, counts: name and rows of each label. least: the smallest class: `class`, `rows`, `texts`
    (different ones); None without labels. duplicates: see `checks.duplicates`. groups, pairs: `number`
    of different ones, `rows` that are in one, rows of the `largest`; None where no row is in any.
    splits: split -> rows, without the rows that have none; None likewise. Rows without a label (-1)
    are in no class.
    """
    n = len(content["text"])
    known = None if label is None else label[label >= 0]
    counts = [] if known is None else np.bincount(known, minlength=len(classes)).tolist()
    digests = _of_parts(content["digest"], content.get("part"))
    repeated = duplicates(digests, None if label is None else label.tolist())
    return {
        "n": n,
        "texts": n - repeated["rows"],
        "characters": sum(map(len, content["text"])),
        "classes": list(classes),
        "counts": counts,
        "least": None if label is None else _least(digests, label, classes, counts),
        "duplicates": repeated,
        "groups": _joined(content["group"]),
        "pairs": _joined(content["pair"]),
        "splits": dict(sorted(Counter(v for v in content["split"] if v is not None).items()))
        or None,
    }


def _of_parts(digests: Sequence[str], parts: Sequence[Mapping[str, int]] | None) -> Sequence[str]:
    if parts is None:
        return digests
    return [f"{d} {p['start']} {p['end']}" for d, p in zip(digests, parts, strict=True)]


def _least(
    digests: Sequence[str], label: np.ndarray, classes: Sequence[str], counts: Sequence[int]
) -> dict[str, Any]:
    least = int(np.argmin(counts))
    texts = {d for d, y in zip(digests, label.tolist(), strict=True) if y == least}
    return {"class": classes[least], "rows": counts[least], "texts": len(texts)}


def _joined(names: Sequence[str | None]) -> dict[str, int] | None:
    found = Counter(v for v in names if v is not None)
    if not found:
        return None
    return {"number": len(found), "rows": found.total(), "largest": max(found.values())}


def lines(texts: Sequence[str]) -> int:
    """How many texts have a line break (CR or LF) inside."""
    return sum("\n" in text or "\r" in text for text in texts)


def of_chats(chats: Sequence[Chat]) -> dict[str, Any]:
    """Counts of a dataset of chats.

    messages: in all; most: of one chat; roles: role -> messages; tools, calls, reasoning: chats with
    definitions of tools, with a call of one, with reasoning.
    """
    roles = Counter(m["role"] for c in chats for m in c.messages)
    return {
        "messages": roles.total(),
        "most": max(len(c.messages) for c in chats),
        "roles": dict(sorted(roles.items())),
        "tools": sum(bool(c.tools) for c in chats),
        "calls": sum(any(p.kind == "call" for p in c.parts) for c in chats),
        "reasoning": sum(any(p.kind == "reasoning" for p in c.parts) for c in chats),
    }


def chat_columns(chats: Sequence[Chat]) -> dict[str, list[str | None]]:
    """The columns of a table that hold its chats."""
    return {
        "messages": [dumps(c.messages) for c in chats],
        "tools": [dumps(c.tools) if c.tools else None for c in chats],
    }
