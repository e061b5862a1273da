"""The report: figures and the page of an experiment, from its written tables.

Light to import: the layout needs nothing; everything else is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.report.layout import caption, outputs

if TYPE_CHECKING:
    from actprobe.report.headlines import headline
    from actprobe.report.make import make_figures, make_published, make_report, told

_LAZY = {
    "headline": "headlines",
    "make_figures": "make",
    "make_published": "make",
    "make_report": "make",
    "told": "make",
}

__all__ = [
    "caption",
    "headline",
    "make_figures",
    "make_published",
    "make_report",
    "outputs",
    "told",
]

__getattr__ = lazy(__name__, _LAZY)
