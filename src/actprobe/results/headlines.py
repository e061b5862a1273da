"""What a table says in a few lines of text."""

from __future__ import annotations

import pandas as pd

from actprobe.results import views
from actprobe.results.select import PROBE, best_by_validation
from actprobe.results.stats import FEWEST, mean_interval
from actprobe.results.tables import method_rank, summarise
from actprobe.results.views import count

MANY_SAES = 6  # of one place
ENOUGH = 10  # datasets from which the interval of a mean is what it says (benchmarks/calibration)


def headline(table: pd.DataFrame, skipped: int = 0) -> list[str]:
    """What the table says in a few lines of text: shown when a run ends, and atop the report.

    The best probe is the one with the highest mean validation AUC among those that cover the most
    datasets, chosen anew with each seed and tested on the test rows of that seed (see
    `select.best_by_validation`). Protocols are not mixed: all but the line on SAEs is about the one
    with most baselines. Without the setting `normal` the lines are about one condition of another,
    which the first line names.
    """
    rows = views.numbered(table)
    rows = rows[~views.control(rows)]
    if rows.empty:
        return [f"No probe has a number; {count(skipped, 'target')} skipped."]
    rows, condition = views.at_one_condition(rows)
    every = summarise(rows)
    every = views.labelled(every[every["n_datasets"] == every["n_datasets"].max()])
    counted = every[views.baseline(every)] if views.baseline(every).any() else every
    means = every[every["protocol"] == counted["protocol"].mode()[0]]
    mine = rows[rows["protocol"] == means["protocol"].iloc[0]]
    lines = [_best(mine, len(means), condition)]
    for title, group in _comparisons(means):
        numbers = ", ".join(f"{name} {auc:.3f}" for name, auc in group)
        lines.append(f"{title}: {numbers}.")
    few = best_by_validation(mine)["dataset"].nunique()
    if FEWEST <= few < ENOUGH:
        lines.append(
            f"An interval over {few} datasets holds less often than it says: with AUCs near 1, those "
            "of 95 % held the mean in 87 to 93 % of trials."
        )
    return [*lines, *_sparse(rows, every), *_caveats(table, skipped)]


def _best(rows: pd.DataFrame, n_probes: int, condition: str) -> str:
    """What the best of these rows' probes by validation AUC reaches."""
    chosen = best_by_validation(rows)
    if chosen.empty:
        return "No probe has a validation AUC: none is the best by it."
    probe, seeds, of = _commonest(chosen)
    per_dataset = chosen.groupby("dataset")["test_auc"].mean()
    mean, low, high = mean_interval(per_dataset)
    interval = "" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]"
    where = f"{count(len(per_dataset), 'dataset')}{f' ({condition})' if condition else ''}"
    name = f"{probe['label']} on {views.place_name(probe)}"
    if seeds == of:
        return (
            f"{name} reaches a mean test AUC of {mean:.3f}{interval} over {where}, the best of "
            f"{n_probes} probes by validation AUC."
        )
    return (
        f"{name} is the best of {n_probes} probes by validation AUC in {seeds} of {of} seeds; what "
        f"each seed chooses reaches a mean test AUC of {mean:.3f}{interval} over {where}."
    )


def _commonest(chosen: pd.DataFrame) -> tuple[pd.Series, int, int]:
    """The probe that most seeds chose, in how many of them, and of how many."""
    one = views.labelled(chosen.drop_duplicates("seed"))
    times = one.groupby([*PROBE], sort=False, dropna=False)["seed"].transform("size")
    return one.loc[times.idxmax()], int(times.max()), len(one)


def _sparse(rows: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """A line per place with SAE probes: each SAE at its best k by validation, and the baseline."""
    sparse, base = rows[~views.baseline(rows)], means[views.baseline(means)]
    lines = []
    for place, group in sparse.groupby(["protocol", "model", "site", "position"], sort=False):
        found = []
        for source, own in group.groupby("source", sort=False):
            chosen = best_by_validation(own)
            if chosen.empty:
                continue
            probe, seeds, of = _commonest(chosen)
            in_seeds = "" if seeds == of else f" in {seeds} of {of} seeds"
            words = f"{source} {_mean(chosen, 'test_auc'):.3f} (k = {probe['k']}{in_seeds})"
            found.append((_mean(chosen, "val_auc"), words))
        told = [words for _, words in sorted(found, key=lambda f: -f[0])[:MANY_SAES]]
        same = base[(base[["protocol", "model", "site", "position"]] == list(place)).all(axis=1)]
        if len(same):
            first = same.iloc[int(same["method"].map(method_rank).argmin())]
            told.append(f"{first['method']} on all dimensions {first['test_auc']:.3f}")
        if found:
            lines.append(f"SAE probes ({place[0]}; {', '.join(place[1:])}): {', '.join(told)}.")
    return lines


def _mean(rows: pd.DataFrame, column: str) -> float:
    """Mean over datasets of the means over their rows."""
    return float(rows.groupby("dataset")[column].mean().mean())


def _comparisons(means: pd.DataFrame) -> list[tuple[str, list[tuple[str, float]]]]:
    """The layers of the method with most layers, and the methods of the place with most methods."""
    baselines = means[views.baseline(means)]
    found = []
    by_layer = [g for _, g in baselines.groupby(["protocol", "model", "position", "label"])]
    by_layer.sort(key=lambda g: (-len(g), method_rank(g["label"].iloc[0])))
    if by_layer and len(widest := by_layer[0]) > 1:
        first = widest.iloc[0]
        layers = list(zip(widest["site"], widest["test_auc"], strict=True))
        found.append((f"{first['label']} by layer ({first['model']}, {first['position']})", layers))
    by_place = [g for _, g in baselines.groupby(views.READ)]
    by_place.sort(key=lambda g: (-len(g), -g["val_auc"].mean()))
    if by_place and len(fullest := by_place[0]) > 1:
        order = views.label_order(fullest["label"])
        place = views.place_name(fullest.iloc[0])
        by_method = fullest.set_index("label")
        found.append((f"Methods on {place}", [(m, by_method["test_auc"][m]) for m in order]))
        unseen = by_method["test_auc_unseen"]
        if unseen.notna().all():
            found.append(("The same without leaked test rows", [(m, unseen[m]) for m in order]))
    return found


def _caveats(table: pd.DataFrame, skipped: int) -> list[str]:
    lines = []
    leaks = table.groupby("dataset")["leak_fraction"].max().dropna()
    if leaks.max() > 0:
        lines.append(
            f"On average {leaks.mean():.1%} of a dataset's test texts also stand in its training "
            f"rows; the most in {leaks.idxmax()} ({leaks.max():.1%})."
        )
    shared = table.groupby("dataset")["group_fraction"].max().dropna()
    if shared.max() > 0:
        lines.append(
            f"In {count(int((shared > 0).sum()), 'dataset')} test rows share groups with training rows; "
            f"the most in {shared.idxmax()} ({shared.max():.1%} of the test rows)."
        )
    unused = table.groupby("dataset")["n_unused"].max().dropna()
    if (unused > 0).any():
        lines.append(
            f"{count(int((unused > 0).sum()), 'dataset')} with more rows than a protocol uses; the most "
            f"are left out of {unused.idxmax()} ({unused.max():,} labelled rows)."
        )
    known = table["converged"].notna()
    if known.any():
        stopped = int(table["converged"].eq(False).sum())
        lines.append(f"{stopped} of {count(int(known.sum()), 'fit')} did not converge.")
    missing = int(table["test_auc"].isna().sum())
    if missing or skipped:
        lines.append(
            f"{count(missing, 'fit')} gave no number, {count(skipped, 'target')} skipped; the "
            "report and skipped.csv say why."
        )
    if "note" in table:
        notes = table.loc[table["note"] != "", "note"].value_counts()
        lines += [f"{count(n, 'row')} {note}." for note, n in notes.items()]
    return lines
