"""What the rules call: table, vectors, figures and the part of the page about directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from actprobe import csvs
from actprobe.contrastive import artefact, figures, files, report, tables
from actprobe.contrastive.layout import TABLE, VECTORS
from actprobe.errors import ActprobeError
from actprobe.results.layout import TABLES, folder
from actprobe.results.tables import read_probes


def make_results(config: Mapping[str, Any], fits: Iterable[str], texts: Iterable[str]) -> None:
    """Write table, vectors and figures below `{results_dir}/{experiment}`, where the tidy table is.

    fits, texts: paths of their artefacts. Raises ActprobeError where a dataset to compare with was
    skipped and skipping is no longer allowed.
    """
    root = Path(folder(config))
    found = artefact.load_all(fits)
    left_out = dict.fromkeys(d.row["left_out"] for d in found if d.row["left_out"])
    if left_out and config["on_bad_dataset"] == "stop":
        reasons = "\n  ".join(left_out)
        raise ActprobeError(f"these datasets to compare with cannot be used:\n  {reasons}")
    made = tables.view(read_probes(root / TABLES["probes"]))
    csvs.write(made, root / TABLE)
    (root / VECTORS).mkdir(exist_ok=True)
    files.write(root / VECTORS, found, files.load_texts(texts, {d.row["test_set"] for d in found}))
    figures.write(root, made, found, tables.cosines(found))


def make_part(
    config: Mapping[str, Any], texts: Iterable[str], reads: Sequence[Mapping[str, Any]] = ()
) -> Markup:
    """The part of the page, from what `make_results` wrote. reads: of `provenance.origin`."""
    root = Path(folder(config))
    made = tables.read(root / TABLE)
    fits = made[made["source"] != ""]
    data = files.load_texts(texts, {*fits["train"], *fits["dataset"]})
    return report.part(root, data, reads)


def told(config: Mapping[str, Any]) -> list[str]:
    """The headline lines of results whose table is written."""
    return report.headline(tables.read(Path(folder(config)) / TABLE))
