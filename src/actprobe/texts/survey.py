"""What is known of a dataset while the plan is made: from its artefact, or by reading its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.texts.records import TextTarget


def survey(t: TextTarget) -> tuple[Mapping[str, Any] | None, str | None]:
    """The facts of a texts target, and the reason why the dataset cannot be used.

    Both are None when its wheel is not there yet, or when a machine fails to read the file: the
    stage that makes the artefact says so.
    """
    for path in (Path(t.path), store.part_path(t.path)):
        try:
            header = store.quick_check(path, t.key)
        except (Damaged, OSError):
            continue
        return (None, header["bad"]) if header["bad"] else (header["facts"], None)
    if not all(Path(p).is_file() for p in t.inputs):
        return None, None
    from actprobe.texts.run import described  # reads tables: heavy

    try:
        return described(t), None
    except BadInput as e:
        return None, str(e)
    except ActprobeError:
        return None, None
