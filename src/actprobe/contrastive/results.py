"""What the report rule calls: tables, vectors, figures and the page from the artefacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actprobe import csvs, provenance
from actprobe.contrastive import figures, files, report, tables
from actprobe.contrastive.layout import PROVENANCE, TABLE, VECTORS
from actprobe.errors import ActprobeError
from actprobe.results.layout import folder


def make_results(
    config: Mapping[str, Any],
    directions: Iterable[str],
    baselines: Iterable[str],
    texts: Iterable[str],
    origin: Mapping[str, Any] = provenance.NOWHERE,
    contexts: Sequence[str] = (),
) -> list[str]:
    """Write everything below `{results_dir}/{experiment}`; returns the headline lines.

    directions, baselines, texts: paths of their artefacts; origin: what `provenance.origin` says;
    contexts: pages of top contexts to link to. Raises ActprobeError where a bad input was skipped and
    skipping is no longer allowed.
    """
    root = Path(folder(config))
    found, skipped = tables.load(directions)
    if config["on_bad_dataset"] == "stop" and skipped:
        reasons = "\n  ".join(dict.fromkeys(s["reason"] for s in skipped))
        raise ActprobeError(f"these inputs cannot be used:\n  {reasons}")
    text_rows, more = tables.read_baselines(baselines)
    made = tables.table(found, text_rows, config["experiment"])
    path = root / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    csvs.write(made, path)
    origins = provenance.table(origin, made["key"], config)
    csvs.write(origins, root / PROVENANCE)
    wanted = {name for d in found for name in (*d.validated, d.facts["train"])}
    data = files.load_texts(texts, wanted)
    (root / VECTORS).mkdir(exist_ok=True)
    files.write(root / VECTORS, found, data)
    figures.write(root, made, found, tables.cosines(found))
    warnings = [*report.answer_warnings(data), *report.reading_warnings(origin["reads"])]
    page = report.Page(made, [*skipped, *more], warnings, origins, contexts)
    report.write(root, page, config)
    return report.headline(made)


def told(config: Mapping[str, Any]) -> list[str]:
    """The headline lines of results whose table is written."""
    return report.headline(tables.read(Path(folder(config)) / TABLE))
