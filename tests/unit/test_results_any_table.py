"""Tables become figures and pages whatever is in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import canvas
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from printed import Page
from results_tables import CONDITIONS, SHAPES, Shape, table

from actprobe import report, results
from actprobe.base import pages
from actprobe.report import figures
from actprobe.report.figures import style
from actprobe.results import layout, tables

EVERY = tuple(CONDITIONS)
SLOWLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
MIXED = "mixed"
EXAMPLES = {
    "one of everything": Shape(1, methods=1, layers=1),
    "C1 all test texts also train": Shape(3, missing=frozenset({"unseen"})),
    "no number but one": Shape(2, missing=frozenset({"dataset", "val", "interval", "counts"})),
    "no baselines": Shape(3, baselines=False, saes=2, missing=frozenset({"some"})),
    "names of all kinds, all settings": Shape(9, MIXED, 2, EVERY, models=2, methods=3, saes=2),
    "D4 names alike": Shape(4, "alike", 3, models=2, positions=2, saes=2),
    "many layers and SAEs": Shape(2, "long", layers=40, models=2, saes=8),
    "sites without layers": Shape(3, layers=0, saes=1, seeds=2),
    "1,000 datasets": Shape(1000, saes=1, ks=(1,)),
    "values": Shape(4, labels=("continuous",), settings=EVERY, methods=3, saes=2),
    "labels of all kinds": Shape(6, labels=("continuous", "binary", "multiclass"), saes=1),
    "one-versus-rest": Shape(
        3, "long", classes=12, methods=3, saes=1, settings=("normal", "scarcity")
    ),
}


def check(shape: Shape, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make everything of a table and look at it."""
    found: list[str] = []
    save = style.save

    def look(fig, stem: Path) -> None:
        save(fig, stem)
        found.extend(f"{stem.name}: {fault}" for fault in canvas.faults(fig))

    patch.setattr(style, "save", look)
    patch.setattr(style, "_PIXELS", 1000)  # coarse images are as good here
    made = table(shape)
    config = {
        "results_dir": str(folder),
        "experiment": "e",
        "results": {"confidence": 0.95, "confusion": "multiclass"},
        "probes": [{"settings": shape.settings}],
    }
    names = sorted(made["dataset"].unique())
    datasets = tables.dataset_table(
        [{"dataset": d, "classes": {"=no": 9, "<b>": 8}} for d in names]
    )
    results.write_tables(config, made, pd.DataFrame(columns=tables.SKIPPED), datasets)
    report.make_figures(config, names=list(figures.FIGURES))
    lines = report.make_report(config, names=list(figures.FIGURES))
    assert found == []
    assert lines == report.told(config) and all(line.endswith(".") for line in lines)
    files = [
        Path(layout.folder(config), "figures", f"{name}.{ext}")
        for name in figures.FIGURES
        for ext in ("svg", "png")
    ]
    assert all(f.stat().st_size > 0 for f in files)
    for f in files:
        if f.suffix == ".svg":
            ET.parse(f)
    pd.testing.assert_frame_equal(results.read_probes(folder / "e/tables/probes.csv"), made)
    text = (folder / "e/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.alike() == []
    assert "b" not in page.tags, "names are no markup"
    numbers = made[made["test_score"].notna()]
    told = [line for line in lines if "test AUC of" in line or "by layer" in line]
    assert all(any(p in line for p in set(numbers["protocol"])) for line in told)
    cells = {cell for t in page.tables for row in t for cell, _ in row}
    assert numbers.empty or set(map(pages.shown, names)) & cells


@pytest.mark.parametrize("shape", EXAMPLES.values(), ids=EXAMPLES)
def test_every_kind_of_table_becomes_files_that_can_be_read(shape, tmp_path, monkeypatch):
    check(shape, tmp_path, monkeypatch)


@pytest.mark.slow
@settings(max_examples=20, **SLOWLY)
@given(SHAPES)
def test_any_table_becomes_files_that_can_be_read(tmp_path_factory, shape):
    with pytest.MonkeyPatch.context() as patch:
        check(shape, tmp_path_factory.mktemp("any"), patch)
