"""Write docs/tables.md from the columns of the results table and the registered metrics:
python docs/write_tables.py"""

from __future__ import annotations

import math
from pathlib import Path

from actprobe.probes import columns, controls
from actprobe.probes.metrics import MAIN, Metric, all_metrics
from actprobe.results import scores

TARGET = Path(__file__).resolve().with_name("tables.md")

HEAD = """# The results table

One row per fit, of any source, in `tables/probes.csv` and `tables/probes.parquet` below the folder of
the experiment's results. In the CSV file an empty field stands for null in number columns, and text that
a spreadsheet would take for a formula has an apostrophe before it. `actprobe.results.read_probes` reads
both. Columns that a table has besides these follow them by name.

This page is written from `actprobe.probes.columns` and the registered metrics by `docs/write_tables.py`;
a test keeps it in step.
"""

DIRECTIONS = """
Fits of a protocol with `controls` (contrastive-1) have these columns too. `condition` names the test
set, and the position at which it was read where that is another one (`validation@tokens`).
""".strip()

SUMMARIES = """
## The transfer matrix

`transfer.csv` has a row for each fit of `apply_to` and each collection that it was tried on, and one for
its own (`train` = `test`), whose score is that of its test rows. `score` is the main metric, a mean over
seeds; `ci_low` and `ci_high` are the ends of its interval; between `null_low` and `null_high` lie 95 %
of the scores under labels that say nothing: a closed form where rows stand alone, else 199 exchanges of
labels between whole groups. `n` rows were scored and `n_used` count. `n_excluded` share a text or a
group with rows that were fitted, and `n_other` have a class that the fit does not know.

## Single rows

`scores.parquet` has a row for each row of each kept fit (`keep` of its entry in `probes`): `id`,
`collection`, `split` (train, validation, test), `label` and `score`, and what tells the fit. The score
is that of class 1, of several classes that of the predicted one, of values the prediction; `prediction`
is class 1 above the threshold of the fit (`threshold` of its entry in `probes`), of several classes the
one with the largest score. `task` is `label` of the table above. `errors.csv` has the 20 test rows of
each fit that it gets most confidently wrong, with their text (`results: {texts: false}`: without).
`margin` is how far the score is on the wrong side of the threshold, of several classes by how much the
predicted one is over the true one, of values the distance from the label.

## False alarms

`alarms.csv` has a row for each kept fit of two classes. `allowed` is the false-positive rate that
its `threshold` states (rule `fpr`), else 1 %; `threshold` is the lowest that keeps to it on the
rows that `decided_by` names: validation rows, train rows as scored by fits that had not seen them,
or the test rows where there are no others. Of their `negatives` (class 0) it flags `flagged`; its
true rate lies between `true_low` and `true_high` with 95 % certainty (the Beta range of an order
statistic). Of the test rows it flags `false_alarms` of `test_negatives` and `found` of
`test_positives`; `fpr` and `tpr` are these shares, with the intervals of Clopper and Pearson, which
are empty where the test rows decided. To be 95 % sure of at most 1 % a threshold needs 299
negatives without an alarm; from about 1,000 on its rate is known within a factor of two.

## Two probes on the same rows

`paired.csv` has rows for the kept fits of two classes that read texts' activations or latents, each
`against` two others with the same test rows: `method` is the first method, in the usual order, of the
same model, site and position; `text baseline` is the method with the best validation score among those
that read the texts alone. Differences are that of the fit minus that of its reference.

- `auc_delta` lies between `auc_low` and `auc_high` with 95 % certainty, and `auc_p` says how likely so
  large a difference is between equal probes (DeLong et al. 1988; rows with one text, group or pair are
  one observation, Obuchowski 1997). `clusters` counts these.
- `tpr` is the share of class 1 above the lowest threshold that lets at most `allowed` of the test rows
  of class 0 through, each probe with its own. `tpr_low`, `tpr_high` and `tpr_p` are of 1,000 stratified
  draws of clusters in which both choose their thresholds anew. Below about ten allowed false alarms
  such an interval is too narrow: look at `true_low` and `true_high` of `alarms.csv` beside it.
- `found_alone` are the test rows of class 1 that the fit finds and its reference does not, at the
  thresholds of `alarms.csv`; `reference_found_alone` the other way round; `found_p` is McNemar's exact
  test of the two. `alarms_alone` and so on say the same of class 0: two probes with one allowed rate
  need not have one true rate. They are empty where test rows chose a threshold.

## Means, comparisons and choices

`summary.csv`, `comparisons.csv`, `quiver.csv` and `confusion.csv` follow from this table. In all of them

- scores of two metrics are never averaged or compared: each has rows of its own;
- the seeds and the labels of a dataset are averaged first, so that it counts once in a mean and in an
  interval over datasets; comparisons and choices pair each label and seed with itself;
- where less of a metric is better the lowest score is chosen, and counts as a win; a difference is
  always that of the probe minus that of its reference;
- an interval is cut to the range of its metric.

`summary.csv` has a column for every metric above: the mean over the datasets that have it.

`comparisons.csv` compares probes of texts at one place over datasets (`test`: signed rank), and probes
of LoRA weights in one collection over runs: every two representations with one method and columns,
every two methods on one representation (`test`: Nadeau and Bengio's t, corrected for the rows that
runs share; there is none where all runs test on the same rows). `p_holm` is corrected for the `family`
of a protocol, setting and metric.

`confusion.csv` has a line for every true and predicted class with rows: of labels of more than two
classes (`results: {confusion: all}`: of two as well) in the setting that stands for its protocol, and
of LoRA weights. `chosen` marks each collection's probe with the best mean validation score.

A file of your own that `extensions:` of the config names registers a metric with
`actprobe.probes.metrics.metric`. It is a column like the others here, in `summary.csv`, and in the part
"All metrics" of `report.html`.
"""


def page() -> str:
    """The page: a row for each column, and one for each metric."""
    metrics = {m.column: m for m in all_metrics().values()}
    lines = [HEAD, "## Columns", "", "| column | type | what it is |", "|---|---|---|"]
    lines += [f"| `{c.name}` | {_TYPES[c.type]} | {c.what} |" for c in columns.NAMED.values()]
    lines += ["", "## Directions", "", DIRECTIONS, "", "| column | what it is |", "|---|---|"]
    lines += [f"| `{c}` | {words} |" for c, words in (controls.TEXT | controls.NUMBERS).items()]
    lines += ["", "## Metrics", "", *_about()]
    lines += ["| column | what it is | label kinds | range | better | main metric of |"]
    lines += ["|---|---|---|---|---|---|", *map(_metric, metrics.values())]
    return "\n".join(lines) + "\n" + SUMMARIES


_TYPES = {"str": "text", "Int64": "whole number", "float64": "number", "boolean": "true or false"}


def _about() -> list[str]:
    return [
        "Each is a column of numbers on the test rows, behind `ci_high` in this order, and null for",
        "other label kinds. The main metric of a kind is the one that `metric` names: `val_score` and",
        "`test_score` are its values.",
        "",
    ]


def _metric(m: Metric) -> str:
    low = f"{'[' if math.isfinite(m.low) else '('}{_number(m.low)}"
    high = f"{_number(m.high)}{']' if math.isfinite(m.high) else ')'}"
    main = ", ".join(kind for kind, name in MAIN.items() if name == m.name)
    better = "high" if m.higher else "low"
    cells = [f"`{m.column}`", scores.short(m), ", ".join(m.kinds), f"{low}, {high}", better, main]
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else ("−∞" if value < 0 else "∞")


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
