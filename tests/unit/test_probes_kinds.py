"""Labels of several classes and of values, tasks of one class against the rest, files of one's own."""

from __future__ import annotations

import math

import numpy as np
import own_extension
import pytest
from probes_inputs import Cache, sparse_data
from sklearn.metrics import r2_score, roc_auc_score
from texts_inputs import with_facts

from actprobe import probes
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.probes import extensions, intervals, methods, metrics, permute
from actprobe.probes.kinds import BINARY, CONTINUOUS, MULTICLASS
from actprobe.probes.search import Task, search
from actprobe.probes.validation import folds

RULE = {
    "none_up_to": 2, "leave_pairs_out_up_to": 2, "folds": 5, "folds_below": 2, "one_class_fold": 0.5,
    "holdout": {"fraction": 0.25, "rows": 100}, "groups": "ignore",
}  # fmt: skip
LOGREG = {
    "family": "logreg", "reads": "activations", "scaler": "standard", "solver": {"max_iter": 1000},
    "C": [0.1, 1.0], "tiny": {"C": 1.0},
}  # fmt: skip
RIDGE = {
    "family": "ridge", "reads": "activations", "scaler": "standard", "alpha": [1e-3, 1.0],
    "tiny": {"alpha": 1.0},
}  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


def classes(n=600, k=10, d=16, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % k)
    centres = rng.normal(size=(k, d)) * 2
    return (centres[y] + rng.normal(size=(n, d))).astype(np.float32), y


def fitted(X, y, how, kind, n_classes, n=400):
    rows = X[:n].astype(float), y[:n], X[n:].astype(float)
    found = folds(y[:n], RULE, 0)
    return search(Task(*rows, how, found, RULE, 0, kind, n_classes))


def test_ten_classes_have_the_numbers_of_scikit_learn():
    X, y = classes()
    found = fitted(X, y, LOGREG, MULTICLASS, 10)
    assert found.scores.shape == (200, 10) and found.scores.sum(axis=1) == pytest.approx(1)
    numbers = metrics.measure(MULTICLASS, y[400:], found.scores, found.predicted)
    auc = roc_auc_score(y[400:], found.scores, multi_class="ovr", average="macro")
    assert numbers["test_auc"] == pytest.approx(auc) and auc > 0.95
    assert numbers["test_acc"] == np.mean(found.predicted == y[400:])
    assert numbers["test_top5"] >= numbers["test_acc"]


ALONE = (
    "pca",
    "ridge_path",
    "stopped_mlp",
)  # not of three columns; of validation rows of their own


@pytest.mark.parametrize(
    "family",
    [n for n, kinds in methods.families().items() if MULTICLASS in kinds and n not in ALONE],
)
def test_every_family_of_several_classes_tells_them_apart(family):
    X, y = classes(n=300, k=3, d=4)
    extra = {
        "svm": {"solver": {}, "C": [1.0]}, "lda": {"solver": {"solver": "lsqr"}, "shrinkage": [0.1]},
        "knn": {"neighbours": 5}, "tree": {"depth": [2, 4]}, "logreg": {"solver": {}, "C": [1.0]},
        "mlp": {"solver": {"max_iter": 300}, "draws": 1, "space": [{"param": "alpha", "values": [1.0]}]},
        "xgboost": {"draws": 1, "space": [{"param": "max_depth", "values": [2]}]},
        "ridge": {"alpha": [1e-3]},
    }  # fmt: skip
    how = {
        "family": family,
        "scaler": "standard",
        "tiny": {},
        "reads": "activations",
        **extra[family],
    }
    found = fitted(X, y, how, MULTICLASS, 3, n=200)
    assert metrics.main(MULTICLASS, y[200:], found.scores) > 0.85
    assert np.mean(found.predicted == y[200:]) > 0.6


@pytest.mark.parametrize("family", ["ridge", "knn", "xgboost", "tree", "mlp"])
def test_every_family_of_values_predicts_them(family):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    y = 3 * X[:, 0] - X[:, 1] + 1990
    extra = {
        "ridge": {"alpha": [1e-3, 1.0]}, "knn": {"neighbours": 9}, "tree": {"depth": [8]},
        "xgboost": {"draws": 1, "space": [{"param": "max_depth", "values": [3]}]},
        "mlp": {"solver": {"max_iter": 2000}, "draws": 1,
                "space": [{"param": "learning_rate_init", "values": [0.01]}]},
    }  # fmt: skip
    how = {
        "family": family,
        "scaler": "standard",
        "tiny": {},
        "reads": "activations",
        **extra[family],
    }
    found = fitted(X, y, how, CONTINUOUS, 0, n=300)
    numbers = metrics.measure(CONTINUOUS, y[300:], found.scores, found.predicted)
    assert numbers["test_r2"] == pytest.approx(r2_score(y[300:], found.scores))
    assert numbers["test_spearman"] > 0.7
    assert numbers["test_rmse"] < y.std()


def test_predicting_the_mean_explains_nothing():
    y = np.arange(10.0)
    assert metrics.main(CONTINUOUS, y, np.full(10, y.mean())) == 0
    assert math.isnan(metrics.main(CONTINUOUS, np.ones(5), np.ones(5)))
    assert math.isnan(metrics.measure(CONTINUOUS, y, np.ones(10), np.ones(10))["test_spearman"])


@pytest.mark.parametrize(("kind", "truth"), [(CONTINUOUS, 0.5), (MULTICLASS, None)])
def test_intervals_hold_the_number_of_other_rows_of_the_same_kind(kind, truth):
    """A hundred test sets: the 95 % interval holds what a very large one shows, 88 times at least."""
    rng = np.random.default_rng(1)

    def rows(n):
        if kind == CONTINUOUS:
            y = rng.normal(size=n)
            return y, y * 0.75 + rng.normal(size=n) * 0.4
        y = np.arange(n) % 4
        return y, np.eye(4)[y] + rng.normal(size=(n, 4))

    large = metrics.main(kind, *rows(200_000))
    held = 0
    for _ in range(100):
        y, said = rows(200)
        low, high = intervals.main_interval(kind, y, said, np.arange(200), 0.95)
        held += low <= large <= high
    assert held >= 88


def test_labels_of_any_kind_are_exchanged_within_and_between_groups():
    rng = np.random.RandomState(0)
    y, group = np.array([0.5, 0.5, 1.5, 2.5, 3.0, 4.0]), np.array([0, 0, 1, 2, 3, 3])
    for _ in range(20):
        found = permute.exchanged(y, group, rng)
        assert found[0] == found[1] and sorted(found[4:]) == [3.0, 4.0]
        assert sorted({found[0], found[2], found[3]}) == [0.5, 1.5, 2.5]


def test_ten_classes_through_the_stage(cache):
    X, y = classes()
    cache.texts("d", y, classes=list("abcdefghij"))
    cache.activations("d", X)
    [*rows] = cache.run({"protocol": "actprobe-1", "methods": ["logreg"]})
    for row in rows:
        assert (row["kind"], row["metric"], row["label"]) == (MULTICLASS, "auc", "")
        assert row["test_score"] == row["test_auc"] > 0.9 and row["test_acc"] > 0.7
        assert row["ci_low"] < row["test_score"] <= row["ci_high"] <= 1 and row["chance"] < 0.2
        assert row["test_r2"] is None and row["test_brier"] is None


def test_of_equal_aucs_of_many_classes_the_most_often_right_wins():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(600) % 40)
    X = (rng.normal(size=(40, 64)) * 2)[y] + 0.4 * rng.normal(size=(600, 64))
    how = RIDGE | {"alpha": [1e3, 1e2, 10.0, 1.0, 0.1]}
    found = {}
    for ties in (None, "accuracy"):
        rule = RULE | {"digits": 12} | ({"ties": ties} if ties else {})
        task = Task(
            X[:400], y[:400], X[400:], how, folds(y[:400], rule, 0), rule, 0, MULTICLASS, 40
        )
        fit = search(task)
        found[ties] = fit.val_score, np.mean(fit.predicted == y[400:])
    assert found[None][0] == found["accuracy"][0] == 1.0
    assert found[None][1] < 0.5 < 0.9 < found["accuracy"][1]


def test_values_through_the_stage(cache):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    cache.texts("d", X @ [1, 2, 0, 0, 0, 0] + 0.5 * rng.normal(size=300))
    cache.activations("d", X)
    for row in cache.run({"protocol": "actprobe-1", "methods": ["ridge"]}):
        assert (row["kind"], row["metric"]) == (CONTINUOUS, "r2")
        assert row["test_score"] == row["test_r2"] > 0.8 and row["test_auc"] is None
        assert row["ci_low"] < row["test_score"] < row["ci_high"]


def test_latents_are_ranked_by_fishers_f_for_any_number_of_classes(cache):
    from sklearn.feature_selection import f_classif

    from actprobe import sae

    latents, _ = sparse_data(300, 40)
    y = np.arange(300) % 3
    dense = latents.columns(np.arange(40))
    dense[:, 7] += 3 * (y == 1)
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=300))])
    latents = sae.Latents(
        dense[rows, columns].astype(np.float32), columns.astype(np.int32), indptr, (300, 40)
    )
    expected = np.argsort(-np.nan_to_num(f_classif(dense, y)[0]), kind="stable")[:10]
    assert sae.rank(latents, None, y, "fisher", 10).tolist() == expected.tolist()
    cache.texts("d", y, classes=list("abc"))
    cache.latents("d", latents)
    rows = cache.run({"protocol": "actprobe-1", "methods": ["ksparse_fisher"]})
    assert all(r["kind"] == MULTICLASS for r in rows)
    assert np.mean([r["test_score"] for r in rows if r["k"] == 1]) > 0.6


def test_one_class_against_the_rest_is_the_binary_task_of_that_class(cache):
    X, y = classes(n=400, k=4)
    cache.texts("d", y, classes=list("abcd"))
    cache.activations("d", X)
    entry = {"protocol": "actprobe-1", "methods": ["logreg"]}
    rows = cache.run(entry | {"one_vs_rest": True})
    assert [r["label"] for r in rows] == [c for c in "abcd" for _ in range(5)]
    alone = Cache(cache.folder / "alone")
    alone.texts("d", (y == 2).astype(int), text=[f"d {i}" for i in range(400)])
    alone.activations("d", X)
    for found, same in zip(rows[10:15], alone.run(entry), strict=True):
        differing = {k for k in same if found[k] != same[k]}
        assert differing == {"key", "label", "classes", "kept_model"} and same["test_score"] > 0.9


REFUSED = {
    "a setting": (
        {"protocol": "actprobe-1", "settings": ["imbalance"]}, "d has 4 classes.*one_vs_rest: true",
    ),
    "a protocol": ({"protocol": "saeprobes-0.4.2"}, "d has 4 classes.*`positive` in `datasets`"),
    "a method": (
        {"protocol": "actprobe-1", "methods": ["mean_difference"]},
        "d has 4 classes, which mean_difference does not fit; these do: .*logreg",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_labels_is_refused_in_the_plan(cache, case):
    entry, message = REFUSED[case]
    X, y = classes(n=400, k=4)
    t = cache.texts("d", y, classes=list("abcd"))
    cache.known["texts"] = [with_facts(t)]
    cache.activations("d", X)
    with pytest.raises(ConfigError, match=message):
        cache.plan(cache.config(entry))


def test_methods_that_nobody_named_are_left_out_where_they_do_not_fit(cache):
    X, y = classes(n=400, k=4)
    t = cache.texts("d", y, classes=list("abcd"))
    cache.known["texts"] = [with_facts(t)]
    cache.activations("d", X)
    planned = cache.plan(cache.config({"protocol": "actprobe-1"}))
    found = {planned.targets[p].spec["method"] for p in planned.wanted}
    assert "logreg" in found and not any("mean_difference" in m for m in found)


def test_two_classes_have_no_one_against_the_rest(cache):
    t = cache.texts("d", np.arange(300) % 2)
    cache.known["texts"] = [with_facts(t)]
    cache.activations("d", np.zeros((300, 2), np.float32))
    with pytest.raises(ConfigError, match="one_vs_rest is for labels of several classes"):
        cache.plan(cache.config({"protocol": "actprobe-1", "one_vs_rest": True}))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_method_and_a_metric_of_ones_own_need_no_other_line(cache, tmp_path, workers):
    code, protocol = own_extension.write(tmp_path, f"_t{workers}")
    extensions.load([str(code)])
    X, y = classes(n=300, k=2)
    for name in ("d", "e"):
        cache.texts(name, y)
        cache.activations(name, X)
    rows = cache.run({"protocol": str(protocol), "methods": ["own"]}, workers=workers)
    assert len(rows) >= 2
    for row in rows:
        assert row["test_score"] > 0.9 and 0 <= row[f"test_misses_t{workers}"] < 0.5
        assert "shrink_threshold" in row["params"]


def test_a_changed_file_makes_what_used_it_stale(cache, tmp_path):
    code, _ = own_extension.write(tmp_path, "_k")
    cache.texts("d", np.arange(200) % 2)
    cache.activations("d", classes(n=200, k=2)[0])
    entry = {"protocol": "actprobe-1", "methods": ["logreg"]}
    [before] = cache.plan(cache.config(entry)).wanted
    extensions.load([str(code)])
    [after] = cache.plan(cache.config(entry)).wanted
    assert before != after, "a metric of one's own is measured on every fit"
    code.write_text(code.read_text() + "\n# changed\n")
    with pytest.raises(ConfigError, match="changed while this process ran"):
        extensions.load([str(code)])


BROKEN = {
    "missing": (None, "cannot be read: No such file"),
    "fails": ("1 / 0", "failed: ZeroDivisionError: division by zero"),
    "registers nothing": ("x = 1", "registers neither a method nor a metric"),
    "a name that is taken": (
        "from actprobe.probes.methods import method\nmethod('logreg')(lambda *a: 0)",
        "'logreg' is taken",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_cannot_be_used_are_named(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "own.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"extensions: .*own.py.*{message}"):
        extensions.load([str(path)])


def test_fits_of_another_file_than_was_planned_are_refused(cache, tmp_path):
    code, protocol = own_extension.write(tmp_path, "_p")
    extensions.load([str(code)])
    cache.texts("d", np.arange(200) % 2)
    cache.activations("d", classes(n=200, k=2)[0])
    config = cache.config({"protocol": str(protocol), "methods": ["own"]})
    planned = cache.plan(config)
    [loaded] = extensions._LOADED
    extensions._LOADED[loaded] = extensions.Extension(
        "0" * 64, frozenset(["nearest_mean_p"]), frozenset()
    )
    with pytest.raises(ActprobeError, match="extensions"):
        probes.run(planned.batches[0], config, 1)
    assert BINARY in methods.family("nearest_mean_p").kinds
