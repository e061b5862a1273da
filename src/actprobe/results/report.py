"""The one-page report: numbers, figures, datasets, what was left out, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from actprobe import pages, provenance
from actprobe.config import plain
from actprobe.pages import Table
from actprobe.probes.metrics import all_metrics
from actprobe.results import report_features as of_features
from actprobe.results import saes, scores, views
from actprobe.results.compare import claims
from actprobe.results.headlines import headline
from actprobe.results.select import TIES
from actprobe.results.tables import TASK, summarise

MANY = 400  # rows of a table that is also there as a file
_LONG = 160  # letters of a cell about a dataset, such as its classes
_PLACE = ["protocol", "setting", "model", "site", "position"]


@dataclass(frozen=True)
class Page:
    """What the report shows: the tables, and the names of the figures drawn from them."""

    table: pd.DataFrame
    skipped: pd.DataFrame
    datasets: pd.DataFrame
    comparisons: pd.DataFrame
    quivers: pd.DataFrame
    saes: pd.DataFrame
    provenance: pd.DataFrame
    figures: Sequence[str]
    contexts: Sequence[str] = field(default_factory=list)
    features: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def headline(self) -> list[str]:
        """The lines that say what came out; targets that could not be made have no number of fits."""
        skipped = int(self.skipped["fits"].isna().sum())
        lines = of_features.headline(self.features) if self.features else []
        if self.features and self.table.empty and not skipped:
            return lines
        return [*headline(self.table, skipped, self.datasets), *lines]


def links(contexts: Sequence[str]) -> list[dict[str, str]]:
    """This page, without a link, and those of top contexts (their paths): `href` and `name` of each;
    none where there is no other page."""
    others = [
        {"href": f"contexts/{p.name}", "name": f"Top contexts: {p.stem}"}
        for p in map(Path, contexts)
    ]
    return [{"href": "", "name": "Probes"}, *others] if others else []


def write_report(
    path: str | Path, page: Page, config: Mapping[str, Any], parts: Sequence[Markup] = ()
) -> None:
    """Write the report to `path`; the figures are read from the folder `figures` beside it.

    The page holds everything it shows and opens without a network; its links lead to the tables
    beside it. `config` is the resolved config; `parts` stand before what was left out. Equal input gives
    equal bytes.
    """
    path = Path(path)
    words = _words(page.table)
    text = pages.template("actprobe.results", "report.html.j2").render(
        experiment=config["experiment"],
        links=links(page.contexts),
        headline=page.headline,
        figures=[
            pages.figure(path.parent / "figures" / f"{name}.svg", score=words["score"])
            for name in page.figures
        ],
        **words,
        confidence=f"{config['results']['confidence']:.0%}",
        datasets=_datasets(page.table, page.datasets),
        comparisons=_comparisons(page.comparisons),
        metrics=metrics_by_probe(page.table),
        quivers=_quivers(page.quivers),
        saes=_saes(page.saes),
        features=of_features.tables(page.features) if page.features else None,
        of_texts=not page.features or not page.table.empty,
        tie_rule=TIES["methods"],
        parts=parts,
        skipped=_left_out(page.skipped, page.table, page.datasets),
        provenance=page.provenance.to_dict("records"),
        version=provenance.version("actprobe"),
        imported=config.get("imported"),
        config=yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True),
    )
    path.write_text(text, encoding="utf-8")


def _comparisons(comparisons: pd.DataFrame) -> list[Table]:
    """A table per family: all the comparisons that are corrected together, and the controls.

    Of families that are too large the rows with the smallest p are shown.
    """
    columns = ["model", "site", "position", "probe", "SAE or source", "reference", "pairs"]
    columns += ["difference", "interval", "wins / losses / ties", "p", "unseen"]
    shown = comparisons[
        claims(comparisons) | views.control(comparisons.assign(method=comparisons["probe"]))
    ]
    families = list(shown.groupby(["protocol", "setting", "metric"], sort=False))
    mixed = comparisons["metric"].nunique() > 1
    most = max(MANY // max(len(families), 1), 20)
    found = []
    for (protocol, setting, metric), rows in families:
        some = rows
        if len(rows) > most:
            some = rows.loc[rows["p_wilcoxon"].sort_values(kind="stable").index[:most]].sort_index()
        found.append(
            Table(
                columns,
                [_compared(r) for _, r in some.iterrows()],
                labels=6,
                title=f"{protocol}, {setting}" + f", {scores.known(metric).label}" * mixed,
                note=_family(rows, len(some)),
                of=len(rows),
            )
        )
    return found


def _compared(r: pd.Series) -> list[str]:
    return [
        r["model"],
        r["site"],
        r["position"],
        r["probe"],
        r["source"],
        r["reference"],
        f"{r['n_pairs']:g}",
        f"{r['delta']:+.4f}",
        "" if pd.isna(r["ci_low"]) else f"{r['ci_low']:+.4f} … {r['ci_high']:+.4f}",
        f"{r['wins']:g} / {r['losses']:g} / {r['ties']:g}",
        "" if pd.isna(r["p_holm"]) else f"{r['p_holm']:.2g}",
        "" if pd.isna(r["delta_unseen"]) else f"{r['delta_unseen']:+.4f}",
    ]


def _family(rows: pd.DataFrame, shown: int) -> str:
    """What the p values of a family are corrected for, or why there are none."""
    n = rows["family"].dropna()
    words = "No comparison has a p value."
    if len(n):
        words = f"The p values are corrected for {views.count(int(n.iloc[0]), 'comparison')}."
        if rows["p_holm"].isna().all():
            note = str(rows.loc[n.index, "p_note"].iloc[0])
            words = f"{note[:1].upper()}{note[1:]}."
    return words + f" The {shown} with the smallest p are shown." * (shown < len(rows))


def _quivers(quivers: pd.DataFrame) -> Table | None:
    if quivers.empty:
        return None
    labels = {m: scores.known(m).label for m in quivers["metric"].unique()}
    columns = [*_PLACE, "score", "candidates", "choices", "mean", "interval", "tie band", "tied"]
    rows = [
        [
            *r[_PLACE],
            labels[r["metric"]],
            r["candidates"],
            f"{r['n_choices']:g}",
            f"{r['test_score']:.4f}",
            "" if pd.isna(r["ci_low"]) else f"{r['ci_low']:.4f} … {r['ci_high']:.4f}",
            f"{r['tie_low']:.4f} … {r['tie_high']:.4f}",
            f"{r['n_tied']:g}",
            f"{r['n_sae']:g}",
        ]
        for _, r in quivers.head(MANY).iterrows()
    ]
    return Table([*columns, "SAE chosen"], rows, labels=7, of=len(quivers))


def _saes(codes: pd.DataFrame) -> Table | None:
    rows = saes.report_rows(codes)
    columns = ["SAE", "reads", "latents", "datasets", "L0", "silent", "explained", "notes"]
    return Table(columns, rows, labels=2, wrap=["notes"]) if rows else None


def _left_out(skipped: pd.DataFrame, table: pd.DataFrame, datasets: pd.DataFrame) -> Table | None:
    """What has no number, and why: the sources and methods that share a reason in one row; and the
    datasets that cannot be used and that no probe asked for."""
    with_numbers = set(table.loc[table["test_score"].notna(), "dataset"])
    labelled = ["labels"] if (skipped["label"] != "").any() else []
    by = ["dataset", "protocol", "setting", "reason"]
    rows = []
    for (dataset, protocol, setting, reason), group in skipped.groupby(by, sort=False):
        fits, targets = int(group["fits"].sum()), int(group["fits"].isna().sum())
        what = [views.count(targets, "target")] if targets else []
        what += [views.count(fits, "fit")] if fits else []
        how_much = "some" if dataset in with_numbers else "all of it"
        read = [_some(group[c]) for c in ("source", "method")]
        of = [_some(group["label"])] if labelled else []
        where = [dataset, how_much, *of, protocol, setting, *read]
        rows.append([*where, reason, " and ".join(what)])
    bad = datasets[(datasets["reason"] != "") & ~datasets["dataset"].isin(skipped["dataset"])]
    nowhere = [""] * (4 + len(labelled))
    rows += [[d["dataset"], "all of it", *nowhere, d["reason"], ""] for _, d in bad.iterrows()]
    columns = [
        "dataset",
        "left out",
        *labelled,
        "protocol",
        "setting",
        "sources",
        "methods",
        "reason",
    ]
    return Table([*columns, "what"], rows[:MANY], len(columns), of=len(rows)) if rows else None


def _some(names: pd.Series) -> str:
    """The first names, and how many more there are."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:4]) + (f" and {len(unique) - 4} more" if len(unique) > 4 else "")


def _datasets(table: pd.DataFrame, datasets: pd.DataFrame) -> list[Table]:
    """A table per protocol and metric: the numbers of each dataset at the place with most methods."""
    known = datasets.set_index("dataset")
    usual = views.usual(table)
    return [
        _of_part(views.of_part(table, part), views.at_fullest(views.of_part(usual, part)), known)
        for part in views.parts(table)
    ]


def _of_part(table: pd.DataFrame, shown: pd.DataFrame, known: pd.DataFrame) -> Table:
    methods = views.probe_order(shown["probe"])
    metric = scores.metric_of(shown)
    stopped = table.groupby(TASK)["converged"].agg(_unconverged)
    of_labels = ["label"] if (shown["label"] != "").any() else []
    rows = []
    for (dataset, label), group in shown.groupby(TASK, sort=False):
        by_method = group.set_index("probe")
        val = scores.goodness(by_method["val_score"], metric).dropna()
        best = val.idxmax() if len(val) else None
        first = group.iloc[0]
        about = known.loc[dataset] if dataset in known.index else None
        cells = [
            str(dataset),
            *([str(label)] if of_labels else []),
            "" if about is None else _cut(about["classes"]),
            f"{first['n_train']} / {first['n_test']}".replace("<NA> / <NA>", ""),
            _share(first["leak_fraction"]),
            "" if about is None else _share(about["truncated"]),
            stopped[dataset, label],
        ]
        for m in methods:
            cell: Any = ""
            if m in by_method.index:
                r = by_method.loc[m]
                bounds = "" if pd.isna(r["ci_low"]) else f"{r['ci_low']:.3f}–{r['ci_high']:.3f}"
                cell = {
                    "text": f"{r['test_score']:.3f}",
                    "small": bounds,
                    "css": "best" * (m == best),
                }
            cells.append(cell)
        rows.append(cells)
    names = ["dataset", *of_labels]
    columns = [*names, "classes", "train / test", "leaked", "cut short", "unconverged", *methods]
    first = shown.iloc[0]
    title = f"{first['frame']}: {views.place_name(first)}"
    kept = rows[:MANY]
    return Table(columns, kept, labels=len(names), title=title, wrap=["classes"], of=len(rows))


def metrics_by_probe(table: pd.DataFrame) -> list[Table]:
    """A table per protocol and label kind: means over datasets of every registered metric that has
    numbers, by probe, in the setting and condition that stand for the protocol."""
    usual = views.usual(table)
    several = usual["kind"].nunique() > 1
    found = []
    for part in views.parts(usual):
        for kind, rows in views.of_part(usual, part).groupby("kind", sort=False):
            title = rows["frame"].iloc[0] + f", {kind}" * several
            found.append(_metrics(views.named(summarise(rows)), title))
    return found


def _metrics(means: pd.DataFrame, title: str) -> Table:
    shown = [m for m in all_metrics().values() if means[m.column].notna().any()]
    own = means["model"] + "/" + means["site"] + "." + means["position"]
    source = ["source"] if (means["source"] != own).any() else []
    names = [*views.differing(means, ["model", "site", "position", *source]), "probe"]
    rows = [
        [
            *(str(r[c]) for c in names),
            f"{r['n_datasets']:g}",
            *("" if pd.isna(r[m.column]) else f"{r[m.column]:.3f}" for m in shown),
        ]
        for _, r in means.head(MANY).iterrows()
    ]
    columns = [*names, "datasets", *(m.name for m in shown)]
    note = "; ".join(f"{m.name}: {m.label}" for m in shown) + "."
    return Table(columns, rows, labels=len(names), title=title, note=note, of=len(means))


def _words(table: pd.DataFrame) -> dict[str, str]:
    """What the scores of this table are called: `score`, and `validation` for those that choose."""
    names = scores.in_order(table.loc[table["test_score"].notna(), "metric"])
    found = [scores.known(n) for n in names] or [scores.metric_of(table.iloc[:0])]
    return {
        "score": scores.any_of(m.label for m in found),
        "validation": scores.any_of(f"validation {scores.short(m)}" for m in found),
    }


def _cut(text: str) -> str:
    """The beginning of a long text; the file of the table has the whole."""
    return text if len(text) <= _LONG else f"{text[:_LONG].rstrip()} …"


def _share(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.1%}"


def _unconverged(converged: pd.Series) -> str:
    """How many of these fits stopped early; "" where it is not known of any."""
    return "" if converged.isna().all() else str(int(converged.eq(False).sum()))
