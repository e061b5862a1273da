"""The one-page report: its parts in their order, with all that they show inside the file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from actprobe.base import pages
from actprobe.config import plain
from actprobe.report import (
    alarms,
    claims,
    confusions,
    datasets,
    directions,
    errors,
    features,
    headlines,
    layout,
    paired,
    saes,
    transfer,
)
from actprobe.report.figures.style import NOTHING
from actprobe.results import provenance, scores
from actprobe.results.make import Written
from actprobe.results.select import TIES


def links(contexts: Sequence[str]) -> list[dict[str, str]]:
    """This page, without a link, and those of top contexts (their paths): `href` and `name` of each;
    none where there is no other page."""
    others = [
        {"href": f"contexts/{p.name}", "name": f"Top contexts: {p.stem}"}
        for p in map(Path, contexts)
    ]
    return [{"href": "", "name": "Probes"}, *others] if others else []


def write(
    path: Path,
    found: Written,
    config: Mapping[str, Any],
    drawn: Sequence[str],
    contexts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    of_rows: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write the page to `path`; figures are read from the folder `figures` beside it.

    The page holds everything it shows and opens without a network; its links lead to the tables
    beside it. `config` is the resolved config; `warnings` are about directions; `of_rows`: the tables
    of `read_of_rows`. Equal input gives equal bytes.
    """
    of_rows = of_rows or {}
    of_texts, words = found.of_texts, _words(found.of_texts)
    files = {name: path.parent / "figures" / f"{name}.svg" for name in drawn}
    shown = {
        name: figure(svg, score=words["score"])
        for name, svg in files.items()
        if f'id="{NOTHING}"'.encode() not in svg.read_bytes()
    }
    text = pages.template("actprobe.report", "report.html.j2").render(
        experiment=config["experiment"],
        links=links(contexts),
        headline=headlines.lines(found),
        figures=[
            f for name, f in shown.items() if name not in (*layout.DIRECTIONS, layout.TRANSFER)
        ],
        **words,
        confidence=f"{config['results']['confidence']:.0%}",
        of_texts="representations" not in found or len(of_texts),
        datasets=datasets.by_dataset(of_texts, found["datasets"]),
        features=features.tables(found) if "representations" in found else None,
        metrics=datasets.all_metrics_by_probe(of_texts),
        mistakes=confusions.mistakes(found["confusion"]),
        transfer=transfer.part(found),
        transfer_figure=shown.get(layout.TRANSFER),
        alarms=alarms.part(of_rows.get("alarms"), of_texts),
        paired=paired.part(of_rows.get("paired"), of_texts),
        errors=errors.part(of_rows.get("errors"), of_texts),
        comparisons=claims.comparisons(found["comparisons"]),
        quivers=claims.quivers(found["quiver"]),
        tie_rule=TIES["methods"],
        saes=saes.about(found["saes"]),
        directions=directions.part(found["directions"], warnings)
        if "directions" in found
        else None,
        drawn=[shown[name] for name in layout.DIRECTIONS if name in shown],
        skipped=datasets.left_out(found["skipped"], of_texts, found["datasets"]),
        provenance=found["provenance"].to_dict("records"),
        version=provenance.version("actprobe"),
        imported=config.get("imported"),
        config=yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True),
    )
    path.write_text(text, encoding="utf-8")


def figure(svg: Path, **words: str) -> dict[str, str]:
    """An SVG file as a `uri` that needs no file beside the page, and its `caption` with these words.

    Captions are templates, as Snakemake's report reads them too.
    """
    written = Path(layout.caption(svg.stem)).read_text(encoding="utf-8")
    caption = scores.upper(" ".join(jinja2.Template(written).render(words).split()))
    data = base64.b64encode(svg.read_bytes()).decode()
    return {"uri": f"data:image/svg+xml;base64,{data}", "caption": caption}


def _words(table: pd.DataFrame) -> dict[str, str]:
    """What the scores of this table are called: `score`, and `validation` for those that choose."""
    names = scores.in_order(table.loc[table["test_score"].notna(), "metric"])
    found = [scores.known(n) for n in names] or [scores.metric_of(table.iloc[:0])]
    return {
        "score": scores.any_of(m.label for m in found),
        "validation": scores.any_of(f"validation {scores.short(m)}" for m in found),
    }
