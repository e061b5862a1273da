"""The tables of an experiment: written from probe results, and read again for figures and page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from actprobe.lora import REFUSED
from actprobe.probes import extensions
from actprobe.probes.feature_targets import EACH
from actprobe.results import (
    alarms,
    compare,
    confusion,
    csvs,
    directions,
    features,
    layout,
    paired,
    provenance,
    rows,
    saes,
    select,
    tables,
    transfer,
)

_TEXT = {*compare.TEXT, *confusion.COLLECTION, *features.CELL, *directions.TEXT, *tables.SKIPPED}
_TEXT |= {
    *provenance.COLUMNS,
    "candidates",
    "classes",
    "read_by",
    "provenance",
    "sae",
    "architecture",
}
_TEXT |= {
    *transfer.TEXT,
    "note",
    "key",
    "outliers",
    "most",
    "true",
    "predicted",
    "collection",
    "id",
}
_TEXT -= {"fits"}


_EMPTY = {
    "saes": saes.CODES,
    "sae_training": [*saes.CURVE, *saes.TRAINED],
    "refused": REFUSED,
    "directions": directions.COLUMNS,
    "transfer": transfer.COLUMNS,
}


_OF_ROWS = {  # columns, and those of text
    "errors": (rows.ERRORS, set(rows.ERRORS) - {"k", "seed", "score", "margin"}),
    "alarms": (alarms.COLUMNS, alarms.TEXT),
    "paired": (paired.COLUMNS, paired.TEXT),
}


@dataclass(frozen=True)
class Written:
    """The written tables of an experiment.

    probes: the tidy table; others: those that the config calls for, by the names of `layout.outputs`.
    """

    probes: pd.DataFrame
    others: Mapping[str, pd.DataFrame]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A table; one that the config does not call for is empty."""
        return self.others[name] if name in self.others else pd.DataFrame(columns=_EMPTY[name])

    def __contains__(self, name: str) -> bool:
        return name in self.others

    @cached_property
    def of_texts(self) -> pd.DataFrame:
        """The rows of the tidy table that are not of features."""
        return self.probes[self.probes["columns"] == ""]


def read_tables(config: Mapping[str, Any]) -> Written:
    """The written tables; raises FileNotFoundError for one that is not there."""
    extensions.loaded(config)
    paths = layout.outputs(config)
    found = {
        name: csvs.read(path, _TEXT)
        for name, path in paths.items()
        if name not in ("probes", "probes_csv", *layout.ROW_TABLES)
    }
    for name in found.keys() & {"confusion", "directions"}:  # a column without a cell has no type
        found[name]["chosen"] = found[name]["chosen"].eq(True)
    return Written(tables.read_probes(paths["probes"]), found)


def read_of_rows(config: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The written tables about rows of kept fits: errors, alarms, paired; empty where not written."""
    root, found = Path(layout.folder(config)), {}
    for name, (columns, text) in _OF_ROWS.items():
        path = root / layout.ROW_TABLES[name]
        there = path.is_file()
        found[name] = csvs.read(path, set(text)) if there else pd.DataFrame(columns=columns)
    return found


def make_tables(
    config: Mapping[str, Any],
    probes: Iterable[str | Path],
    datasets: Iterable[Mapping[str, Any]],
    encoded: Sequence[Mapping[str, Any]] = (),
    origin: Mapping[str, Any] = provenance.NOWHERE,
    refused: pd.DataFrame | None = None,
    evaluations: Iterable[str | Path] = (),
    collections: rows.Collections | None = None,
    rules: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Collect these probe artefacts and write the tables of the config's experiment.

    `datasets`: what `texts.describe` says of each dataset; `encoded`: what `layout.encoded` says;
    `origin`: what `provenance.origin` says; `refused`: what `lora.left_out` says; `evaluations`:
    artefacts of fits tried on other collections; `collections` and `rules`: what the fits read and
    where their thresholds lie (`layout.threshold_rules`), for the tables of single rows.
    """
    extensions.loaded(config)
    probes = list(probes)
    table, skipped = tables.collect(probes, config["experiment"])
    known = tables.dataset_table(datasets, provenance.facts(origin["reads"]))
    more = {"refused": refused} if refused is not None else {}
    more |= {"saes": saes.codes_table(encoded), "sae_training": saes.training_table(encoded)}
    more["transfer"] = transfer.matrix(transfer.collect(evaluations))
    write_tables(
        config, table, skipped, known, provenance.table(origin, table["key"], config), more
    )
    if collections is not None and config.get("probes"):
        write_rows(config, rules or {}, collections)


def write_rows(
    config: Mapping[str, Any],
    rules: Mapping[str, Mapping[str, Any]],
    collections: rows.Collections,
) -> None:
    """Write the score of every row of the kept fits, the rows that they get most wrong, their false
    alarms, and how two and two of them differ on the same rows.

    rules: fit files -> their rule of the threshold (`layout.threshold_rules`).
    """
    root = Path(layout.folder(config))
    out = {name: root / path for name, path in layout.ROW_TABLES.items()}
    of_fits = list(rows.frames(rules, collections, config["experiment"]))
    rows.write_scores(rows.scores(of_fits), out["scores"])
    texts = config["results"]["texts"]
    csvs.write(rows.errors(of_fits, collections, texts=texts), out["errors"])
    csvs.write(alarms.table(rules, config["experiment"]), out["alarms"])
    csvs.write(paired.table(rules, collections, config["experiment"]), out["paired"])


def write_tables(
    config: Mapping[str, Any],
    table: pd.DataFrame,
    skipped: pd.DataFrame,
    datasets: pd.DataFrame,
    origin: pd.DataFrame | None = None,
    more: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write a tidy table and all that follows from it; equal input gives equal bytes.

    origin: what `provenance.table` says; more: tables that do not follow from this one, by name.
    """
    level = config["results"]["confidence"]
    paths = {name: Path(path) for name, path in layout.outputs(config).items()}
    paths["probes"].parent.mkdir(parents=True, exist_ok=True)
    tables.write_parquet(table, paths["probes"])
    of_texts = table[table["columns"] == ""]
    told = confusion.shown(table, config["results"]["confusion"] == "all")
    found = {
        "probes_csv": table,
        "summary": tables.summarise(of_texts, level),
        "comparisons": compare.comparison_table(table, level),
        "quiver": select.quiver_table(of_texts, level),
        "confusion": confusion.confusions(told),
        "datasets": datasets,
        "skipped": tables.without_number(table, skipped),
        "provenance": provenance.table(provenance.NOWHERE) if origin is None else origin,
        "refused": pd.DataFrame(columns=REFUSED),
        **(more or {}),
    }
    if "representations" in paths:
        runs = features.of_features(table)
        summary, of_modules = features.summarise(runs), lambda s: s["columns"] == EACH
        found["representations"] = summary[~of_modules(summary)]
        found["modules"] = summary[of_modules(summary)]
        found["choices"] = features.choices(runs)
    if "directions" in paths:
        found["directions"] = directions.view(table)
    for name, path in paths.items():
        if name != "probes" and name not in layout.ROW_TABLES:
            form = "%.6g" if name in layout.FEATURE_TABLES else None
            csvs.write(found[name], path, float_format=form)
