"""Rows of a file that somebody gives, read as datasets are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from actprobe import config as configuration
from actprobe import texts
from actprobe.base.errors import BadInput
from actprobe.experiment import targets as experiment


def rows(
    file: str, text: str | None = None, messages: str | None = None, name: str | None = None
) -> tuple[list[str], list[Any]]:
    """Ids and texts, or chats, of a file in any format that a dataset may have; of a `.txt` each line
    is a text.

    text, messages, name: columns of the texts, of chats, and of the ids. Raises BadInput, or ConfigError
    naming the column.
    """
    path = Path(file)
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise BadInput(f"{file}: {e}") from None
        return [str(n) for n in range(len(lines))], list(lines)
    columns = {"text": text, "messages": messages, "id": name}
    entry = {"name": "given", "path": file, "label": None}
    entry |= {k: v for k, v in columns.items() if v is not None}
    with tempfile.TemporaryDirectory(prefix="actprobe-given-") as cache:
        raw = {"experiment": "given", "cache_dir": cache, "datasets": [entry]}
        config = configuration.resolve(raw)
        planned = experiment.plan_texts(config)
        for batch in planned.in_order():
            experiment.run(batch, config, 1)
        found = texts.load(planned.wanted[0])
    return found.id.tolist(), list(found.rows)
