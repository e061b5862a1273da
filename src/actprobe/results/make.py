"""What the rules call: tables from probe results, then figures and report from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actprobe.results import compare, figures, layout, report, saes, select, tables
from actprobe.results.headlines import headline
from actprobe.results.layout import SAE_TABLES, TABLES, TRAINING, folder
from actprobe.results.views import baseline


def make_tables(
    config: Mapping[str, Any],
    probes: Iterable[str | Path],
    datasets: Iterable[Mapping[str, Any]],
    encoded: Sequence[Mapping[str, str]] = (),
) -> None:
    """Collect these probe artefacts and write the tables of the config's experiment.

    `datasets`: what `texts.describe` says of each dataset; `encoded`: what `layout.encoded` says.
    """
    table, skipped = tables.collect(probes, config["experiment"])
    write_tables(config, table, skipped, tables.dataset_table(datasets))
    if config.get("saes"):
        root = Path(folder(config))
        tables.write_csv(saes.codes_table(encoded), root / SAE_TABLES["saes"])
        tables.write_csv(saes.training_table(encoded), root / SAE_TABLES["sae_training"])


def write_tables(
    config: Mapping[str, Any],
    table: pd.DataFrame,
    skipped: pd.DataFrame,
    datasets: pd.DataFrame,
) -> None:
    """Write a tidy table and all that follows from it; equal input gives equal bytes."""
    level = config["results"]["confidence"]
    out = {name: Path(folder(config)) / path for name, path in TABLES.items()}
    out["probes"].parent.mkdir(parents=True, exist_ok=True)
    tables.write_csv(table, out["probes_csv"])
    tables.write_parquet(table, out["probes"])
    tables.write_csv(tables.summarise(table, level), out["summary"])
    tables.write_csv(compare.comparison_table(table, level), out["comparisons"])
    tables.write_csv(select.quiver_table(table, level), out["quiver"])
    tables.write_csv(datasets, out["datasets"])
    tables.write_csv(tables.without_number(table, skipped), out["skipped"])


def make_figures(config: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Draw the figures that the config calls for (or `names`) from the written tables."""
    root = Path(folder(config))
    level = config["results"]["confidence"]
    table = tables.read_probes(root / TABLES["probes"])
    names = list(names or layout.figures_of(config))
    figures.write_figures(table, root, [n for n in names if n != TRAINING], level)
    if TRAINING in names:
        figures.write_training(pd.read_csv(root / SAE_TABLES["sae_training"]), root)


def make_report(config: Mapping[str, Any], names: Iterable[str] | None = None) -> list[str]:
    """Write the report from the written tables and figures; returns the headline lines."""
    root = Path(folder(config))
    table = tables.read_probes(root / TABLES["probes"])
    skipped, datasets = (
        pd.read_csv(root / TABLES[name], keep_default_na=False) for name in ("skipped", "datasets")
    )
    comparisons, quivers = (_read_numbers(root / TABLES[n]) for n in ("comparisons", "quiver"))
    drawn = list(names or layout.figures_of(config))
    path = root / SAE_TABLES["saes"]
    codes = pd.read_csv(path) if config.get("saes") else pd.DataFrame(columns=saes.CODES)
    page = report.Page(table, skipped, datasets, comparisons, quivers, codes, drawn)
    report.write_report(root / "report.html", page, config)
    return headline(table, page.targets_skipped)


def _read_numbers(path: Path) -> pd.DataFrame:
    """A written table in which an empty field is "" in text columns and NaN in the others."""
    text = [*select.SLICE, "probe", "source", "reference", "candidates", "p_note"]
    rows = pd.read_csv(path, dtype=dict.fromkeys(text, "str"))
    return rows.fillna({c: "" for c in text if c in rows})


def make_published(source: str | Path, config: Mapping[str, Any]) -> list[str]:
    """Tables, figures and report of published results below `source`; returns the headline lines.

    `config` holds experiment, results_dir and results. The layouts that are read are those of
    `published.import_published`.
    """
    from actprobe.results.published import import_published

    config = {**config, "imported": str(source)}
    table = import_published(source, config["experiment"])
    names = sorted(table["dataset"].unique(), key=tables.natural)
    nothing = pd.DataFrame(columns=tables.SKIPPED)
    datasets = tables.dataset_table({"dataset": name} for name in names)
    write_tables(config, table, nothing, datasets)
    saes = bool((~baseline(table)).any())
    drawn = layout.figures(set(table["setting"]), saes)
    make_figures(config, drawn)
    return make_report(config, drawn)
