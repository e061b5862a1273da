"""The fits of one condition and seed: what they share, and what the row of each says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import sae
from actprobe.probes import (
    door,
    intervals,
    keeping,
    leakage,
    metrics,
    permute,
    splits,
    tokens,
    validation,
)
from actprobe.probes.data import Labels
from actprobe.probes.keep.steps import Step
from actprobe.probes.kinds import CONTINUOUS, MULTICLASS
from actprobe.probes.methods import texts
from actprobe.probes.methods.prepare import Matrix, json_params
from actprobe.probes.search import Fitted, Task, search
from actprobe.probes.sizes import CannotFit, Condition
from actprobe.probes.splits import Rows, Split


@dataclass(frozen=True)
class Source:
    """Labels and the matrix of the same rows; the train set, or a test set of its own.

    texts, path: of the two artefacts; compare: a unit direction [d] that could be what a probe of the
    train set really finds.
    """

    labels: Labels
    matrix: Any
    texts: str = ""
    path: str = ""
    compare: NDArray[np.float64] | None = None


class Fits:
    """Everything that the fits of one condition and seed share."""

    def __init__(
        self,
        source: Source,
        other: Source,
        split: Split,
        recipe: Mapping[str, Any],
        condition: Condition,
        seed: int,
        keeps: bool = False,
    ) -> None:
        self.keeps = keeps
        train, test = split.train, split.test
        self.method, self.seed, self.kind = recipe["method"], seed, source.labels.kind
        self.source, self.other, self.train, self.test = source, other, train, test
        self.n_classes = len(source.labels.classes)
        self.rule = recipe["validation"]
        self.notes: dict[str, Any] = {}  # in `params`
        self.told: dict[str, Any] = {}  # in columns of their own
        self.select = recipe.get("select")
        self.classes, self.split = source.labels.classes, split
        if self._one_test_set(recipe["split"], source.labels):
            self.notes["test_rows"] = "shared"  # by the runs of all seeds
        if other.labels.classes != source.labels.classes:
            self.notes["test_classes"] = other.labels.classes
        self.y_train = source.labels.y[train]
        if condition.noise:
            self.y_train = splits.flip(self.y_train, condition.noise, seed)
        self._check_train()
        self.y_test = other.labels.y[test]
        own, there = source.labels, other.labels
        self.repeated = leakage.repeated(own.digest[split.fitted], there.digest[test])
        self.shared = _shared_groups(own, split.fitted, there, test)
        self.cluster = there.component[test]
        self.level = recipe["interval"]["level"]
        if self.method.get("labels") == "shuffled":
            shuffler = np.random.RandomState(self.method.get("seed", seed))
            self.y_train = permute.exchanged(self.y_train, own.component[train], shuffler)
            self._check_train("shuffled by whole groups, ")
        self.folds: list[validation.Fold] = []
        self.X_validation = self.y_validation = None
        if split.validation is None:
            component = own.component[train] if self.rule["groups"] != "ignore" else None
            self.folds = validation.folds(self.y_train, self.rule, seed, component, self.kind)
        else:
            self.y_validation = own.y[split.validation]
        self.X_train: Any
        self.X_test: Any
        self.latents: Rows | None = None  # chosen, best first
        self.positions: tokens.Positions | None = None
        self.units: Sequence[Step] = ()
        self.max_tokens: int | None = recipe["setting"].get("max_tokens")  # of a row that are read
        self.X_folds: list[Matrix] | None = None
        at_train, at_test = source.labels.row[train], other.labels.row[test]
        if self.method["reads"] == "features":
            sides, self.told, self.units = source.matrix.sides(
                source.labels.row, split, self.method
            )
            self.X_train, self.X_validation, self.X_test = sides
        elif self.method["reads"] in ("latents", "token_latents"):
            self.latents = best = self._best(source, at_train, slice(None))
            fired = source.matrix.columns(best, at_train)
            if not fired.any():
                raise CannotFit(f"no latent fires on the {len(train)} train rows")
            self.X_train = self._codes(fired)
            self.X_test = self._codes(other.matrix.columns(best, at_test))
            if self.method.get("ranking_rows") == "fit":
                chosen = [self._best(source, at_train, a) for a, _ in self.folds]
                self.X_folds = [self._codes(source.matrix.columns(c, at_train)) for c in chosen]
        elif self.method["reads"] == "tokens":
            most = recipe["setting"]["max_tokens"]
            self.X_train = source.matrix.rows(at_train, most)
            self.X_test = other.matrix.rows(at_test, most)
            if self.method["family"] != "attention":
                pca = tokens.concat_pca(self.X_train, self.method["components"], seed)
                self.X_train, self.X_test = pca.columns(self.X_train), pca.columns(self.X_test)
                self.positions = pca
        elif self.method["reads"] == "texts":
            self.X_train, self.X_test = source.matrix[at_train], other.matrix[at_test]
        else:
            self.X_train = source.matrix[at_train].astype(np.float64, copy=False)
            self.X_test = other.matrix[at_test]

    @staticmethod
    def _one_test_set(rule: Mapping[str, Any], labels: Labels) -> bool:
        """Whether a split by shares gives every run the same test rows."""
        return "kind" in rule and (labels.split is not None or rule["seed"] != "per_run")

    def _check_train(self, after: str = "") -> None:
        """Raise CannotFit where a class has no train row, or all values are one."""
        there, n = len(np.unique(self.y_train)), len(self.y_train)
        if there < 2:
            what = "value" if self.kind == CONTINUOUS else "class"
            raise CannotFit(f"{after}one {what} only among {n} train rows")
        if self.kind == MULTICLASS and there < self.n_classes:
            lacking = self.n_classes - there
            raise CannotFit(f"{after}{lacking} of {self.n_classes} classes have no train row")

    def _best(self, source: Source, at: Rows, ranked: Any) -> Rows:
        """As many latents as the largest k, best first, by the rows `ranked` of `at` alone."""
        y, rule, most = self.y_train[ranked], self.method["ranking"], self.method["ks"][-1]
        if len(np.unique(y)) < self.n_classes:
            return np.arange(0)  # a fold without a fit
        return sae.rank(source.matrix, at[ranked], y, rule, most)

    def _codes(self, x: Matrix) -> Matrix:
        """Codes as the method reads them."""
        if "binarise" in self.method:
            return (np.abs(x) > self.method["binarise"]).astype(np.float64)
        return x

    def fit(self, k: int | None) -> tuple[Fitted, dict[str, Any]]:
        """The probe on the first k columns, or on all, and its tidy row."""
        task = self._task(k)
        if self.method.get("in_domain"):
            fitted = texts.in_domain(self.X_test, self.y_test, self.cluster)
        else:
            fitted = search(task)
        if not np.isfinite(fitted.scores).all():
            raise CannotFit("the fitted probe scores rows with what is no number")
        row = self._row(k, fitted)
        if self.keeps:
            row |= door.keep(keeping.cells(self, task, fitted, k))
        return fitted, row

    def _task(self, k: int | None) -> Task:
        whole = self.method["family"] == "attention" or self.method["reads"] == "texts"
        return Task(
            self.X_train if whole else self.X_train[:, :k],
            self.y_train,
            self.X_test if whole else self.X_test[:, :k],
            self.method,
            self.folds,
            self.rule,
            self.seed,
            self.kind,
            self.n_classes,
            [x[:, :k] for x in self.X_folds] if self.X_folds is not None else None,
            self.X_validation,
            self.y_validation,
            self.select,
        )

    def _row(self, k: int | None, fitted: Fitted) -> dict[str, Any]:
        params = json_params(fitted.params) | self.notes
        params["unconverged"] = fitted.unconverged
        if k is not None:
            params["latents"] = int(self.X_train[:, :k].any(axis=0).sum())
        y, said = self.y_test, fitted.scores
        low, high = intervals.main_interval(
            self.kind, y, said, self.cluster, self.level, self.select, fitted.predicted
        )
        new = ~self.repeated
        if self.shared is not None:
            new &= ~self.shared
        measured = metrics.measure(self.kind, y, said, fitted.predicted)
        score = measured[metrics.main_metric(self.kind, self.select).column]
        return {
            "k": k,
            "n_train": len(self.split.fitted),
            "n_validation": None if self.y_validation is None else len(self.y_validation),
            "n_test": len(y),
            "train_score": fitted.train_score,
            "val_score": fitted.val_score,
            "test_score": score,
            **measured,
            "ci_low": low,
            "ci_high": high,
            "converged": fitted.converged,
            "leak_fraction": float(self.repeated.mean()),
            "group_fraction": None if self.shared is None else float(self.shared.mean()),
            "test_score_unseen": metrics.main(
                self.kind, y[new], said[new], self.select, fitted.predicted[new]
            ),
            "chance": self._chance(),
            "reason": self._no_number(score),
            "params": json.dumps(params, sort_keys=True),
            **self._confusion(fitted.predicted),
            **self.told,
        }

    def _confusion(self, predicted: NDArray[Any]) -> dict[str, str]:
        """Names of the classes, and the cells of the confusion matrix that are not 0, as JSON: true
        class, predicted class, rows. There are no more of them than rows."""
        if self.kind == CONTINUOUS:
            return {}
        pairs, counts = np.unique(
            np.column_stack([self.y_test, predicted]), axis=0, return_counts=True
        )
        cells = np.column_stack([pairs, counts]).astype(int).tolist()
        return {
            "classes": json.dumps(self.classes),
            "confusion": json.dumps(cells, separators=(",", ":")),
        }

    def _chance(self) -> float:
        """Accuracy on the test rows of always saying the commonest train class; NaN of values."""
        if self.kind == CONTINUOUS:
            return math.nan
        return float(np.mean(self.y_test == np.bincount(self.y_train).argmax()))

    def _no_number(self, score: float) -> str:
        if not math.isnan(score):
            return ""
        return "one value" if self.kind == CONTINUOUS else "one class in the test set"


def _shared_groups(
    train: Labels, train_rows: Rows, test: Labels, test_rows: Rows
) -> NDArray[np.bool_] | None:
    """For each test row, whether its group has train rows; None where there are no groups.

    In a test set of its own groups are the same where their names are.
    """
    kind = "group" if test is train else "group_name"
    of_train, of_test = getattr(train, kind), getattr(test, kind)
    if of_train is None or of_test is None:
        return None
    named = [g[rows] for g, rows in ((of_train, train_rows), (of_test, test_rows))]
    if kind == "group_name":
        named = [np.array(["" if g is None else g for g in names], str) for names in named]
        return leakage.repeated(named[0], named[1]) & (named[1] != "")
    return leakage.repeated(named[0], named[1])
