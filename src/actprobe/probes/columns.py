"""The columns of a fit's row, in the order of every table: their types, what they mean, and their
value where a fit says nothing. Between both halves stands a column for each registered metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from actprobe.probes.metrics import all_metrics

TEXT, COUNT, NUMBER, FLAG = "str", "Int64", "float64", "boolean"  # types of pandas
_ALWAYS = object()  # in place of an `empty` value: every fit says it


@dataclass(frozen=True)
class Column:
    """A column of a fit's row. empty: what stands there where the fit says nothing."""

    name: str
    type: str
    what: str
    empty: Any


def _of(kind: str, empty: Any = _ALWAYS, /, **columns: str) -> list[Column]:
    return [Column(name, kind, what, empty) for name, what in columns.items()]


BEFORE = (
    *_of(
        TEXT,
        experiment="Name of the experiment in the config that the row was collected for.",
        protocol="Name of the recipe of splits, probes, grids and metrics.",
        setting="Setting of the protocol (normal, scarcity, imbalance, noise, ood, …).",
        condition=(
            "The setting's condition (train size, ratio, rate); empty where there is one only."
        ),
        dataset="Name of the dataset.",
        label=(
            "The class that was told from all others, of a dataset whose classes are tasks of "
            "their own (one-versus-rest); empty otherwise. In means over datasets the labels of a "
            "dataset are averaged first."
        ),
        model="Name of the model that was read; empty where there is none.",
        site=(
            "Where the model was read, in TransformerLens words (resid_post.3); of features the "
            "module that was read alone."
        ),
        position="Which tokens became one vector (last, mean, …).",
        source="What the probe read, an activation source or an SAE's name.",
    ),
    *_of(
        TEXT,
        "",
        columns=(
            "Of features, which columns were read: a pattern of module names, or `each` where the "
            "module that `site` names was read alone. Empty for other sources."
        ),
    ),
    *_of(
        TEXT,
        method="Kind of probe.",
    ),
    *_of(
        COUNT,
        None,
        k="Number of latents that an SAE probe reads; null for probes of all dimensions.",
    ),
    *_of(
        COUNT,
        seed="Seed of split and fit.",
    ),
    *_of(
        COUNT,
        None,
        n_train="Rows trained on, validation rows included.",
        n_validation="Rows of the split that validated; null where train rows did.",
        n_test="Rows tested on.",
        n_unused=(
            "Labelled rows of the dataset that the protocol left out, because it takes only so "
            "many."
        ),
        n_columns="Columns that were read; null but for features.",
        n_constant=(
            "Columns among these that are constant on the train rows; null but for features."
        ),
        n_repeated=(
            "Columns among these that repeat another one of their unit; null but for features."
        ),
    ),
    *_of(
        TEXT,
        kind=(
            "Kind of the label: two classes (binary), several (multiclass), or values (continuous)."
        ),
        metric=(
            "Name of the metric that val_score, test_score, their interval and test_score_unseen "
            "are values of: the main one of the label kind. Scores of two metrics are never "
            "averaged or compared."
        ),
    ),
    *_of(
        NUMBER,
        None,
        train_score=(
            "Score on the train rows; null where the split has no validation rows of its own."
        ),
    ),
    *_of(
        NUMBER,
        math.nan,
        val_score="Score on the validation rows, by which the hyperparameters were chosen.",
        test_score="Score on the test rows; null when `reason` says why.",
        ci_low=(
            "Lower bound of the interval of the test score, over test rows (those of one text, "
            "group or pair count as one). In benchmarks/calibration that of an AUC held the true "
            "one as often as its level says, and more often with fewer than 20 rows of a class or "
            "an AUC above 0.95. Null where a class has one row."
        ),
        ci_high="Upper bound of the same interval.",
    ),
)
BEHIND = (
    *_of(
        FLAG,
        None,
        converged=(
            "False when the solver stopped at its iteration limit; true where none iterates; null "
            "without a fit, or where that is not known."
        ),
    ),
    *_of(
        NUMBER,
        math.nan,
        leak_fraction="Share of test rows whose exact text is also a training row's.",
    ),
    *_of(
        NUMBER,
        None,
        group_fraction=(
            "Share of test rows whose group or pair also has training rows; null for datasets "
            "without either."
        ),
    ),
    *_of(
        NUMBER,
        math.nan,
        test_score_unseen="Test score without the rows whose text, group or pair also trains.",
        chance=(
            "Accuracy on the test rows of always saying the commonest class of the training rows; "
            "null for continuous labels."
        ),
    ),
    *_of(
        TEXT,
        "",
        outliers=(
            "JSON list of the items most of whose values lie far outside of all others and were "
            "cut; of features."
        ),
        classes="JSON list of the classes' names; empty for values.",
        confusion=(
            "JSON list of the cells of the confusion matrix that are not 0, each as true class, "
            "predicted class (places in `classes`) and rows; empty for values."
        ),
        reason="Why there is no number; empty when there is one.",
    ),
    *_of(
        TEXT,
        "{}",
        params="The chosen hyperparameters as JSON.",
    ),
    *_of(
        TEXT,
        key="Key of the cached artefact that the row was collected from.",
    ),
)
NAMED = {c.name: c for c in (*BEFORE, *BEHIND)}
EMPTY = {c.name: c.empty for c in NAMED.values() if c.empty is not _ALWAYS}


def types() -> dict[str, str]:
    """Column -> type; every registered metric is one."""
    measured = {m.column: NUMBER for m in all_metrics().values()}
    return {c.name: c.type for c in BEFORE} | measured | {c.name: c.type for c in BEHIND}
