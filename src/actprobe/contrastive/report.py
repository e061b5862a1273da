"""The part of the page about directions: what was found, against which controls, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from actprobe import pages, provenance
from actprobe.contrastive import tables
from actprobe.contrastive.layout import FIGURES, TABLE, VECTORS
from actprobe.contrastive.tables import RUN
from actprobe.contrastive.views import layer_name, read_at
from actprobe.pages import Table
from actprobe.texts import Texts

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
            f"{r.train} → {r.dataset}, {r.model}, {r.method}: AUROC {_number(r.test_auc) or 'not known'}"
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


def part(root: Path, data: Mapping[str, Texts], reads: Iterable[Mapping[str, Any]] = ()) -> Markup:
    """The part of the page about the directions below `root`, from the written table and figures.

    data: the datasets by name; reads: of `provenance.origin`. Equal input gives equal bytes.
    """
    table = tables.read(root / TABLE)
    fits = table[table["source"] != ""]
    compare = ", ".join(sorted(set(fits["compare_with"]) - {""}))
    warnings = [*answer_warnings(data), *reading_warnings(reads)]
    warnings += [f"Not compared with {why}" for why in dict.fromkeys(fits["left_out"]) if why]
    return Markup(
        pages.template("actprobe.contrastive", "part.html.j2").render(
            headline=headline(table),
            rule=tables.RULE,
            warnings=warnings,
            figures=[pages.figure(root / "figures" / f"{name}.svg") for name in FIGURES],
            compare=compare
            and f"Cosine: with the mean difference of {compare}; in small print the AUROC without it.",
            directions=_directions(fits),
            more=_more(fits),
            baselines=_baselines(table[table["source"] == ""]),
            table=TABLE,
            vectors=VECTORS,
        )
    )


_COLUMNS = [
    "layer", "held out", "AUROC", "permuted labels", "random directions", "r with 1/length",
    "cosine", "warning",
]  # fmt: skip


def _shown(fits: pd.DataFrame) -> pd.DataFrame:
    """All rows, or of many those of the layers that were chosen."""
    return fits if len(fits) <= MOST_ROWS else fits[fits["chosen"]].head(MOST_ROWS)


def _more(fits: pd.DataFrame) -> str:
    n = len(_shown(fits))
    return (
        f"{n} of {len(fits):,} rows are shown, of layers that were chosen." if n < len(fits) else ""
    )


def _directions(fits: pd.DataFrame) -> list[Table]:
    """A table for each run on each validation set."""
    return [
        Table(_COLUMNS, [_row(r) for r in rows.itertuples()], labels=1, title=_title(rows.iloc[0]),
              wrap=["warning"], sortable=False)
        for _, rows in _shown(fits).groupby([*RUN, "dataset"], sort=False)
    ]  # fmt: skip


def _title(r: Any) -> str:
    return (
        f"{r.method}: {r.train} ({r.n_train:.0f} rows) → {r.dataset} ({r.n_test:.0f} rows), "
        f"{r.model}, {r.kind}, {read_at(r.position, r.score_at)}"
    )


def _row(r: Any) -> list[dict[str, str]]:
    cells = [
        (layer_name(r.layer) or r.site, ""),
        (_number(r.val_auc), f"d′ {_number(r.val_d, 2)}"),
        (_number(r.test_auc), f"{_number(r.ci_low)}–{_number(r.ci_high)}"),
        _null(r.p_permuted, r.null_permuted_low, r.null_permuted_high),
        _null(r.p_random, r.null_random_low, r.null_random_high),
        (_number(r.length_corr, 2), ""),
        (_number(r.cos_compare, 2), _number(r.auc_without_compare)),
        (r.warning, ""),
    ]
    return [{"text": t, "small": s, "css": "best" * bool(r.chosen)} for t, s in cells]


def _null(p: float, low: float, high: float) -> tuple[str, str]:
    return ("", "") if pd.isna(low) else (f"p {p:.3f}", f"{low:.3f}–{high:.3f}")


def _interval(r: Any) -> str:
    return "" if pd.isna(r.ci_low) else f" [{r.ci_low:.3f}, {r.ci_high:.3f}]"


def _baselines(rows: pd.DataFrame) -> Table | None:
    if rows.empty:
        return None
    columns = ["training set", "validation set", "baseline", "AUROC", "95 % interval"]
    cells = [
        [
            r.train,
            r.dataset,
            BASELINES.get(r.method, r.method),
            _number(r.test_auc),
            _interval(r).strip(" []"),
        ]
        for r in rows.head(MOST_ROWS).itertuples()
    ]
    return Table(columns, cells, labels=3, of=len(rows))


def _number(value: float, digits: int = 3) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
