"""The part of the page about directions: what was found, against which controls, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import interval, number
from actprobe.report.figures.runs import layer_name, read_at
from actprobe.results import provenance
from actprobe.results.directions import RULE, RUN
from actprobe.texts import Texts

Row = Mapping[str, Any]
MOST_ROWS = 120
BASELINES = {
    "baseline_length": "number of characters",
    "baseline_tfidf": "words of the training set (TF-IDF, logistic regression)",
    "baseline_tfidf_in_domain": "words of the validation set itself, up to five folds",
}


def headline(table: pd.DataFrame) -> list[str]:
    """One line per run and validation set: the number at the layer that the training rows
    chose, or that they could not choose one."""
    lines = []
    for r in table[table["chosen"]].itertuples():
        low, high = r.null_permuted_low, r.null_permuted_high
        where = "inside" if low <= r.test_auc <= high else "outside"
        band = f"{where} the null band of {r.method} on permuted labels, {low:.3f} to {high:.3f}"
        if pd.isna(low):
            band = "no null band (its warning says why)"
        if pd.isna(r.test_auc):
            band = "of its rows one class is missing"
        lines.append(
            f"{r.train} → {r.dataset}, {r.model}, {r.method}: AUROC {number(r.test_auc) or 'not known'}"
            f"{_interval(r)} for {r.positive} at {r.site} ({read_at(r.position, r.score_at)}), "
            f"chosen by held-out training rows; {band}."
        )
    fits = table[table["source"] != ""].drop_duplicates([*RUN, "dataset"])
    decided = set(table.loc[table["chosen"], RUN].itertuples(index=False, name=None))
    lines += [
        f"{r.train} → {r.dataset}, {r.model}, {r.kind}, {r.method} "
        f"({read_at(r.position, r.score_at)}): no layer is chosen: the "
        "training rows cannot be held out (folds without both classes, or one group)."
        for r in fits.itertuples()
        if tuple(getattr(r, c) for c in RUN) not in decided
    ]
    return lines or ["No direction has a number."]


def answer_warnings(data: Mapping[str, Texts]) -> list[str]:
    """Datasets of pairs in which an answer tells its class, so that a direction may mean no more
    than the answer's letters."""
    found = []
    for name, t in data.items():
        for answer, (negative, positive) in t.facts.get("answers", {}).items():
            total = negative + positive
            if total and abs(positive / total - 0.5) > 0.1:
                found.append(
                    f"{name}: {answer!r} is the positive answer in {positive} of {total} of its "
                    "rows: the letters do not cancel, and the direction may be theirs."
                )
    return found


def reading_warnings(reads: Iterable[Mapping[str, Any]]) -> list[str]:
    """Datasets that a model did not read as they are written. reads: of `provenance.origin`."""
    found = []
    for r in provenance.facts(reads):
        for name, words in (
            ("n_truncated", "are too long and were cut short"),
            ("n_special_in_text", "spell out special tokens"),
        ):
            if r[name]:
                of = f" of {r['n_rows']}" if r["n_rows"] else ""
                found.append(f"{r['dataset']}, {r['model']}: {r[name]}{of} texts {words}.")
    return found


def part(table: pd.DataFrame, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """What the template shows of the written table; `warnings` come from elsewhere."""
    fits, baselines = table[table["source"] != ""], table[table["source"] == ""]
    compare = ", ".join(sorted(set(fits["compare_with"]) - {""}))
    left_out = dict.fromkeys(why for why in fits["left_out"] if why)
    shown = fits if len(fits) <= MOST_ROWS else fits[fits["chosen"]].head(MOST_ROWS)
    more = f"{len(shown)} of {len(fits):,} rows are shown, of layers that were chosen."
    return {
        "headline": headline(table),
        "rule": RULE,
        "warnings": [*warnings, *(f"Not compared with {why}" for why in left_out)],
        "compare": compare
        and f"Cosine: with the mean difference of {compare}; in small print the AUROC without it.",
        "tables": [
            pages.table(
                rows, _COLUMNS, 1, title=_title(rows.iloc[0]), wrap=["warning"], sortable=False
            )
            for _, rows in shown.groupby([*RUN, "dataset"], sort=False)
        ],
        "more": more if len(shown) < len(fits) else "",
        "baselines": pages.table(baselines, _OF_TEXT, 3, MOST_ROWS),
    }


def _cell(text: Callable[[Row], str], small: Callable[[Row], str] | None = None) -> pages.Cell:
    """A cell with small print below, bold at the layer that was chosen."""
    return lambda r: {
        "text": text(r),
        "small": small(r) if small else "",
        "css": "best" * bool(r["chosen"]),
    }


def _null(kind: str) -> pages.Cell:
    """The share of null directions that do as well, and their band."""
    low, high = f"null_{kind}_low", f"null_{kind}_high"
    return _cell(
        lambda r: "" if pd.isna(r[low]) else f"p {r[f'p_{kind}']:.3f}",
        lambda r: interval(r[low], r[high], between="–"),
    )


_COLUMNS: dict[str, pages.Cell] = {
    "layer": _cell(lambda r: layer_name(r["layer"]) or r["site"]),
    "held out": _cell(lambda r: number(r["val_auc"]), lambda r: f"d′ {number(r['val_d'], '.2f')}"),
    "AUROC": _cell(
        lambda r: number(r["test_auc"]), lambda r: interval(r["ci_low"], r["ci_high"], between="–")
    ),
    "permuted labels": _null("permuted"),
    "random directions": _null("random"),
    "r with 1/length": _cell(lambda r: number(r["length_corr"], ".2f")),
    "cosine": _cell(
        lambda r: number(r["cos_compare"], ".2f"), lambda r: number(r["auc_without_compare"])
    ),
    "warning": _cell(lambda r: r["warning"]),
}
_OF_TEXT: dict[str, pages.Cell] = {
    "training set": "train",
    "validation set": "dataset",
    "baseline": lambda r: BASELINES.get(r["method"], r["method"]),
    "AUROC": lambda r: number(r["test_auc"]),
    "95 % interval": lambda r: interval(r["ci_low"], r["ci_high"], between=", "),
}


def _title(r: Any) -> str:
    return (
        f"{r.method}: {r.train} ({r.n_train:.0f} rows) → {r.dataset} ({r.n_test:.0f} rows), "
        f"{r.model}, {r.kind}, {read_at(r.position, r.score_at)}"
    )


def _interval(r: Any) -> str:
    return "" if pd.isna(r.ci_low) else f" [{interval(r.ci_low, r.ci_high, between=', ')}]"
