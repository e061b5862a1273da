"""Names of files inside archives, dumps and folders of somebody else."""

from __future__ import annotations

import re

from actprobe.base.errors import BadInput
from actprobe.files import limits


def check_name(name: str) -> str:
    """The name of a file in a dump or archive, if it is harmless.

    Raises BadInput for one that is empty, absolute, leads out of its folder, is not portable
    (backslash, drive letter, control characters), or is longer than `limits.NAME`.
    """
    parts = name.split("/")
    if (
        not 0 < len(name) <= limits.NAME
        or any(p in ("", ".", "..") for p in parts)
        or re.search(r"[\\\x00-\x1f\x7f]", name)
        or re.match(r"[A-Za-z]:", name)
    ):
        raise BadInput(f"refused: {name[:200]!r} is not a safe file name")
    return name
