"""The rows of a dataset as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from actprobe import texts
from actprobe.texts.table import UNLABELLED


def frame(path: str) -> pd.DataFrame:
    """id, text, label (name of the class, value, or None), group, split, pair; messages of chats."""
    rows = texts.load(path)
    label: Any = None
    if rows.value is not None:
        label = rows.value
    elif rows.label is not None:
        names = np.array([*rows.classes, None], object)
        label = names[np.where(rows.label == UNLABELLED, len(rows.classes), rows.label)]
    columns: dict[str, Any] = {"id": rows.id, "text": rows.text, "label": label}
    columns |= {k: getattr(rows, k) for k in ("group", "split", "pair")}
    if rows.chats is not None:
        columns["messages"] = [list(c.messages) for c in rows.chats]
    return pd.DataFrame(columns)
