"""Results: the tidy table, summaries, figures and the report of one experiment.

Light to import: `outputs` and the folder layout need nothing; everything else is imported when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe.lazy import lazy
from actprobe.results.layout import encoded, outputs

if TYPE_CHECKING:
    from actprobe.results.compare import comparison_table, matched
    from actprobe.results.figures import write_figures
    from actprobe.results.headlines import headline
    from actprobe.results.make import (
        make_figures,
        make_published,
        make_report,
        make_tables,
        told,
        write_tables,
    )
    from actprobe.results.published import import_published
    from actprobe.results.select import quiver, quiver_table
    from actprobe.results.stats import mean_interval
    from actprobe.results.tables import collect, read_probes, summarise, tidy

_LAZY = {
    "mean_interval": "stats",
    "collect": "tables",
    "comparison_table": "compare",
    "headline": "headlines",
    "import_published": "published",
    "make_figures": "make",
    "make_published": "make",
    "make_report": "make",
    "make_tables": "make",
    "matched": "compare",
    "quiver": "select",
    "quiver_table": "select",
    "read_probes": "tables",
    "summarise": "tables",
    "tidy": "tables",
    "told": "make",
    "write_figures": "figures",
    "write_tables": "make",
}

__all__ = [
    "collect",
    "comparison_table",
    "encoded",
    "headline",
    "import_published",
    "make_figures",
    "make_published",
    "make_report",
    "make_tables",
    "matched",
    "mean_interval",
    "outputs",
    "quiver",
    "quiver_table",
    "read_probes",
    "summarise",
    "tidy",
    "told",
    "write_figures",
    "write_tables",
]

__getattr__ = lazy(__name__, _LAZY)
