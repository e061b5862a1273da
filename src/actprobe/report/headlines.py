"""What a table says in a few lines of text."""

from __future__ import annotations

import math

import pandas as pd

from actprobe.report import features
from actprobe.results import scores, views
from actprobe.results.make import Written
from actprobe.results.select import PROBE, best_by_validation
from actprobe.results.stats import FEWEST, mean_interval
from actprobe.results.tables import TASK, method_rank, summarise
from actprobe.results.views import count

MANY_SAES = 6  # of one place
ENOUGH = 10  # datasets from which the interval of a mean is what it says (benchmarks/calibration)
MANY_PROTOCOLS = 4  # that have lines of their own
MANY = 12  # numbers of one line
MANY_PLACES = 8  # lines about SAEs
_PLACE = ["protocol", "metric", "model", "site", "position"]


def lines(found: Written) -> list[str]:
    """What the written tables say in a few lines of text: shown when a run ends, and atop the page.

    Targets that could not be made have no number of fits.
    """
    skipped = int(found["skipped"]["fits"].isna().sum())
    of_features = features.headline(found) if "representations" in found else []
    if of_features and found.of_texts.empty and not skipped:
        return of_features
    return [*headline(found.of_texts, skipped, found["datasets"]), *of_features]


def _of_own_tests(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of fits that their own datasets test, where there are any: directions that other datasets
    test have lines of their own."""
    if "test_set" not in table:
        return table
    own = table[table["test_set"].fillna("") == ""]
    return table if own.empty else own


def headline(
    table: pd.DataFrame, skipped: int = 0, datasets: pd.DataFrame | None = None
) -> list[str]:
    """What a table of probes of texts says in a few lines.

    Every protocol has lines of its own, and so has every metric in it. The best probe is the one with
    the best mean validation score among those that cover the most datasets, chosen anew with each seed
    and tested on the test rows of that seed (see `select.best_by_validation`). A protocol without
    the setting `normal` is told at one condition of another, which the line names. datasets: the table
    of that name, which says how models read the texts.
    """
    rows = views.usual(_of_own_tests(table[~views.control(table)]))
    if rows.empty:
        return [f"No probe has a number; {count(skipped, 'target')} skipped."]
    lines = []
    found = views.parts(rows)
    for part in found[:MANY_PROTOCOLS]:
        lines += _of_part(views.of_part(rows, part))
    if len(found) > MANY_PROTOCOLS:
        more = [views.of_part(rows, part)["frame"].iloc[0] for part in found[MANY_PROTOCOLS:]]
        lines.append(f"{len(more)} more protocols: {'; '.join(more)}; summary.csv has their means.")
    return [*lines, *_caveats(table, skipped), *_texts_read(datasets)]


def _of_part(rows: pd.DataFrame) -> list[str]:
    """The lines about one protocol and metric."""
    frame = rows["frame"].iloc[0]
    every = views.named(summarise(rows))
    every = every[every["n_tasks"] == every["n_tasks"].max()]
    lines = [_best(rows, len(every), frame)]
    for title, group in _comparisons(every, frame):
        lines.append(f"{title}: {_numbers(group)}.")
    return [*lines, *_few(rows, frame), *_sparse(rows, every, frame)]


def _few(rows: pd.DataFrame, frame: str) -> list[str]:
    """That an interval over few datasets is not all that it says."""
    few = best_by_validation(rows)["dataset"].nunique()
    if not FEWEST <= few < ENOUGH:
        return []
    measured = ""
    if scores.metric_of(rows).name == "auc":
        measured = ": with AUCs near 1, those of 95 % held the mean in 87 to 93 % of trials"
    return [f"An interval over {few} datasets ({frame}) holds less often than it says{measured}."]


def _numbers(group: list[tuple[str, float]]) -> str:
    """Names and scores; of many every so many."""
    every = -(-len(group) // MANY)
    shown = group[::every]
    more = f" (every {every}th of {len(group)})" if every > 1 else ""
    return ", ".join(f"{name} {score:.3f}" for name, score in shown) + more


def _best(rows: pd.DataFrame, n_probes: int, frame: str) -> str:
    """What the best of these rows' probes by validation score reaches."""
    chosen = best_by_validation(rows)
    metric = scores.metric_of(rows)
    validation = f"validation {scores.short(metric)}"
    if chosen.empty:
        return f"No probe of {frame} has a {validation}: none is the best by it."
    probe, seeds, of = _commonest(chosen)
    means = views.per_dataset(chosen, "test_score")
    mean, low, high = mean_interval(means, within=scores.span(metric))
    interval = "" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]"
    tasks = len(chosen.drop_duplicates(TASK))
    of_tasks = f" with {count(tasks, 'task')}" if tasks > len(means) else ""
    where = f"{count(len(means), 'dataset')}{of_tasks} ({frame})"
    name = f"{probe['probe']} on {views.place_name(probe)}"
    if seeds == of:
        return (
            f"{name} reaches a mean {metric.label} of {mean:.3f}{interval} over {where}, the best of "
            f"{count(n_probes, 'probe')} by {validation}."
        )
    return (
        f"{name} is the best of {count(n_probes, 'probe')} by {validation} in {seeds} of {of} seeds; "
        f"what each seed chooses reaches a mean {metric.label} of {mean:.3f}{interval} over {where}."
    )


def _commonest(chosen: pd.DataFrame) -> tuple[pd.Series, int, int]:
    """The probe that most seeds chose, in how many of them, and of how many."""
    one = views.named(chosen.drop_duplicates("seed"))
    times = one.groupby([*PROBE], sort=False, dropna=False)["seed"].transform(len)
    return one.loc[times.idxmax()], int(times.max()), len(one)


def _sparse(rows: pd.DataFrame, means: pd.DataFrame, frame: str) -> list[str]:
    """A line per place with SAE probes: each SAE at its best k by validation, and the baseline."""
    metric = scores.metric_of(rows)
    sparse, base = rows[~views.baseline(rows)], means[views.baseline(means)]
    lines = []
    for place, group in sparse.groupby(_PLACE, sort=False):
        found = []
        for source, own in group.groupby("source", sort=False):
            chosen = best_by_validation(own)
            if chosen.empty:
                continue
            probe, seeds, of = _commonest(chosen)
            of_k = [] if pd.isna(probe["k"]) else [f"k = {probe['k']}"]
            in_seeds = [] if seeds == of else [f"in {seeds} of {of} seeds"]
            note = " ".join([*of_k, *in_seeds])
            score = views.per_dataset(chosen, "test_score").mean()
            words = f"{source} {score:.3f}{f' ({note})' if note else ''}"
            val = views.per_dataset(chosen, "val_score").mean()
            found.append((scores.goodness(val, metric), words))
        told = [words for _, words in sorted(found, key=lambda f: -f[0])[:MANY_SAES]]
        same = base[(base[_PLACE] == list(place)).all(axis=1)]
        if len(same):
            first = same.iloc[int(same["method"].map(method_rank).argmin())]
            told.append(f"{first['method']} on all dimensions {first['test_score']:.3f}")
        if found:
            lines.append(f"SAE probes ({frame}; {', '.join(place[2:])}): {', '.join(told)}.")
    more = len(lines) - MANY_PLACES
    return lines[:MANY_PLACES] + (
        [f"{count(more, 'more place')} with SAE probes."] if more > 0 else []
    )


def _comparisons(means: pd.DataFrame, frame: str) -> list[tuple[str, list[tuple[str, float]]]]:
    """The layers of the method with most layers, and the methods of the place with most methods."""
    baselines = means[views.baseline(means)]
    found = []
    by_layer = [g for _, g in baselines.groupby(["model", "position", "probe"])]
    by_layer.sort(key=lambda g: (-len(g), method_rank(g["probe"].iloc[0])))
    if by_layer and len(widest := by_layer[0]) > 1:
        first = widest.iloc[0]
        layers = list(zip(widest["site"], widest["test_score"], strict=True))
        place = f"{first['model']}, {first['position']}; {frame}"
        found.append((f"{first['probe']} by layer ({place})", layers))
    by_place = [g for _, g in baselines.groupby(views.READ)]
    by_place.sort(key=lambda g: (-len(g), -_validated(g)))
    if by_place and len(fullest := by_place[0]) > 1:
        order = views.probe_order(fullest["probe"])
        place = f"{views.place_name(fullest.iloc[0])} ({frame})"
        by_method = fullest.set_index("probe")
        found.append((f"Methods on {place}", [(m, by_method["test_score"][m]) for m in order]))
        unseen = by_method["test_score_unseen"]
        if unseen.notna().all():
            words = f"The same without leaked test rows ({frame})"
            found.append((words, [(m, unseen[m]) for m in order]))
    return found


def _validated(means: pd.DataFrame) -> float:
    """How good these probes are on validation rows; less than any where none has such a number."""
    val = scores.goodness(means["val_score"].mean(), scores.metric_of(means))
    return -math.inf if pd.isna(val) else float(val)


def _caveats(table: pd.DataFrame, skipped: int) -> list[str]:
    lines = []
    leaks = table.groupby("dataset")["leak_fraction"].max().dropna()
    if len(leaks) and leaks.max() > 0:
        lines.append(
            f"On average {leaks.mean():.1%} of a dataset's test texts also appear in its training "
            f"rows; the most in {leaks.idxmax()} ({leaks.max():.1%})."
        )
    shared = table.groupby("dataset")["group_fraction"].max().dropna()
    if len(shared) and shared.max() > 0:
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
        lines.append(f"{stopped:,} of {count(int(known.sum()), 'fit')} did not converge.")
    missing = int(table["test_score"].isna().sum())
    if missing or skipped:
        lines.append(
            f"{count(missing, 'fit')} gave no number, {count(skipped, 'target')} skipped; the "
            "report and skipped.csv say why."
        )
    if "note" in table:
        notes = table.loc[table["note"].notna() & (table["note"] != ""), "note"].value_counts()
        lines += [f"{count(n, 'row')} {note}." for note, n in notes.items()]
    return lines


def _texts_read(datasets: pd.DataFrame | None) -> list[str]:
    """What models did not read as it was written."""
    if datasets is None:
        return []
    lines = []
    if (worst := _worst(datasets, "truncated")) is not None:
        n, row = worst
        lines.append(
            f"Texts of {n:,} of {count(len(datasets), 'dataset')} are too long for a model and "
            f"were cut short; the most in {row['dataset']} ({row['truncated']:.1%} of its rows)."
        )
    if (worst := _worst(datasets, "special_in_text")) is not None:
        n, row = worst
        lines.append(
            f"Texts of {n:,} of {count(len(datasets), 'dataset')} spell out special tokens; "
            f"the most in {row['dataset']} ({count(int(row['special_in_text']), 'row')})."
        )
    return lines


def _worst(datasets: pd.DataFrame, column: str) -> tuple[int, pd.Series] | None:
    """How many datasets have more than none in a column, and the one with the most."""
    some = datasets[datasets[column].fillna(0) > 0]
    if some.empty:
        return None
    return len(some), some.sort_values(column, ascending=False, kind="stable").iloc[0]
