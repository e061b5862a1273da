"""The batch plan: a pure function of lengths and budget, with known digests."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprobe.models.batches import batch_plan, cheapest_budget, plan_cost, plan_digest


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    drawn = np.exp(np.random.default_rng(0).normal(np.log(48), 0.75, 512))
    n = np.clip(drawn.astype(int), 8, 256)
    assert hashlib.sha256(n.astype("<i8").tobytes()).hexdigest().startswith("2310092cbcc7025e")
    return n


@pytest.mark.parametrize(
    ("budget", "batches", "cost", "largest", "digest"),
    [
        (512, 69, 31_831, 30, "29e5180cddfcdb82"),
        (1024, 34, 32_537, 46, "e2fc66d04d62373d"),
        (2048, 17, 33_804, 77, "c7e72919a49bd115"),
        (4096, 9, 36_290, 136, "5139b4dff92f955f"),
        (8192, 5, 40_647, 210, "19ca664211fe225f"),
    ],
)
def test_known_plans(lengths, budget, batches, cost, largest, digest):
    plan = batch_plan(lengths, budget)
    assert len(plan) == batches
    assert plan_cost(lengths, plan) == cost
    assert max(map(len, plan)) == largest
    assert plan_digest(plan).startswith(digest)


@pytest.mark.parametrize(
    ("lengths", "budget", "plan"),
    [
        ([3, 7, 7, 2, 9, 7, 1], 14, [[4], [5, 2], [1, 0], [3, 6]]),
        ([3, 7, 7, 2, 9, 7, 1], 18, [[4, 5], [2, 1], [0, 3, 6]]),
        ([5, 9, 20, 31], 40, [[3], [2, 1], [0]]),
        ([5, 9, 20, 31], 31, [[3], [2], [1, 0]]),
        ([50, 3], 10, [[0], [1]]),  # longer than the budget: a batch of its own
        ([], 10, []),
    ],
)
def test_small_plans(lengths, budget, plan):
    assert batch_plan(lengths, budget) == plan


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 2000))
def test_every_row_once_and_within_the_budget(lengths, budget):
    plan = batch_plan(lengths, budget)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget


@pytest.mark.parametrize(
    ("most", "per_batch", "budget"),
    [
        (65536, 512, 4096),  # 36,290 tokens + 9 x 512, against 33,804 + 17 x 512, 40,647 + 5 x 512
        (65536, 64, 1024),
        (1024, 512, 1024),
        (512, 0, 256),
        (100, 512, 100),  # below the longest row
    ],
)
def test_the_cheapest_budget(lengths, most, per_batch, budget):
    assert cheapest_budget(lengths, most, per_batch) == budget


def test_the_cheapest_budget_of_rows_of_one_length_is_the_largest():
    assert cheapest_budget([64] * 1024, 65536, 512) == 65536
    assert cheapest_budget([], 4096, 512) == 4096
