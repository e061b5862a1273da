"""The probes themselves: equal to the sae-probes package, exact shortcuts, awkward inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from probes_inputs import data, sparse_data

from actprobe import sae
from actprobe.probes import metrics, protocol
from actprobe.probes.methods import Shape, family
from actprobe.probes.methods import prepare as preparing
from actprobe.probes.metrics.binary import auc
from actprobe.probes.search import Task, search
from actprobe.probes.sizes import CannotFit
from actprobe.probes.validation import folds

# Made with the functions of sae-probes 0.4.2 (utils_training.py and the ranking of
# run_sae_evals.py) on `data(n_train + n_test, d, seed=n_train)` or `sparse_data(...)`, float32
# tensors, seed 42, PCA given random_state=42; result: val_auc, test_auc, test_acc, test_f1.
# Rule b at 40 rows stops at k = 4: beyond, latents that fire in one row each tie exactly, and the
# package orders ties as torch happens to.
ORACLE = json.loads((Path(__file__).parents[1] / "golden" / "probes.json").read_text())[
    "sae-probes 0.4.2"
]
PROTOCOL = protocol.load("saeprobes-0.4.2")
# Equal on the machine that made the oracle. The others follow rounding errors of the math library
# through many steps: their hard metrics move by a few test rows.
TOLERANCE = {"mlp": 0.05, "xgboost": 0.02}


def grid(method, n, d, smallest, seed):
    return family(method["family"]).grid(method, Shape(n, d, smallest), seed)


def probe(X, y, n_train, method, seed=42, rule=PROTOCOL["validation"]):
    """Fit on the first rows, test on the others."""
    pieces = folds(y[:n_train], rule, seed)
    rows = X[:n_train].astype(float), y[:n_train], X[n_train:].astype(float)
    return search(Task(*rows, method, pieces, rule, seed))


@pytest.mark.parametrize("case", ORACLE, ids=lambda c: f"{c['method']}-{c['n_train']}-{c['k']}")
def test_same_numbers_as_the_package(case):
    n, method = case["n_train"], PROTOCOL["methods"][case["method"]]
    if case["k"] is None:
        X, y = data(n + case["n_test"], case["d"], seed=n)
    else:
        latents, y = sparse_data(n + case["n_test"], case["d"], seed=n)
        best = sae.rank(latents, np.arange(n), y[:n], method["ranking"], case["k"])
        X = latents.columns(best)
    fitted = probe(X, y, n, method)
    scores = metrics.measure("binary", y[n:], fitted.scores, fitted.predicted)
    found = [fitted.val_score, *(scores[m] for m in ("test_auc", "test_acc", "test_f1"))]
    assert found == pytest.approx(case["result"], abs=TOLERANCE.get(case["method"], 1e-6))


@pytest.mark.parametrize("method", ["logreg", "pca", "knn", "xgboost", "mlp"])
def test_two_train_rows_and_constant_columns(method):
    X, y = data(42, 7)
    X[:, 3:] = 1.0
    fitted = probe(X, y, 2, PROTOCOL["methods"][method])
    assert np.isfinite(fitted.scores).all() and set(fitted.predicted) <= {0, 1}
    assert fitted.val_score == auc(y[:2], probe(X[[0, 1, 0, 1]], y[[0, 1, 0, 1]], 2,
                                         PROTOCOL["methods"][method]).scores)  # fmt: skip


def test_all_columns_constant_is_a_coin_toss():
    y = np.arange(260) % 2
    fitted = probe(np.ones((260, 5)), y, 160, PROTOCOL["methods"]["logreg"])
    assert auc(y[160:], fitted.scores) == 0.5


def test_more_columns_than_rows_and_all_of_them_constant():
    y = np.arange(260) % 2
    for name in ("saeprobes-0.4.2-fast", "actprobe-1"):
        fitted = probe(np.ones((260, 200)), y, 160, protocol.load(name)["methods"]["logreg"])
        assert auc(y[160:], fitted.scores) == 0.5


def test_the_first_of_equal_hyperparameters_wins():
    X, y = data(200, 4, strength=60.0)
    fitted = probe(X, y, 150, PROTOCOL["methods"]["logreg"])
    assert fitted.val_score == 1.0 and fitted.params == {"C": 1e5}


def test_a_solver_that_stops_early_is_not_converged():
    X, y = data(300, 30)
    method = PROTOCOL["methods"]["logreg"] | {
        "solver": {"solver": "saga", "l1_ratio": 1.0, "max_iter": 2}
    }
    fitted = probe(X, y, 200, method)
    assert not fitted.converged and fitted.unconverged > 0
    assert probe(X, y, 200, PROTOCOL["methods"]["logreg"]).converged


def test_labels_are_not_touched():
    """Class 1 is the class that scores mean, whichever comes first."""
    X, y = data(200, 5, strength=8.0)
    upright = probe(X, y, 150, PROTOCOL["methods"]["logreg"])
    flipped = probe(X, 1 - y, 150, PROTOCOL["methods"]["logreg"])
    assert auc(y[150:], upright.scores) > 0.9
    assert np.allclose(upright.scores, 1 - flipped.scores, atol=1e-3)


def test_a_seed_of_the_method_overrides_the_seed():
    X, y = data(260, 8)
    X = X.astype(float)
    mlp = PROTOCOL["methods"]["mlp"]
    assert (probe(X, y, 150, mlp | {"seed": 7}).scores != probe(X, y, 150, mlp).scores).any()
    pieces = folds(y[:150], PROTOCOL["validation"], 42)
    same = search(Task(X[:150], y[:150], X[150:], mlp, pieces, PROTOCOL["validation"], 7))
    assert (probe(X, y, 150, mlp | {"seed": 7}).scores == same.scores).all()


def test_rotation_has_the_optimum_of_the_whole_problem():
    """For d > n an L2 probe in at most n coordinates gives the probabilities of the full one."""
    from sklearn.linear_model import LogisticRegression

    X, y = data(120, 300, seed=3)
    X = X.astype(float) + np.linspace(-5, 300, 300)
    fit, rotation = preparing.rotate(X[:60])
    other = rotation(X[60:])
    assert fit.shape == (60, 59) and other.shape == (60, 59)
    exact = {"C": 0.1, "solver": "newton-cholesky", "tol": 1e-10}
    whole = LogisticRegression(**exact).fit(X[:60], y[:60]).predict_proba(X[60:])
    rotated = LogisticRegression(**exact).fit(fit, y[:60]).predict_proba(other)
    assert np.allclose(whole, rotated, atol=1e-6)


@pytest.mark.parametrize("k", [4, 16])
def test_the_fast_preset_finds_the_optimum(k):
    """Against saga run until it has converged, on the same grid."""
    fast = protocol.load("saeprobes-0.4.2-fast")["methods"]["ksparse_b"]
    latents, y = sparse_data(400, 400, seed=1)
    X = latents.columns(sae.rank(latents, np.arange(300), y[:300], "b", k))
    exact = fast | {"solver": {"solver": "saga", "l1_ratio": 1.0, "max_iter": 20_000, "tol": 1e-7}}
    one, two = probe(X, y, 300, fast), probe(X, y, 300, exact)
    assert two.unconverged == 0
    assert one.params == two.params
    assert auc(y[300:], one.scores) == pytest.approx(auc(y[300:], two.scores), abs=1e-3)


def test_a_penalty_that_keeps_its_weight_against_the_mean_loss():
    fast = protocol.load("saeprobes-0.4.2-fast")["methods"]["ksparse_b"]
    assert grid(fast, 1024, 1, 1, 0)[0] == {"C": 1.0}
    assert grid(fast, 64, 1, 1, 0)[0] == {"C": 16.0}


def test_one_direction_and_a_control():
    own = protocol.load("actprobe-1")
    X, y = data(600, 20, seed=5, strength=4.0)
    mean = {
        name: np.mean([auc(y[400:], probe(X, y, 400, own["methods"][name], s).scores)
                       for s in range(20)])
        for name in ("mean_difference", "control_random_direction")
    }  # fmt: skip
    assert mean["mean_difference"] > 0.9
    assert 0.5 < mean["control_random_direction"] < 0.75, "its sign is learned"


def test_pca_components_do_not_depend_on_the_global_random_state():
    X, y = data(700, 300)
    np.random.seed(1)  # noqa: NPY002
    first = probe(X, y, 600, PROTOCOL["methods"]["pca"])
    np.random.seed(2)  # noqa: NPY002
    assert (probe(X, y, 600, PROTOCOL["methods"]["pca"]).scores == first.scores).all()


def test_grids():
    logreg, pca, knn = (PROTOCOL["methods"][m] for m in ("logreg", "pca", "knn"))
    assert [g["C"] for g in grid(logreg, 1, 1, 1, 0)] == list(np.logspace(5, -5, 10))
    components = [g["n_components"] for g in grid(pca, 1024, 384, 0, 0)]
    assert components == [1, 2, 4, 7, 12, 21, 35, 59, 99]
    assert grid(knn, 14, 384, 11, 0)[-1]["n_neighbors"] <= 11
    assert grid(knn, 14, 384, 0, 0) == [{"n_neighbors": 1}]
    [mlp] = grid(PROTOCOL["methods"]["mlp"], 1, 1, 1, 42)
    assert mlp == {
        "hidden_layer_sizes": [16, 16, 16],
        "learning_rate_init": pytest.approx(0.0031622776601683794),
        "alpha": pytest.approx(0.01),
    }


def test_folds_by_number_of_train_rows():
    rule = PROTOCOL["validation"]
    assert folds(np.array([0, 1, 0]), rule, 42) == []
    pairs = folds(np.arange(12) % 2, rule, 42)
    assert len(pairs) == 36, "every pair with both classes"
    assert len(folds(np.arange(127) % 2, rule, 42)) == 6
    [(fit, held_out)] = folds(np.arange(1024) % 2, rule, 42)
    assert list(held_out) == list(range(924, 1024)) and len(fit) == 924
    assert len(folds(np.arange(130) % 2, rule, 42)[0][1]) == 26


def test_no_fold_shares_a_component_with_its_validation_rows():
    y, component = np.arange(200) % 2, np.arange(200) // 3
    [(fit, held_out)] = folds(y, PROTOCOL["validation"], 0, component)
    assert not set(component[fit]) & set(component[held_out])
    assert len(fit) == 159, "row 159 shares its component with row 160"


@pytest.mark.parametrize("name", ["svm", "lda"])
@pytest.mark.parametrize(("n_train", "d"), [(6, 5), (300, 6), (100, 400)])
def test_support_vectors_and_discriminants(name, n_train, d):
    """They find what logistic regression finds, with few rows and with d > n too."""
    protocol_1 = protocol.load("actprobe-1")
    X, y = data(n_train + 200, d, strength=5.0)
    rule, method = protocol_1["validation"], protocol_1["methods"]
    fitted, again, logreg = (
        probe(X, y, n_train, method[m], rule=rule) for m in (name, name, "logreg")
    )
    found, expected = (auc(y[n_train:], f.scores) for f in (fitted, logreg))
    assert found == pytest.approx(expected, abs=0.03)
    assert ((fitted.scores >= 0) & (fitted.scores <= 1)).all() and fitted.converged
    assert np.mean((fitted.scores > 0.5) == fitted.predicted) > 0.99
    assert (fitted.scores == again.scores).all() and not method[name]["default"]


def test_a_discriminant_of_two_rows():
    X, y = data(60, 5)
    lda = protocol.load("actprobe-1")["methods"]["lda"]
    with pytest.raises(CannotFit, match="more than two rows"):
        probe(X, y, 2, lda)
