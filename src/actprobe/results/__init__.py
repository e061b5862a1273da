"""Results: the tidy table of an experiment, and the tables that follow from it.

Light to import: the layout of the folder needs nothing; everything else is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.base.lazy import lazy
from actprobe.results.layout import applied, encoded, outputs, threshold_rules, vectors

if TYPE_CHECKING:
    from actprobe.results.compare import comparison_table, matched
    from actprobe.results.make import make_tables, read_tables, write_tables
    from actprobe.results.published import import_published
    from actprobe.results.select import quiver, quiver_table
    from actprobe.results.stats import mean_interval
    from actprobe.results.tables import collect, read_probes, summarise, tidy

_LAZY = {
    "mean_interval": "stats",
    "comparison_table": "compare",
    "matched": "compare",
    "make_tables": "make",
    "read_tables": "make",
    "write_tables": "make",
    "import_published": "published",
    "quiver": "select",
    "quiver_table": "select",
    "collect": "tables",
    "read_probes": "tables",
    "summarise": "tables",
    "tidy": "tables",
}

__all__ = [
    "applied",
    "collect",
    "comparison_table",
    "encoded",
    "import_published",
    "make_tables",
    "matched",
    "mean_interval",
    "outputs",
    "quiver",
    "quiver_table",
    "read_probes",
    "read_tables",
    "summarise",
    "threshold_rules",
    "tidy",
    "vectors",
    "write_tables",
]

__getattr__ = lazy(__name__, _LAZY)
