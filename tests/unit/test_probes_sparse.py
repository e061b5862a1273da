"""Ranking and slicing SAE latents without making them dense."""

from __future__ import annotations

import numpy as np
import pytest
from probes_inputs import sparse_data
from scipy.sparse import csr_array

from actprobe.probes import sparse


def dense_scores(z, y, rule):
    """The ranking statistic as one writes it down for a dense float64 matrix."""
    if rule == "b":
        z = z / (np.abs(z).sum(0) / ((z != 0).sum(0) + 1e-6) + 1e-6)
    return np.abs(z[y == 1].mean(0) - z[y == 0].mean(0))


@pytest.mark.parametrize("rule", ["a", "b"])
def test_ranks_like_the_dense_matrix(rule):
    latents, y = sparse_data(300, 400)
    scores = dense_scores(latents.toarray().astype(float), y, rule)
    best = sparse.rank(latents, y, rule, 64)
    assert np.allclose(scores[best], np.sort(scores)[::-1][:64], atol=1e-12)
    assert len(set(best)) == 64


def test_the_rules_differ():
    """Rule a prefers the larger difference, rule b the one that is larger for its latent."""
    z, y = np.array([[9.0, 1.0], [9.0, 1.0], [6.0, 0.0], [6.0, 0.0]]), np.array([1, 1, 0, 0])
    assert sparse.rank(csr_array(z), y, "a", 1) == [0]
    assert sparse.rank(csr_array(z), y, "b", 1) == [1]


def test_negative_latents_count_by_their_size():
    z, y = np.array([[-1.0, 2.0], [-1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]), np.array([1, 1, 0, 0])
    assert list(sparse.rank(csr_array(z), y, "b", 2)) == [0, 1]


def test_equal_scores_go_to_the_lower_latent():
    z, y = np.array([[0, 1.0, 1.0, 1.0], [0, 0, 0, 0]]), np.array([1, 0])
    assert list(sparse.rank(csr_array(z), y, "a", 2)) == [1, 2]


def test_only_latents_that_fire_are_ranked():
    z, y = np.zeros((4, 50)), np.array([1, 1, 0, 0])
    z[0, 7] = z[1, 30] = 2.0
    assert sorted(sparse.rank(csr_array(z), y, "b", 16)) == [7, 30]
    assert len(sparse.rank(csr_array(np.zeros((4, 50))), y, "b", 16)) == 0


def test_columns_equal_the_dense_ones():
    latents, _ = sparse_data(100, 80)
    rows, columns = np.array([5, 99, 0, 5]), np.array([79, 3, 0, 41])
    assert (sparse.dense(latents, rows, columns) == latents.toarray()[np.ix_(rows, columns)]).all()


def test_latents_beyond_those_of_the_train_rows_are_left_out():
    """The test rows may fire latents that are in no chosen column."""
    z = csr_array(np.array([[1.0, 0, 0, 5.0], [0, 0, 2.0, 5.0]]))
    assert sparse.dense(z, np.arange(2), np.array([2, 0])).tolist() == [[0, 1.0], [2.0, 0]]
    assert sparse.dense(z, np.arange(2), np.array([], int)).shape == (2, 0)
