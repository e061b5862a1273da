"""The batch plan: which rows of a dataset go through the model together.

Rounding in a forward pass depends on the shape of the batch, so the plan is a pure function of one
dataset's lengths and the token budget, and its digest is stored with what was computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def batch_plan(lengths: ArrayLike, budget: int) -> list[list[int]]:
    """Row indices of each batch, longest rows first (so that a lack of memory shows at once).

    lengths: [N] tokens per row. Rows are ordered by length descending, ties by index descending,
    and taken in order; a batch is closed when one more row would make longest x rows exceed
    `budget`. A row longer than the budget is a batch of its own.
    """
    n = np.asarray(lengths, dtype=np.int64)
    plan: list[list[int]] = []
    longest = 0
    for i in np.lexsort((-np.arange(len(n)), -n)).tolist():
        if plan and longest * (len(plan[-1]) + 1) <= budget:
            plan[-1].append(i)
        else:
            plan.append([i])
            longest = int(n[i])
    return plan


def plan_cost(lengths: ArrayLike, plan: Sequence[Sequence[int]]) -> int:
    """Tokens that go through the model, padding included: sum of longest x rows."""
    n = np.asarray(lengths, dtype=np.int64)
    return sum(int(n[rows].max()) * len(rows) for rows in map(list, plan))


def cheapest_budget(lengths: ArrayLike, most: int, per_batch: int) -> int:
    """Of `most`, its half, its quarter, ..., the budget whose plan costs least; in doubt the largest.

    A plan costs the tokens that go through the model, padding included, and `per_batch` tokens for
    each batch: with few rows for a large budget, rows of unlike lengths share a batch. No budget is
    below the longest row, unless `most` is.
    """
    n = np.asarray(lengths, dtype=np.int64)
    budgets = [most]
    while budgets[-1] // 2 >= n.max(initial=1):
        budgets.append(budgets[-1] // 2)

    def cost(budget: int) -> int:
        plan = batch_plan(n, budget)
        return plan_cost(n, plan) + per_batch * len(plan)

    return min(budgets, key=cost)


def plan_digest(plan: Sequence[Sequence[int]]) -> str:
    """SHA-256 of the plan as a JSON list of lists of numbers without spaces."""
    return hashlib.sha256(json.dumps(plan, separators=(",", ":")).encode()).hexdigest()
