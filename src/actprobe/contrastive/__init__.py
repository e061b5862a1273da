"""Directions on the page and as files: what results show of fits that are tested on other datasets.

`outputs` and `paths` are light; what reads directions is imported when first used. The rules call
`make_results` and `make_part`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.contrastive.layout import asked, outputs, paths
from actprobe.lazy import lazy

if TYPE_CHECKING:
    from actprobe.contrastive.artefact import Applied, load, load_all
    from actprobe.contrastive.files import runs, write_vectors
    from actprobe.contrastive.results import make_part, make_results, told

_LAZY = {"Applied": "artefact", "load": "artefact", "load_all": "artefact",
         "runs": "files", "make_part": "results", "make_results": "results", "told": "results",
         "write_vectors": "files"}  # fmt: skip

__all__ = [
    "Applied",
    "asked",
    "load",
    "load_all",
    "make_part",
    "make_results",
    "outputs",
    "paths",
    "runs",
    "told",
    "write_vectors",
]

__getattr__ = lazy(__name__, _LAZY)
