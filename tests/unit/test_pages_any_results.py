"""Contrastive and LoRA results become figures and pages whatever is in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import product
from pathlib import Path
from typing import Any

import canvas
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from printed import Page
from results_tables import KINDS, name

from actprobe import report, results
from actprobe.lora import REPRESENTATIONS
from actprobe.probes.columns import EMPTY
from actprobe.probes.feature_targets import EACH
from actprobe.report import directions as told
from actprobe.report import figures as drawn
from actprobe.report import layout as shown
from actprobe.report import page
from actprobe.report.figures import style
from actprobe.results import confusion, csvs, features, layout, tables
from actprobe.results import directions as of_directions
from actprobe.results.directions import Applied

CONFIG = {"experiment": "e", "probes": [{}]}
RESULTS = {"confidence": 0.95, "confusion": "multiclass"}
SLOWLY = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def seen(monkeypatch) -> list[str]:
    """What is wrong with the figures that are saved."""
    return watch(monkeypatch)


def watch(patch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    save = style.save

    def look(fig, stem: Path) -> None:
        save(fig, stem)
        found.extend(f"{stem.name}: {fault}" for fault in canvas.faults(fig))
        ET.parse(stem.with_suffix(".svg"))

    patch.setattr(style, "save", look)
    patch.setattr(style, "_PIXELS", 1000)
    return found


def check_page(path: Path) -> None:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.alike() == []
    assert "b" not in page.tags, "names are no markup"


def directions(
    kind: str, trains: int, models: int, layers: int, methods: int, validations: int, gone: str
) -> list[Applied]:
    """Directions of every training set, model and layer; `gone` says what is missing in them."""
    rng = np.random.default_rng(0)
    names = ["mean_difference", "logreg", "lda"][:methods]
    y = np.zeros(20, np.uint8) if gone == "class" else np.arange(20, dtype=np.uint8) % 2
    null = np.linspace(0.3, 0.7, 50)
    found = []
    shape = (range(trains), range(models), range(-1, layers - 1), names, range(validations))
    for n, (t, m, layer, method, v) in enumerate(product(*shape)):
        site = "embed" if layer < 0 else f"resid_post.{layer}"
        model, test_set = name(kind, f"m{m}"), name(kind, f"v{v}")
        unit = rng.standard_normal(4)
        unit /= np.linalg.norm(unit)
        scores = rng.standard_normal((20, 4))
        if gone == "direction":
            unit, scores = unit * 0, scores * 0
        nothing = gone in ("interval", "class")
        row = {
            **EMPTY, "protocol": "contrastive-1", "setting": "normal", "kind": "binary", "metric": "auc",
            "dataset": name(kind, f"t{t}"), "label": "", "source": f"{model}/{site}.last",
            "model": model, "site": site, "position": "last", "score_at": "tokens", "seed": 0,
            "test_set": test_set, "condition": f"{test_set}@tokens", "positive": "=yes", "n_train": 40,
            "n_test": 20, "compare_with": "", "left_out": "<b>!</b>", "warning": "<b>!</b>",
            "converged": True,
            "method": method, "norm": float(np.linalg.norm(unit)), "train_score": 1.0, "key": f"k{n}",
            "val_score": np.nan if gone == "val" else float(rng.random()),
            "val_d": np.nan if gone == "val" else 1.0,
            "test_score": np.nan if gone == "class" else 0.6,
            "reason": "one class in the test set" if gone == "class" else "",
            "ci_low": np.nan if nothing else 0.5, "ci_high": np.nan if nothing else 0.7,
            "p_random": 0.2, "p_permuted": 0.3,
            **{f"null_{k}_{end}": at for k in ("random", "permuted")
               for end, at in (("low", 0.3), ("high", 0.7))},
            **dict.fromkeys(("length_corr", "first_token", "cos_compare"), np.nan),
            "auc_without_compare": np.nan,
        }  # fmt: skip
        tokens, at = np.full(20, 5, np.int32), np.arange(20)
        nulls = {"random": null, "permuted": null}
        found.append(Applied(row, unit, unit, unit, at, y, scores, tokens, nulls))
    return found


def contrastive(folder: Path, **shape: Any) -> None:
    found = directions(**shape)
    text = {"source": "texts", "model": "", "site": "", "position": "", "score_at": "", "key": "t"}
    baselines = [
        {**d.row, **text, "condition": d.row["test_set"], "method": m, "test_score": 0.5, "reason": "",
         "ci_low": np.nan, "ci_high": np.nan}
        for d in found for m in ("baseline_length", "baseline_tfidf")
    ]  # fmt: skip
    rows = pd.DataFrame([*(d.row for d in found), *baselines])
    rows = rows.drop_duplicates(["dataset", "source", "condition", "method", "model", "site"])
    config = {**CONFIG, "results_dir": str(folder), "results": RESULTS,
              "probes": [{"protocol": "contrastive-1", "settings": ["normal"]}]}  # fmt: skip
    table = tables.tidy(rows.assign(experiment="e"))
    skipped = pd.DataFrame(columns=tables.SKIPPED)
    results.write_tables(config, table, skipped, tables.dataset_table([]))
    written, root = results.read_tables(config), folder / "e"
    lines = told.headline(written["directions"])
    assert lines == told.headline(of_directions.view(table))
    assert not any("nan" in line for line in lines)
    drawn.write(written, found, root / "figures", shown.figures(config), 0.95)
    page.write(root / shown.PAGE, written, config, shown.figures(config))
    check_page(root / shown.PAGE)


USUAL = {
    "kind": "short",
    "trains": 1,
    "models": 1,
    "layers": 3,
    "methods": 2,
    "validations": 1,
    "gone": "",
}


@pytest.mark.parametrize(
    "shape",
    [
        {"layers": 1, "methods": 1},
        {"gone": "class"},
        {"gone": "val"},
        {"gone": "direction"},
        {"gone": "interval", "layers": 40, "methods": 3},
        {"kind": "mixed", "models": 3, "validations": 2, "methods": 3},
    ],
    ids=str,
)
def test_contrastive_results_become_files_that_can_be_read(shape, tmp_path, seen):
    contrastive(tmp_path, **(USUAL | shape))
    assert seen == []


@pytest.mark.slow
@SLOWLY
@given(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["mixed", *sorted(KINDS)]),
            "trains": st.integers(1, 2),
            "models": st.integers(1, 3),
            "layers": st.sampled_from([1, 2, 9, 20]),
            "methods": st.integers(1, 3),
            "validations": st.integers(1, 3),
            "gone": st.sampled_from(["", "class", "val", "interval", "direction"]),
        }
    )
)
def test_any_contrastive_results_become_files_that_can_be_read(tmp_path_factory, shape):
    with pytest.MonkeyPatch.context() as patch:
        found = watch(patch)
        contrastive(tmp_path_factory.mktemp("any") / "e", **shape)
    assert found == []


def lora(
    folder: Path, kind: str, probes: int, collections: int, methods: int, subsets: int, classes: int,
    modules: int, gone: str,
) -> None:  # fmt: skip
    """Tables of probes of LoRA weights of this shape, then figures and page."""
    rng = np.random.default_rng(0)
    representations = ["stats", "left_projector", "norm_only", "recipe_only"]
    cells = [
        (name(kind, f"p{p}"), "normal", name(kind, f"c{c}"), "", "acc", f"c/{r}",
         name(kind, f"s{s}"), "", ["ridge", "mlp", "tree"][m])
        for p, c, r, s, m in product(range(probes), range(collections), representations,
                                     range(subsets), range(methods))
    ]  # fmt: skip
    module = "unet.down_blocks.{}.attentions.0.transformer_blocks.0.attn1.to_q".format
    single = [
        (
            name(kind, "p0"),
            "normal",
            name(kind, "c0"),
            "",
            "acc",
            f"c/{r}",
            EACH,
            module(i),
            "ridge",
        )
        for r, i in product(["stats", "norm_only"], range(modules))
    ]
    summary, of_modules = (_summary(c, gone, rng) for c in (cells, single))
    chosen = summary.drop_duplicates(features.WHERE)
    choices = chosen.assign(among=9, most="stats, *, ridge", of_runs=3)[features.CHOICES]
    names = [name(kind, f"k{i}") for i in range(classes)]
    pairs = [(a, b, 3) for a, b in zip(names, names[1:] + names[:1], strict=True)]
    read = [dict(zip(features.CELL, cell, strict=True)) for cell in cells if cell[5] == "c/stats"]
    columns = confusion.CONFUSIONS
    first = {tuple(cell[c] for c in features.WHERE): i for i, cell in reversed([*enumerate(read)])}
    counts = [
        {**dict.fromkeys(columns, ""), "k": None, "chosen": i in first.values(), **cell,
         **dict(zip(("true", "predicted", "n"), pair, strict=True))}
        for i, cell in enumerate(read) for pair in pairs
    ]  # fmt: skip
    refused = pd.DataFrame(
        [["c", "=x", "<b>bad</b>"]] * 2 + [["c", "y", "bad"]],
        columns=["collection", "id", "reason"],
    )
    found = {
        "representations": summary,
        "modules": of_modules,
        "choices": choices,
        "confusion": pd.DataFrame(counts, columns=columns),
        "refused": refused,
    }
    config = {**CONFIG, "results_dir": str(folder), "results": RESULTS,
              "probes": [{"protocol": "lora-1", "settings": ["normal"]}]}  # fmt: skip
    nothing = tables.tidy(pd.DataFrame(columns=["experiment"]))
    skipped = pd.DataFrame(columns=tables.SKIPPED)
    results.write_tables(config, nothing, skipped, tables.dataset_table([]))
    for key, table in found.items():
        csvs.write(table, layout.outputs(config)[key], float_format="%.6g")
    report.make_figures(config)
    report.make_report(config)
    check_page(folder / "e/report.html")
    assert not any("nan" in line for line in report.told(config))


def _summary(cells: list[tuple], gone: str, rng: np.random.Generator) -> pd.DataFrame:
    made = pd.DataFrame(cells, columns=features.CELL)
    scores = rng.random(len(made))
    filled = {c: scores if c.startswith(("test", "val", "train")) else 0.4
              for c in features.columns() if c not in made}  # fmt: skip
    made = made.assign(**filled)
    made["ci_low"], made["ci_high"] = scores * 0.9, np.minimum(1, scores * 1.1)
    made["outliers"], made["reason"], made["n_runs"] = "", "", 5
    if gone == "val":
        made["val_score"] = np.nan
    if gone == "interval":
        made[["ci_low", "ci_high", "norm_only", "recipe_only"]] = np.nan
    if gone == "all":
        made[["test_score", "val_score", "n_train", "ci_low", "ci_high"]] = np.nan
        made["reason"] = "one class"
    return made[features.columns()]


PLAIN = {"kind": "short", "probes": 1, "collections": 1, "methods": 1, "subsets": 2, "classes": 3,
         "modules": 4, "gone": ""}  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [
        {"subsets": 1, "classes": 2, "modules": 0},
        {"gone": "val", "classes": 20},
        {"gone": "interval", "classes": 60},
        {"gone": "all"},
        {
            "kind": "alike",
            "probes": 2,
            "collections": 2,
            "methods": 2,
            "classes": 20,
            "modules": 20,
        },
        {"kind": "long", "subsets": 9, "classes": 300, "modules": 300},
        {"kind": "mixed", "probes": 2, "collections": 2, "methods": 3, "classes": 30},
    ],
    ids=str,
)
def test_lora_results_become_files_that_can_be_read(shape, tmp_path, seen):
    assert set(PLAIN) >= set(shape) and "stats" in REPRESENTATIONS
    lora(tmp_path, **(PLAIN | shape))
    assert seen == []


@pytest.mark.slow
@SLOWLY
@given(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["mixed", *sorted(KINDS)]),
            "probes": st.integers(1, 2),
            "collections": st.integers(1, 3),
            "methods": st.integers(1, 3),
            "subsets": st.sampled_from([1, 3, 8]),
            "classes": st.sampled_from([1, 2, 8, 30, 100]),
            "modules": st.sampled_from([0, 1, 12, 130]),
            "gone": st.sampled_from(["", "val", "interval", "all"]),
        }
    )
)
def test_any_lora_results_become_files_that_can_be_read(tmp_path_factory, shape):
    with pytest.MonkeyPatch.context() as patch:
        found = watch(patch)
        lora(tmp_path_factory.mktemp("any"), **shape)
    assert found == []
