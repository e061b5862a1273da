"""Tables of the page about datasets: their numbers, all metrics, and what was left out."""

from __future__ import annotations

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import MANY, Table, interval, number
from actprobe.probes.metrics import all_metrics
from actprobe.results import scores, views
from actprobe.results.tables import TASK, summarise

_LONG = 160  # letters of a cell about a dataset, such as its classes


def by_dataset(table: pd.DataFrame, datasets: pd.DataFrame) -> list[Table]:
    """A table per protocol and metric: the numbers of each dataset at the place with most methods."""
    known = datasets.set_index("dataset")
    usual = views.usual(table)
    return [
        _of_part(views.of_part(table, part), views.at_fullest(views.of_part(usual, part)), known)
        for part in views.parts(table)
    ]


def _of_part(table: pd.DataFrame, shown: pd.DataFrame, known: pd.DataFrame) -> Table:
    metric = scores.metric_of(shown)
    stopped = table.groupby(TASK)["converged"].agg(_unconverged)
    names = ["dataset", *(["label"] if (shown["label"] != "").any() else [])]
    methods = views.probe_order(shown["probe"])
    about = ["classes", "train / test", "leaked", "cut short", "unconverged"]
    rows = []
    for (dataset, label), group in shown.groupby(TASK, sort=False):
        by_method = group.set_index("probe")
        val = scores.goodness(by_method["val_score"], metric).dropna()
        best = val.idxmax() if len(val) else None
        first = group.iloc[0]
        told = known.loc[dataset] if dataset in known.index else None
        cells = [
            "" if told is None or label else _cut(told["classes"]),
            f"{first['n_train']} / {first['n_test']}".replace("<NA> / <NA>", ""),
            number(first["leak_fraction"], ".1%"),
            "" if told is None else number(told["truncated"], ".1%"),
            stopped[dataset, label],
        ]
        scored = [
            _scored(by_method.loc[m], m == best) if m in by_method.index else "" for m in methods
        ]
        rows.append([*(str(first[c]) for c in names), *cells, *scored])
    first = shown.iloc[0]
    title = f"{first['frame']}: {views.place_name(first)}"
    columns = [*names, *about, *methods]
    said = [i for i, c in enumerate(columns) if c not in about or any(r[i] for r in rows)]
    columns, kept = [columns[i] for i in said], [[r[i] for i in said] for r in rows[:MANY]]
    return Table(columns, kept, len(names), title, wrap=["classes"], of=len(rows))


def _scored(r: pd.Series, best: bool) -> dict[str, str]:
    """A test score with its interval below, bold for the best by validation."""
    small = interval(r["ci_low"], r["ci_high"], between="–")
    return {"text": f"{r['test_score']:.3f}", "small": small, "css": "best" * best}


def all_metrics_by_probe(table: pd.DataFrame) -> list[Table]:
    """A table per protocol and label kind: means over datasets of every registered metric that has
    numbers, by probe, in the setting and condition that stand for the protocol."""
    usual = views.usual(table)
    several = usual["kind"].nunique() > 1
    found = []
    for part in views.parts(usual):
        for kind, rows in views.of_part(usual, part).groupby("kind", sort=False):
            title = rows["frame"].iloc[0] + f", {kind}" * several
            made = _metrics(views.named(summarise(rows)), title)
            found += [made] if made else []
    return found


def _metrics(means: pd.DataFrame, title: str) -> Table | None:
    own = means["model"] + "/" + means["site"] + "." + means["position"]
    source = ["source"] if (means["source"] != own).any() else []
    names = [*views.differing(means, ["model", "site", "position", *source]), "probe"]
    columns: dict[str, pages.Cell] = {c: c for c in names}
    columns["datasets"] = lambda r: f"{r['n_datasets']:g}"
    return of_metrics(means, columns, len(names), title)


def of_metrics(
    means: pd.DataFrame, columns: dict[str, pages.Cell], labels: int, title: str
) -> Table | None:
    """A table of every registered metric that has numbers, behind these columns."""
    shown = [
        m for m in all_metrics().values() if m.column in means and means[m.column].notna().any()
    ]
    of_metric: dict[str, pages.Cell] = {m.name: pages.of_number(m.column) for m in shown}
    note = "; ".join(f"{m.name}: {m.label}" for m in shown) + "."
    return pages.table(means, columns | of_metric, labels, title=title, note=note)


def left_out(skipped: pd.DataFrame, table: pd.DataFrame, datasets: pd.DataFrame) -> Table | None:
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
    where = ["dataset", "left out", *labelled, "protocol", "setting", "sources", "methods"]
    columns = [*where, "reason", "what"]
    return Table(columns, rows[:MANY], len(columns) - 1, of=len(rows)) if rows else None


def _some(names: pd.Series) -> str:
    """The first names, and how many more there are."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:4]) + (f" and {len(unique) - 4} more" if len(unique) > 4 else "")


def _cut(text: str) -> str:
    """The beginning of a long text; the file of the table has the whole."""
    return text if len(text) <= _LONG else f"{text[:_LONG].rstrip()} …"


def _unconverged(converged: pd.Series) -> str:
    """How many of these fits stopped early; "" where it is not known of any."""
    return "" if converged.isna().all() else str(int(converged.eq(False).sum()))
