"""What the rules and the command line call: figures and page from the tables of `results`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actprobe import results
from actprobe.report import directions, figures, headlines, layout, page
from actprobe.results import provenance, tables
from actprobe.results.directions import load_all, load_texts
from actprobe.results.layout import folder
from actprobe.results.make import read_of_rows, read_tables
from actprobe.results.views import baseline


def make_figures(
    config: Mapping[str, Any], fits: Iterable[str] = (), names: Sequence[str] = ()
) -> None:
    """Draw the figures that the config calls for (or `names`) from the written tables.

    fits: paths of the fits that other datasets test.
    """
    root, level = Path(folder(config)), config["results"]["confidence"]
    drawn = names or layout.figures(config)
    figures.write(read_tables(config), load_all(fits), root / "figures", drawn, level)


def make_report(
    config: Mapping[str, Any],
    read: Iterable[str] = (),
    contexts: Sequence[str] = (),
    reads: Iterable[Mapping[str, Any]] = (),
    names: Sequence[str] = (),
) -> list[str]:
    """Write the page from the written tables and figures (`names`); returns the headline lines.

    read: texts artefacts; contexts: pages of top contexts to link to; reads: of `provenance.origin`.
    """
    found = read_tables(config)
    warnings = []
    if "directions" in found:
        fits = found["directions"][found["directions"]["source"] != ""]
        data = load_texts(read, {*fits["train"], *fits["dataset"]})
        warnings = [*directions.answer_warnings(data), *directions.reading_warnings(reads)]
    path = Path(folder(config)) / layout.PAGE
    drawn = names or layout.figures(config)
    page.write(path, found, config, drawn, contexts, warnings, read_of_rows(config))
    return headlines.lines(found)


def told(config: Mapping[str, Any]) -> list[str]:
    """The headline lines of results whose tables are written, and those about directions."""
    found = read_tables(config)
    more = directions.headline(found["directions"]) if "directions" in found else []
    return [*headlines.lines(found), *more]


def make_published(source: str | Path, config: Mapping[str, Any]) -> list[str]:
    """Tables, figures and page of published results below `source`; returns the headline lines.

    `config` holds experiment, results_dir and results. The layouts that are read are those of
    `results.import_published`.
    """
    from actprobe.results.published import inputs

    config = {**config, "imported": str(source)}
    table = results.import_published(source, config["experiment"])
    names = sorted(table["dataset"].unique(), key=tables.natural)
    datasets = tables.dataset_table({"dataset": name} for name in names)
    origin = provenance.table({"inputs": inputs(source, table["origin"]), "reads": []})
    results.write_tables(config, table, pd.DataFrame(columns=tables.SKIPPED), datasets, origin)
    saes = bool((~baseline(table)).any())
    drawn = layout.of_settings(set(table["setting"]), saes)
    make_figures(config, names=drawn)
    return make_report(config, names=drawn)
