"""Which train rows choose the hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, LeavePOut, StratifiedKFold

from actprobe.probes.kinds import BINARY, CONTINUOUS

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def folds(
    y: NDArray[Any],
    rule: Mapping[str, Any],
    seed: int,
    component: NDArray[Any] | None = None,
    kind: str = BINARY,
) -> list[Fold]:
    """(fit rows, validation rows) of each fold; indices into the train rows.

    y: train labels [n]. By n: nothing, every pair left out, stratified folds (of values: plain ones),
    or the last rows held out. Folds of the middle two need two labels in their validation part. With
    `component` [n], rows that share a component with a validation row leave the fit part. By
    `groups: whole` whole components are held out instead.
    """
    if rule["groups"] == "whole":
        assert component is not None
        return _whole(y, component, rule["folds"], seed)
    n = len(y)
    if n <= rule["none_up_to"]:
        return []
    if n < rule["folds_below"]:
        if n <= rule["leave_pairs_out_up_to"]:
            cv = LeavePOut(2)
        else:
            deal = KFold if kind == CONTINUOUS else StratifiedKFold
            cv = deal(min(rule["folds"], n), shuffle=True, random_state=seed)
        found = [(a, b) for a, b in cv.split(np.zeros((n, 1)), y) if len(np.unique(y[b])) > 1]
    else:
        held_out = min(int(rule["holdout"]["fraction"] * n), rule["holdout"]["rows"])
        found = [(np.arange(n - held_out), np.arange(n - held_out, n))]
    if component is None:
        return found
    return [(a[~np.isin(component[a], component[b])], b) for a, b in found]


def _whole(y: NDArray[Any], component: NDArray[Any], folds: int, seed: int) -> list[Fold]:
    """Components [n] are dealt to the folds; both parts of each have two labels.

    Fewer folds where there are fewer components; none with a single one.
    """
    _, group = np.unique(component, return_inverse=True)
    folds = min(folds, int(group.max()) + 1)
    if folds < 2:
        return []
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    parts = GroupKFold(folds).split(y, y, order[group])
    return [(a, b) for a, b in parts if min(len(np.unique(y[a])), len(np.unique(y[b]))) > 1]
