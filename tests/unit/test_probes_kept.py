"""Kept fits: rows, scores and a model that gives the same scores, of every method and label kind."""

from __future__ import annotations

import json

import lora_tools as tools
import numpy as np
import pytest
from probes_inputs import Cache, as_latents, data, sparse_data
from test_contrastive_stage import project
from test_probes_tokens import add_token_latents, add_tokens, ragged, token_codes

from actprobe import sae
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.lora import synthetic
from actprobe.probes import data as reading
from actprobe.probes import door, extensions, keep, methods, protocol, thresholds
from actprobe.probes.keep import fold, form
from actprobe.probes.sources import features

EXACT = 1e-6
N = 90


def own(folder, name="own", base="actprobe-1", **changes):
    """A protocol of one seed."""
    path = folder / f"{name}.yaml"
    changes = {"seeds": [0], **changes}
    path.write_text(json.dumps({"name": name, "description": "mine", "extends": base, **changes}))
    return str(path)


def add(cache, kind, n=N, d=7, name="a"):
    """A dataset of a label kind with activations and latents that tell the label."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)).astype(np.float32)
    if kind == "continuous":
        cache.texts(name, x[:, 0] * 2.0 + 0.1 * rng.standard_normal(n))
    else:
        k = 3 if kind == "multiclass" else 2
        y = np.arange(n) % k
        x[np.arange(n), y] += 1.5
        cache.texts(name, y, classes=[f"c{i}" for i in range(k)])
    cache.activations(name, 30 + 3 * x)
    cache.latents(name, as_latents(np.maximum(np.tile(x, 4), 0)))


def fits(cache, config, run=None):
    """(target, row) of every fit that a config asks for."""
    planned = cache.plan(config)
    for batch in planned.batches:
        from actprobe import probes

        probes.run(batch, config, 1)
    return [
        (planned.targets[p], row) for p in planned.wanted for row in store.read_table(p).to_pylist()
    ]


def matrix(t):
    """What the fits of a target read."""
    recipe = protocol.recipe(protocol.load(t.args["protocol"]), t.spec["setting"], t.spec["method"])
    return reading.matrix(t.args["matrix"], recipe["method"], recipe["setting"])


def recomputed(row, own, other):
    """Scores of the train, validation and test rows by the kept model alone, and those stored."""
    scorer = keep.read(row["kept_model"])
    train = np.array(row["kept_train"], int)
    if scorer.needs_train_rows:
        with pytest.raises(BadInput, match="compares with its train rows"):
            scorer.scores(own[train])
        scorer = keep.with_train_rows(scorer, own[train])
    here = scorer.scores(own)[np.concatenate([train, np.array(row["kept_validation"], int)])]
    found = np.concatenate([here, scorer.scores(other)[row["kept_test"]]])
    return found, np.array(row["kept_scores"]).reshape(found.shape)


def check(row, own, other=None):
    assert row["reason"] == "" and row["kept_why"] == ""
    found, stored = recomputed(row, own, own if other is None else other)
    assert np.abs(found - stored).max() <= EXACT
    assert len(row["kept_label"]) == len(found) == row["n_train"] + row["n_test"]
    return found


DENSE = [
    m for m, how in protocol.load("actprobe-1")["methods"].items() if how["reads"] == "activations"
]
SPARSE = [
    m for m, how in protocol.load("actprobe-1")["methods"].items() if how["reads"] == "latents"
]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "continuous"])
def test_every_method_is_scored_again_by_what_is_kept(tmp_path, kind):
    cache = Cache(tmp_path / "cache")
    add(cache, kind)
    quick = {
        "xgboost": {"draws": 1},
        "mlp": {"solver": {"max_iter": 100}},
        "knn": {"neighbours": 9},
    }
    quick |= {m: {"ks": [1, 5]} for m in SPARSE}
    mine = own(tmp_path, methods=quick, settings={"normal": {}})
    chosen = [
        m for m in (*DENSE, *SPARSE)
        if methods.fits_kind(protocol.load(mine)["methods"][m], kind)
    ]  # fmt: skip
    found = fits(cache, cache.config({"protocol": mine, "methods": chosen}))
    assert {t.spec["method"] for t, _ in found} == {*chosen}
    for t, row in found:
        said = check(row, matrix(t))
        assert said.ndim == (2 if kind == "multiclass" else 1)
        scorer = keep.read(row["kept_model"])
        assert (scorer.kind, scorer.about["family"]) == (
            kind,
            protocol.load(mine)["methods"][t.spec["method"]]["family"],
        )


def test_more_columns_than_rows_and_the_quirks_of_sae_probes(tmp_path):
    """Rotated coordinates, a permuted refit, two train rows whose test rows are not scaled."""
    cache = Cache(tmp_path / "cache")
    x, y = data(260, 300)
    cache.texts("a", y)
    cache.activations("a", x)
    cache.latents("a", sparse_data(260, 60)[0])
    everything = {"keep": ["*"], "sources": ["m/*"]}
    base = "saeprobes-0.4.2-fast"
    mine = own(
        tmp_path,
        base=base,
        seeds=[42],
        settings={"scarcity": {"values": [2, 60]}},
        methods={
            "xgboost": {"draws": 1},
            "logreg": {"C": [1.0]},
            "ksparse_b_binarised": {"ks": [4]},
        },
    )
    names = ["logreg", "pca", "knn", "xgboost"]
    entries = [
        {"protocol": mine, "settings": ["normal", "scarcity"], "methods": names, **everything}
    ]
    entries += [{"protocol": mine, "methods": ["ksparse_b_binarised"], "sources": ["sae"]}]
    found = fits(cache, cache.config(*entries))
    assert len(found) == 4 * 3 + 1
    for t, row in found:
        check(row, matrix(t))


def test_a_linear_probe_is_a_vector_in_the_units_of_the_source(tmp_path):
    cache = Cache(tmp_path / "cache")
    add(cache, "binary")
    [(t, row)] = fits(cache, cache.config({"protocol": own(tmp_path), "methods": ["logreg"],
                                           "sources": ["m/*"]}))  # fmt: skip
    scorer, x = keep.read(row["kept_model"]), matrix(t)
    coef, intercept = scorer.model.arrays["coef"], scorer.model.arrays["intercept"]
    assert coef.shape == (7,) and intercept.shape == ()
    np.testing.assert_allclose(scorer.decisions(x), x @ coef + intercept, rtol=1e-12)
    np.testing.assert_allclose(scorer.scores(x), 1 / (1 + np.exp(-scorer.decisions(x))), rtol=1e-12)
    held_out = np.array(row["kept_held_out"])
    assert np.isfinite(held_out).all() and len(held_out) == row["n_train"]
    assert np.abs(held_out - row["kept_scores"][: row["n_train"]]).max() > 1e-3
    with pytest.raises(BadInput, match="rows of 6 columns; this probe reads 7 columns"):
        scorer.scores(x[:, :6])
    x[3, 2] = np.nan
    with pytest.raises(BadInput, match="row 3 is not finite"):
        scorer.scores(x)


def test_tokens(tmp_path):
    cache = Cache(tmp_path / "cache")
    tokens, y = ragged(300)
    cache.texts("a", y)
    add_tokens(cache, "a", tokens)
    codes, offsets, _ = token_codes(300)
    add_token_latents(cache, "a", codes, offsets)
    mine = own(tmp_path, base="saeprobes-paper", seeds=[42], settings={"multi_token": {"max_tokens": 4}},
               methods={"attention": {"steps": 40, "learning_rate": 0.02}, "concat_pca": {"C": [1.0]},
                        "sae_max": {"ks": [8]}, "sae_mean_binarised": {"ks": [8]}})  # fmt: skip
    names = ["attention", "concat_pca", "sae_max", "sae_mean_binarised"]
    found = fits(
        cache, cache.config({"protocol": mine, "settings": ["multi_token"], "methods": names})
    )
    assert [t.spec["method"] for t, _ in found] == names
    for t, row in found:
        check(row, matrix(t))


def test_texts_and_directions(tmp_path):
    import contrastive_inputs as inputs

    config, known = project(tmp_path)
    for t in inputs.run(config, known):
        [row] = store.read_table(t.path).to_pylist()
        if t.spec["method"] == "baseline_tfidf_in_domain":
            assert row["kept_model"] is None and "fold by fold" in row["kept_why"]
            assert np.isnan(row["kept_scores"][: row["n_train"]]).all()
            continue
        recipe = protocol.recipe(protocol.load("contrastive-1"), "normal", t.spec["method"])
        sides = [reading.matrix(t.args[k], recipe["method"], {}) for k in ("matrix", "test_matrix")]
        check(row, *sides)


@pytest.mark.parametrize("base", ["lora-1", "weightspace"])
def test_features_of_lora_weights(tmp_path, base):
    synthetic.write(tmp_path / "loras", per_class=12, broken=False)
    names = list(protocol.load(base)["methods"])
    mine = own(tmp_path, base=base, seeds=[0], methods={
        m: {"hidden": [16], "max_epochs": 20} for m in names
        if protocol.load(base)["methods"][m]["family"] == "stopped_mlp"
    })  # fmt: skip
    loras = {"c": {"files": str(tmp_path / "loras/files"), "labels": str(tmp_path / "loras/labels.csv"),
                   "representations": ["stats"]}}  # fmt: skip
    entry = {"protocol": mine, "sources": ["c/stats"], "methods": names}
    made = tools.run(tools.resolved(tmp_path, loras, [entry]))
    seen = set()
    for t in made.targets.values():
        if t.stage == "probes":
            x = features.load(t.args)
            for row in store.read_table(t.path).to_pylist():
                if row["reason"] == "":
                    seen.add(t.spec["method"])
                    check(row, x)
    assert seen == {*names}


def test_a_family_of_ones_own_keeps_its_model_or_says_that_it_does_not(tmp_path):
    cache = Cache(tmp_path / "cache")
    add(cache, "binary")
    code = (
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.neighbors import NearestCentroid\n"
        "from actprobe.probes.keep import fold\n"
        "from actprobe.probes.methods import method\n"
        "@method('kept_mine', keep=fold.linear)\n"
        "def kept_mine(how, params, seed):\n    return LogisticRegression()\n"
        "@method('dropped_mine')\n"
        "def dropped_mine(how, params, seed):\n    return LogisticRegression()\n"
        "@method('wrong_mine', keep=lambda fitted, task: fold.planes([[0.0] * 7], [0.0], 'logistic'))\n"
        "def wrong_mine(how, params, seed):\n    return LogisticRegression()\n"
    )
    file = tmp_path / "families.py"
    file.write_text(code)
    extensions.load([str(file)])
    names = ("kept_mine", "dropped_mine", "wrong_mine")
    mine = own(tmp_path, "mine", methods={
        m: {"family": m, "reads": "activations", "scaler": "standard", "tiny": {}} for m in names
    })  # fmt: skip
    entry = {"protocol": mine, "methods": list(names), "sources": ["m/*"]}
    rows = {t.spec["method"]: (t, row) for t, row in fits(cache, cache.config(entry))}
    t, row = rows["kept_mine"]
    check(row, matrix(t))
    for name, words in (("dropped_mine", "does not say what"), ("wrong_mine", "away")):
        row = rows[name][1]
        assert row["kept_model"] is None and words in row["kept_why"]
        assert np.isfinite(row["kept_scores"]).all(), "the scores of its rows are kept"


def test_which_settings_keep(tmp_path):
    cache = Cache(tmp_path / "cache")
    x, y = data(250, 6)
    cache.texts("a", y)
    cache.activations("a", x)

    def kept(**keys):
        entry = {"protocol": "saeprobes-0.4.2-fast", "settings": ["normal", "scarcity"],
                 "methods": ["logreg"], **keys}  # fmt: skip
        planned = cache.plan(cache.config(entry))
        return {t.spec["setting"] for t in planned.targets.values()
                if t.stage == "probes" and t.spec["keep"]}  # fmt: skip

    assert kept() == {"normal"}
    assert kept(keep=[]) == set()
    assert kept(keep=["*"]) == {"normal", "scarcity"}
    assert kept(keep=["sc*"]) == {"scarcity"}
    both = cache.config({"protocol": "saeprobes-0.4.2-fast", "methods": ["logreg"], "keep": []},
                        {"protocol": "saeprobes-0.4.2-fast", "methods": ["logreg"]})  # fmt: skip
    made = [t for t in cache.plan(both).targets.values() if t.stage == "probes"]
    assert [t.spec["keep"] for t in made] == [True], "the same fit once, and kept"


def test_a_changed_threshold_rule_fits_nothing_again(tmp_path):
    cache = Cache(tmp_path / "cache")
    add(cache, "binary")
    entry = {"protocol": own(tmp_path), "methods": ["logreg"], "sources": ["m/*"]}
    [(_, row)] = fits(cache, cache.config(entry))
    other = cache.config({**entry, "threshold": {"rule": "fpr", "fpr": 0.1}})
    planned = cache.plan(other)
    assert not planned.batches
    rules = [{"rule": "boundary"}, {"rule": "youden"}, {"rule": "fpr", "fpr": 0.1}]
    found = [thresholds.of_fit(rule, row) for rule in rules]
    assert [t.rule for t in found] == ["boundary", "youden", "fpr"]
    assert found[0].value == 0.5 and found[2].fpr <= 0.1 and found[2].rows == thresholds.HELD_OUT


def test_thresholds_by_hand():
    """The negatives and positives of a worked example with ties."""
    negative = [0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    positive = [0.35, 0.4, 0.55, 0.8, 0.8, 0.85, 0.9, 0.95]
    y = np.array([0] * 10 + [1] * 8)
    scores = np.array(negative + positive)

    def caught(fpr):
        t = thresholds.choose({"rule": "fpr", "fpr": fpr}, y, scores)
        return int(np.sum(scores[y == 1] > t.value)), t.fpr

    assert [caught(a) for a in (0, 0.1, 0.15, 0.2)] == [(1, 0), (3, 0.1), (3, 0.1), (5, 0.2)]
    youden = thresholds.choose({"rule": "youden"}, y, scores)
    assert youden.value == pytest.approx(0.75) and youden.flagged == 2
    alone = thresholds.choose({"rule": "youden"}, y[:10], scores[:10])
    assert (alone.rule, alone.value) == ("boundary", 0.5)


def test_equal_fits_are_equal_bytes_and_foreign_bytes_are_refused():
    model = form.Kept("linear", {"coef": np.ones(3), "intercept": np.zeros(())}, link="logistic")
    about = {"kind": "binary", "classes": ["no", "yes"], "width": 3}
    content = form.write(model, about)
    assert content == form.write(model, dict(reversed(about.items())))
    assert keep.read(content).classes == ("no", "yes")
    for bad in (b"", content[:-1], content.replace(b"linear", b"linean"), b"\x80\x04pickle" * 9):
        with pytest.raises(BadInput):
            keep.read(bad)


def test_what_is_kept_is_no_column_of_the_results(tmp_path):
    cache = Cache(tmp_path / "cache")
    add(cache, "binary")
    config = cache.config({"protocol": own(tmp_path), "methods": ["logreg"], "sources": ["m/*"]})
    [(t, _)] = fits(cache, config)
    table = store.read_table(t.path)
    assert {c for c in table.column_names if c.startswith("kept_")} == {
        f"kept_{name}" for name in door.FIT
    }
    assert not any(c.startswith("kept_") for c in door.told(t.path).column_names)


def test_latents_are_read_from_sparse_and_dense_codes():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.standard_normal((20, 9)), 0).astype(np.float32)
    model = fold.planes(np.array([[1.0, -2.0]]), np.array([0.5]), "logistic")
    from dataclasses import replace

    from actprobe.probes.keep.steps import Chosen

    model = replace(model, before=(Chosen(np.array([7, 2])),))
    scorer = keep.read(form.write(model, {"kind": "binary", "classes": ["a", "b"], "width": 9}))
    sparse = as_latents(dense)
    assert isinstance(sparse, sae.Latents)
    np.testing.assert_array_equal(scorer.scores(sparse), scorer.scores(dense))
    np.testing.assert_allclose(
        scorer.decisions(dense), dense[:, 7] - 2 * dense[:, 2] + 0.5, rtol=1e-6
    )


def test_methods_of_activations_read_features_too(tmp_path):
    """A protocol of features may name any family with a common search; its models are kept."""
    synthetic.write(tmp_path / "loras", per_class=12, broken=False)
    features_of = {"reads": "features", "scaler": "units", "constant": 0.001}
    solver = {"solver": {"max_iter": 200}}
    mine = own(tmp_path, base="lora-1", seeds=[0], methods={
        "knn": {"family": "knn", "neighbours": 5, **features_of},
        "lda": {"family": "lda", "shrinkage": [0.9], "solver": {"solver": "lsqr"}, **features_of},
        "pca": {"family": "pca", "components": 4, **solver, **features_of},
        "perceptron": {"family": "mlp", "draws": 1, **solver, **features_of,
                       "space": [{"param": "alpha", "values": [0.01]}]},
        "xgboost": {"family": "xgboost", "draws": 1, **features_of,
                    "space": [{"param": "max_depth", "values": [2]}]},
    })  # fmt: skip
    loras = {"c": {"files": str(tmp_path / "loras/files"), "labels": str(tmp_path / "loras/labels.csv"),
                   "representations": ["stats"]}}  # fmt: skip
    names = ["knn", "lda", "pca", "perceptron", "xgboost"]
    entry = {"protocol": mine, "sources": ["c/stats"], "methods": names}
    made = tools.run(tools.resolved(tmp_path, loras, [entry]))
    seen = set()
    for t in made.targets.values():
        if t.stage == "probes" and t.spec.method in names:
            [row] = store.read_table(t.path).to_pylist()
            assert (row["reason"], row["kept_why"]) == ("", ""), row["method"]
            scorer, x = keep.read(row["kept_model"]), features.load(t.args)
            if scorer.needs_train_rows:
                scorer = keep.with_train_rows(scorer, x.at(row["kept_train"]))
            at = np.array([*row["kept_train"], *row["kept_validation"], *row["kept_test"]], int)
            found = scorer.scores(x)[at]
            assert np.abs(found.ravel() - row["kept_scores"]).max() <= EXACT, row["method"]
            seen.add(t.spec.method)
    assert seen == {*names}
