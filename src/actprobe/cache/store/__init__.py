"""Artefacts on disk: headers and seals, parts and publishing, HDF5 and Parquet containers.

Header and file functions are light; `Part`, `write_h5`, `write_bad`, `open_h5` (h5py) and
`write_table`, `read_table` (pyarrow) are imported when first used, so that planning stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.cache.store.files import (
    adopt,
    checked,
    claim,
    finished_part,
    once,
    part_path,
    publish,
    release,
    require_space,
    set_aside,
    sources,
    use_scratch,
    whole,
)
from actprobe.cache.store.header import (
    file_key,
    is_sealed,
    make_header,
    quick_check,
    read_header,
    seal,
    verify,
)

if TYPE_CHECKING:
    from actprobe.cache.store.h5 import Part, open_h5, write_bad, write_h5
    from actprobe.cache.store.tables import read_table, write_table

_LAZY = {
    "Part": "h5",
    "open_h5": "h5",
    "write_bad": "h5",
    "write_h5": "h5",
    "read_table": "tables",
    "write_table": "tables",
}

__all__ = [
    "Part",
    "adopt",
    "checked",
    "claim",
    "file_key",
    "finished_part",
    "is_sealed",
    "make_header",
    "once",
    "open_h5",
    "part_path",
    "publish",
    "quick_check",
    "read_header",
    "read_table",
    "release",
    "require_space",
    "seal",
    "set_aside",
    "sources",
    "use_scratch",
    "verify",
    "whole",
    "write_bad",
    "write_h5",
    "write_table",
]

__getattr__ = lazy(__name__, _LAZY)
