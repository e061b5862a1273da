"""What the rules call: tables from probe results, then figures and report from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from actprobe import csvs, provenance
from actprobe.lora import REFUSED
from actprobe.probes import extensions
from actprobe.probes.feature_targets import EACH
from actprobe.results import (
    compare,
    confusion,
    features,
    figures,
    layout,
    report,
    rows,
    saes,
    select,
    tables,
    transfer,
)
from actprobe.results.layout import FEATURE_TABLES, FEATURES, SAE_TABLES, TABLES, TRAINING, folder
from actprobe.results.views import baseline

_TEXT = [*select.SLICE, "label", "probe", "source", "reference", "candidates", "p_note"]
_TEXT += [*tables.SKIPPED[:-1], "classes", "read_by", "provenance"]  # all but the number of fits
_TEXT += ["sae", "architecture", "note", "key", *provenance.COLUMNS]
_FEATURE_TEXT = [
    *features.CELL,
    "reason",
    "outliers",
    "most",
    "true",
    "predicted",
    "collection",
    "id",
]


def make_tables(
    config: Mapping[str, Any],
    probes: Iterable[str | Path],
    datasets: Iterable[Mapping[str, Any]],
    encoded: Sequence[Mapping[str, Any]] = (),
    origin: Mapping[str, Any] = provenance.NOWHERE,
    refused: pd.DataFrame | None = None,
    evaluations: Iterable[str | Path] = (),
    collections: rows.Collections | None = None,
) -> None:
    """Collect these probe artefacts and write the tables of the config's experiment.

    `datasets`: what `texts.describe` says of each dataset; `encoded`: what `layout.encoded` says;
    `origin`: what `provenance.origin` says; `refused`: what `lora.left_out` says; `evaluations`:
    artefacts of fits tried on other collections; `collections`: what the fits read, for the tables of
    single rows.
    """
    extensions.loaded(config)
    probes = list(probes)
    table, skipped = tables.collect(probes, config["experiment"])
    known = tables.dataset_table(datasets, provenance.facts(origin["reads"]))
    where_from = provenance.table(origin, table["key"], config)
    write_tables(config, table, skipped, known, where_from, refused)
    if layout.has_evaluations(config):
        cells = transfer.matrix(transfer.collect(evaluations))
        csvs.write(cells, Path(folder(config)) / layout.TRANSFER_TABLES["transfer"])
    if collections is not None and config.get("probes"):
        write_rows(config, probes, collections)
    if config.get("saes"):
        root = Path(folder(config))
        csvs.write(saes.codes_table(encoded), root / SAE_TABLES["saes"])
        csvs.write(saes.training_table(encoded), root / SAE_TABLES["sae_training"])


def write_rows(
    config: Mapping[str, Any], probes: Sequence[str | Path], collections: rows.Collections
) -> None:
    """Write the score of every row of the kept fits, and the rows that they get most wrong."""
    root = Path(folder(config))
    out = {name: root / path for name, path in layout.ROW_TABLES.items()}
    rows.write_scores(rows.scores(probes, collections, config["experiment"]), out["scores"])
    csvs.write(rows.errors(probes, collections, config["experiment"]), out["errors"])


def write_tables(
    config: Mapping[str, Any],
    table: pd.DataFrame,
    skipped: pd.DataFrame,
    datasets: pd.DataFrame,
    origin: pd.DataFrame | None = None,
    refused: pd.DataFrame | None = None,
) -> None:
    """Write a tidy table and all that follows from it; equal input gives equal bytes.

    origin: what `provenance.table` says; refused: what `lora.left_out` says.
    """
    level = config["results"]["confidence"]
    out = {name: Path(folder(config)) / path for name, path in TABLES.items()}
    out["probes"].parent.mkdir(parents=True, exist_ok=True)
    csvs.write(table, out["probes_csv"])
    tables.write_parquet(table, out["probes"])
    if layout.has_features(config):
        _write_features(config, features.of_features(table), refused)
    of_texts = table[table["columns"] == ""]
    csvs.write(tables.summarise(of_texts, level), out["summary"])
    csvs.write(compare.comparison_table(of_texts, level), out["comparisons"])
    csvs.write(select.quiver_table(of_texts, level), out["quiver"])
    csvs.write(datasets, out["datasets"])
    csvs.write(tables.without_number(table, skipped), out["skipped"])
    origin = provenance.table(provenance.NOWHERE) if origin is None else origin
    csvs.write(origin, out["provenance"])


def _write_features(
    config: Mapping[str, Any], runs: pd.DataFrame, refused: pd.DataFrame | None
) -> None:
    summary = features.summarise(runs)
    of_modules = summary["columns"] == EACH
    found = {
        "representations": summary[~of_modules],
        "modules": summary[of_modules],
        "choices": features.choices(runs),
        "confusion": confusion.confusions(runs),
        "refused": pd.DataFrame(columns=REFUSED) if refused is None else refused,
    }
    for name, path in FEATURE_TABLES.items():
        csvs.write(found[name], Path(folder(config)) / path, float_format="%.6g")


def make_figures(config: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Draw the figures that the config calls for (or `names`) from the written tables."""
    extensions.loaded(config)
    root = Path(folder(config))
    level = config["results"]["confidence"]
    table = tables.read_probes(root / TABLES["probes"])
    names = list(names or layout.figures_of(config))
    of_texts = [n for n in names if n in figures.FIGURES]
    figures.write_figures(table[table["columns"] == ""], root, of_texts, level)
    if set(FEATURES) & set(names):
        found = _features(root)
        figures.write_features(found["representations"], found["modules"], found["confusion"], root)
    if TRAINING in names:
        figures.write_training(_read(root / SAE_TABLES["sae_training"]), root)


def make_report(
    config: Mapping[str, Any],
    names: Iterable[str] | None = None,
    contexts: Sequence[str] = (),
    parts: Sequence[Markup] = (),
) -> list[str]:
    """Write the report from the written tables and figures; returns the headline lines.

    contexts: pages of top contexts to link to; parts: of the page that others made.
    """
    root = Path(folder(config))
    drawn = list(names or layout.figures_of(config))
    page = _page(root, drawn, config, contexts)
    report.write_report(root / layout.REPORT, page, config, parts)
    return page.headline


def told(config: Mapping[str, Any]) -> list[str]:
    """The headline lines of results whose tables are written."""
    return _page(Path(folder(config)), [], config).headline


def _page(
    root: Path, drawn: Sequence[str], config: Mapping[str, Any], contexts: Sequence[str] = ()
) -> report.Page:
    extensions.loaded(config)
    table = tables.read_probes(root / TABLES["probes"])
    names = ("skipped", "datasets", "comparisons", "quiver")
    skipped, datasets, comparisons, quivers = (_read(root / TABLES[n]) for n in names)
    path = root / SAE_TABLES["saes"]
    codes = _read(path) if config.get("saes") and drawn else pd.DataFrame(columns=saes.CODES)
    known = _read(root / TABLES["provenance"])
    found = _features(root) if layout.has_features(config) else {}
    of_texts = table[table["columns"] == ""]
    return report.Page(
        of_texts, skipped, datasets, comparisons, quivers, codes, known, drawn, contexts, found
    )


def _features(root: Path) -> dict[str, pd.DataFrame]:
    """The written tables of features by name."""
    return {name: csvs.read(root / path, _FEATURE_TEXT) for name, path in FEATURE_TABLES.items()}


def _read(path: Path) -> pd.DataFrame:
    return csvs.read(path, _TEXT)


def make_published(source: str | Path, config: Mapping[str, Any]) -> list[str]:
    """Tables, figures and report of published results below `source`; returns the headline lines.

    `config` holds experiment, results_dir and results. The layouts that are read are those of
    `published.import_published`.
    """
    from actprobe.results.published import import_published, inputs

    config = {**config, "imported": str(source)}
    table = import_published(source, config["experiment"])
    names = sorted(table["dataset"].unique(), key=tables.natural)
    nothing = pd.DataFrame(columns=tables.SKIPPED)
    datasets = tables.dataset_table({"dataset": name} for name in names)
    origin = {"inputs": inputs(source, table["origin"]), "reads": []}
    write_tables(config, table, nothing, datasets, provenance.table(origin))
    saes = bool((~baseline(table)).any())
    drawn = layout.figures(set(table["setting"]), saes)
    make_figures(config, drawn)
    return make_report(config, drawn)
