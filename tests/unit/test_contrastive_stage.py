"""Directions from config to artefacts."""

from __future__ import annotations

import json
from pathlib import Path

import contrastive_inputs as inputs
import numpy as np
import pytest
from configs import edited
from texts_inputs import with_facts

from actprobe import probes
from actprobe.base.errors import ActprobeError, BadInput, ConfigError, Damaged
from actprobe.base.keys import spec_key
from actprobe.cache import store
from actprobe.probes import data, protocol, validation

GOLDEN = Path(__file__).parents[1] / "golden" / "contrastive.json"


def project(folder, sites=("resid_post.1",), score_at=None, **entry):
    """Config, texts and activations of pairs, rows, other pairs and the rows once more."""
    datasets = [
        inputs.dataset(folder, "pairs", inputs.PAIRS),
        inputs.dataset(folder, "rows", inputs.ROWS),
        inputs.dataset(folder, "other", inputs.PAIRS[::-1]),
        inputs.dataset(folder, "same", inputs.ROWS[::-1]),
    ]
    entry = {**inputs.ENTRY, "score_at": score_at, **entry}
    config = inputs.resolve(folder, datasets, probes=[entry])
    texts = inputs.make_texts(config)
    known = {"texts": texts, "activations": []}
    for n, site in enumerate(sites):
        for t in texts:
            x = inputs.separable(inputs.labels(t), shift=2.0, seed=n)
            known["activations"].append(inputs.activations(config, t, x, site))
    return config, known


def made(folder, **entry):
    config, known = project(folder, **entry)
    found = inputs.run(config, known)
    return inputs.applied(found), found


METHODS = ["mean_difference", "logreg", "lda"]
BASELINES = ["baseline_length", "baseline_tfidf", "baseline_tfidf_in_domain"]


def test_an_artefact_holds_direction_scores_and_controls(tmp_path):
    found, targets = made(tmp_path, compare_with="other")
    assert list(found) == METHODS
    assert [t.spec["method"] for t in targets] == [*METHODS, *BASELINES]
    for method, d in found.items():
        assert d.direction.shape == d.unit.shape == (6,) and d.direction.dtype == np.float64
        np.testing.assert_allclose(d.unit * d.row["norm"], d.direction)
        assert d.values.shape == (24, 4) and d.y.tolist() == [1, 0] * 12
        assert d.n_tokens.tolist() == [5] * 24
        assert {kind: len(aucs) for kind, aucs in d.null.items()} == {
            "random": 200,
            "permuted": 200,
        }
        row = d.row
        assert row["ci_low"] < row["test_score"] < row["ci_high"] <= 1
        assert row["p_permuted"] < 0.3 and row["val_score"] > 0.7
        assert row["cos_compare"] <= 1 and row["auc_without_compare"] is not None
        assert (row["dataset"], row["test_set"], row["condition"]) == ("pairs", "rows", "rows")
        assert row["source"] == "m/resid_post.1.last" and row["n_train"] == 40, method
    d = found["mean_difference"]
    np.testing.assert_allclose(d.direction, d.mean_positive - d.mean_negative)
    assert d.row["cos_compare"] > 0.5
    for t in targets:
        store.verify(t.path)


def test_scores_are_projections_on_the_unit_direction(tmp_path):
    config, known = project(tmp_path)
    found = inputs.applied(inputs.run(config, known))
    rows = next(t for t in known["activations"] if t.item == "rows")
    with store.open_h5(rows.path) as f:
        x = f["x"][:].astype(np.float64)
    for d in found.values():
        np.testing.assert_allclose(d.values[:, 0], x @ d.unit)


def test_bytes_are_the_same_on_every_run(tmp_path):
    paths = [made(tmp_path / n)[1] for n in "ab"]
    for one, other in zip(*paths, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()


def test_test_labels_change_no_direction_and_no_score(tmp_path):
    swapped = {"testing": "deployment", "deployment": "testing"}
    config, known = project(tmp_path, methods=["lda"])
    before = inputs.applied(inputs.run(config, known))["lda"]
    rows = [{**r, "type": swapped[r["type"]]} for r in inputs.ROWS]
    inputs.dataset(tmp_path, "rows", rows)
    known["texts"] = inputs.make_texts(config)
    after = inputs.applied(inputs.run(config, known))["lda"]
    assert before.row["key"] != after.row["key"]
    np.testing.assert_array_equal(before.direction, after.direction)
    np.testing.assert_array_equal(before.values, after.values)
    assert before.row["test_score"] == pytest.approx(1 - after.row["test_score"])


def over_tokens(folder, x_of, **entry):
    """The project with a test set whose rows have tokens; x_of(labels, lengths) makes them."""
    config, known = project(folder, score_at="tokens", **entry)
    rows = next(t for t in known["texts"] if t.item == "rows")
    lengths = [3 + i % 4 for i in range(24)]
    x = x_of(inputs.labels(rows), lengths)
    known["activations"].append(inputs.activations(config, rows, x, lengths=lengths))
    return config, known, lengths


def test_test_rows_can_be_scored_over_their_tokens(tmp_path):
    def with_a_first_token_that_dominates(y, lengths):
        x = inputs.separable(np.repeat(y, lengths))
        x[np.cumsum([0, *lengths[:-1]])] = [50, 0, 0, 0, 0, 0]
        return x

    config, known, lengths = over_tokens(tmp_path, with_a_first_token_that_dominates)
    made = inputs.run(config, known)
    d = inputs.applied(made)["mean_difference"]
    assert d.n_tokens.tolist() == lengths and (d.values[:, 3] > 0).all()
    assert d.row["first_token"] == 1.0 and d.row["length_corr"] > 0.9
    assert "first token is extreme in 100%" in d.row["warning"]
    assert d.row["condition"] == "rows@tokens" and d.row["score_at"] == "tokens"


def test_one_dataset_can_be_scored_at_two_positions(tmp_path):
    config, known, _ = over_tokens(
        tmp_path, lambda y, lengths: inputs.separable(np.repeat(y, lengths)), methods=["lda"]
    )
    config["probes"].append({**config["probes"][0], "score_at": None})
    made = inputs.run(config, known)
    inputs.make_tables(config, made)
    assert {t.args["condition"] for t in made} == {"rows@tokens", "rows"}


def test_class_names_decide_what_is_positive(tmp_path):
    found, _ = made(tmp_path / "a", methods=["lda"])
    config, known = project(tmp_path / "b", methods=["lda"])
    config = edited(config, ["datasets", 1, "positive"], "deployment")
    known["texts"] = inputs.make_texts(config)
    turned = inputs.applied(inputs.run(config, known))
    assert turned["lda"].y.tolist() == [0, 1] * 12
    assert turned["lda"].row["positive"] == "deployment"
    np.testing.assert_array_equal(found["lda"].direction, turned["lda"].direction)


def test_class_names_like_those_of_pairs_in_another_order_are_what_the_dataset_says(tmp_path):
    """Pairs number their classes; a test set's own classes may have the same names."""
    config, known = project(tmp_path, methods=["lda"])
    rows = [{**r, "type": "positive" if i % 2 else "negative"} for i, r in enumerate(inputs.ROWS)]
    config["datasets"][1] = inputs.resolve(
        tmp_path, [inputs.dataset(tmp_path, "rows", rows, positive="negative")]
    )["datasets"][0]
    known["texts"] = inputs.make_texts(config)
    d = inputs.applied(inputs.run(config, known))["lda"]
    assert d.y.tolist() == [1, 0] * 12 and d.row["positive"] == "negative"


def test_a_test_set_of_three_classes_is_refused(tmp_path):
    config, known = project(tmp_path, methods=["lda"])
    rows = [{**r, "type": "abc"[i % 3]} for i, r in enumerate(inputs.ROWS)]
    config["datasets"][1] = inputs.resolve(
        tmp_path, [inputs.dataset(tmp_path, "rows", rows, positive=None)]
    )["datasets"][0]
    known["texts"] = inputs.make_texts(config)
    with pytest.raises(ActprobeError, match=r"classes.*positive"):
        inputs.run(config, known)


def test_rows_without_a_pair_are_held_out_on_their_own(tmp_path):
    rows = [r | {"of": str(i // 2) if i < 4 else None} for i, r in enumerate(inputs.ROWS)]
    entry = inputs.dataset(tmp_path, "d", rows, pair="of")
    (t,) = inputs.make_texts(inputs.resolve(tmp_path, [entry]))
    assert data.labels(t.path).component.tolist() == [0, 0, 1, 1, *range(2, 22)]


def test_held_out_rows_leave_with_their_group():
    y, groups = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)

    def split(groups, seed):
        return validation.folds(y, {"groups": "whole", "folds": 5}, seed, groups)

    parts = split(groups, 0)
    assert len(parts) == 5
    for a, b in parts:
        assert not set(groups[a]) & set(groups[b])
    assert sorted(np.concatenate([b for _, b in parts])) == list(range(40))
    again, other = split(groups, 0), split(groups, 1)
    assert [b.tolist() for _, b in parts] == [b.tolist() for _, b in again]
    assert [b.tolist() for _, b in parts] != [b.tolist() for _, b in other]
    assert len(split(groups // 10, 0)) == 2 and split(groups * 0, 0) == []


def test_a_skipped_dataset_passes_its_reason_on(tmp_path):
    config, known = project(tmp_path)
    config = edited(config, ["on_bad_dataset"], "skip")
    rows = next(t for t in known["activations"] if t.item == "rows")
    Path(rows.path).unlink()
    store.publish([rows.path], [store.write_bad(rows.path, rows.record, "row 3 is bad")])
    for t in inputs.run(config, known):
        if t.args["source"] != "texts":
            with pytest.raises(BadInput, match="row 3 is bad"):
                store.read_table(t.path)


def test_activations_of_other_rows_are_refused(tmp_path):
    config, known = project(tmp_path)
    rows = next(t for t in known["activations"] if t.item == "rows")
    Path(rows.path).unlink()
    arrays = {"x": np.ones((40, 8), np.float32), "n_tokens": np.ones(40, np.int32)}
    store.publish([rows.path], [store.write_h5(rows.path, arrays, rows.record)])
    with pytest.raises(Damaged, match=r"40 rows, expected 24 as in .*rows"):
        inputs.run(config, known)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"datasets": ["pair"]}, r"probes\[0\].datasets: no dataset matches 'pair'; did you mean"),
        ({"compare_with": "x"}, r"compare_with: no dataset 'x'"),
        ({"apply_to": ["row"]}, r"apply_to: no dataset matches 'row'"),
        ({"apply_to": []}, r"contrastive-1 fits all rows .* name these with `apply_to"),
        ({"apply_to": ["*"]}, "pairs cannot be its own test set"),
        ({"compare_with": "rows"}, "rows cannot be its own test set"),
        ({"sources": ["m/resid_post.2.*"]}, "no source of pairs matches"),
        ({"score_at": "tokens"}, r"apply_to: m/resid_post.1.tokens is not computed for rows"),
        ({"methods": ["ldaa"]}, "no method 'ldaa'; did you mean 'lda'"),
        ({"one_vs_rest": True}, "contrastive-1 has no one_vs_rest"),
        ({"groups": "ignore"}, "contrastive-1 keeps groups together"),
        (
            {"protocol": "actprobe-1", "score_at": "tokens"},
            "actprobe-1 tests on rows of the dataset itself; leave `score_at",
        ),
    ],
)
def test_what_does_not_exist_is_refused_at_the_door(tmp_path, entry, words):
    config, known = project(tmp_path, **entry)
    with pytest.raises(ConfigError, match=words):
        inputs.targets(config, known)


def test_entries_share_what_they_both_ask_for(tmp_path):
    config, known = project(tmp_path, sites=["resid_post.1", "resid_post.2"])
    one = config["probes"][0]
    config = edited(config, ["probes"], [one, {**one, "sources": ["m/resid_post.1.*"]}])
    assert len(inputs.targets(config, known)) == 2 * len(METHODS) + len(BASELINES)
    config["probes"][1] = {**one, "compare_with": "other"}
    with pytest.raises(ConfigError, match=r"probes\[1\].* twice with different settings"):
        inputs.targets(config, known)


def test_another_test_set_leaves_the_fits_of_the_first_alone(tmp_path):
    config, known = project(tmp_path)
    before = {t.path for t in inputs.targets(config, known)}
    config = edited(config, ["probes", 0, "apply_to"], ["rows", "same"])
    after = {t.path for t in inputs.targets(config, known)}
    assert before < after and len(after) == 2 * len(before)


def test_a_source_that_means_two_things_is_refused_where_it_is_read(tmp_path):
    config, known = project(tmp_path, sites=["resid_post.1", "resid_post.2"])
    rows = next(t for t in known["texts"] if t.item == "rows")
    other = inputs.activations(config, rows, inputs.separable(inputs.labels(rows), seed=7))
    known["activations"].append(other)
    with pytest.raises(ConfigError, match=r"probes\[0\].apply_to: m/resid_post.1.last of rows"):
        inputs.targets(config, known)
    config = edited(config, ["probes", 0, "sources"], ["m/resid_post.2.*"])
    assert len(inputs.targets(config, known)) == len(METHODS) + len(BASELINES)


def test_a_train_set_of_three_classes_is_refused_in_the_plan(tmp_path):
    config, known = project(tmp_path, datasets=["same"])
    rows = [{**r, "type": "abc"[i % 3]} for i, r in enumerate(inputs.ROWS)]
    config["datasets"][3] = inputs.resolve(
        tmp_path, [inputs.dataset(tmp_path, "same", rows, positive=None)]
    )["datasets"][0]
    known["texts"] = [with_facts(t) for t in inputs.make_texts(config)]
    with pytest.raises(ConfigError, match=r"same has 3 classes.*directions are of two classes"):
        inputs.targets(config, known)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [0, 1]}, "one seed, found 2"),
        ({"settings": {"ood": {"test_set": "{dataset}_OOD", "n_train": 9}}}, "a setting has no keys"),
        ({"methods": {"knn": {"family": "knn", "reads": "activations", "scaler": "none",
                              "neighbours": 5, "tiny": {}}}}, "this one is of family knn"),
        ({"baselines": ["lenght"]}, "baselines: no method 'lenght'"),
        ({"controls": {"random": 20}}, "20: expected at least 200"),
        ({"methods": {"lda": {"scaler": "standard"}}}, "methods.lda"),
    ],
)  # fmt: skip
def test_a_protocol_of_ones_own_says_only_what_has_a_meaning(tmp_path, change, words):
    own = {"extends": "contrastive-1", "name": "own", **change}
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    with pytest.raises(ConfigError, match=words):
        protocol.load(str(tmp_path / "own.yaml"))


def test_texts_are_baselines_of_every_protocol(tmp_path):
    config, known = project(tmp_path)
    config = edited(config, ["probes"], inputs.resolve(
        tmp_path,
        [],
        probes=[
            {"protocol": "actprobe-1", "datasets": ["pairs"], "sources": ["texts"],
             "methods": ["baseline_length", "baseline_tfidf"]}
        ],
    )["probes"])  # fmt: skip
    found = inputs.run(config, known)
    rows = [r for t in found for r in store.read_table(t.path).to_pylist()]
    assert len(rows) == 10 and {r["source"] for r in rows} == {"texts"}
    assert all(0 <= r["test_score"] <= 1 for r in rows)
    inputs.make_tables(config, found)


def rounded(values):
    return [float(f"{v:.3g}") + 0 for v in np.ravel(values)]


def test_golden(tmp_path):
    found, targets = made(tmp_path, compare_with="other")
    ds = list(found.values())
    directions = {
        "unit": rounded([d.unit for d in ds]),
        "norm": rounded([d.row["norm"] for d in ds]),
        "values": rounded([d.values[:, 0] for d in ds]),
        "null": [
            rounded(np.quantile(a, [0.1, 0.5, 0.9]))
            for a in (*(found[m].null["permuted"] for m in sorted(found)), ds[0].null["random"])
        ],
        "numbers": [rounded([d.row[c] for c in ("test_score", "ci_low", "ci_high")]) for d in ds],
        "train": [rounded([d.row[c] for c in ("val_score", "val_d")]) for d in ds],
    }
    texts = [t for t in targets if t.args["source"] == "texts"]
    rows = [r for t in texts for r in store.read_table(t.path).to_pylist()]
    baselines = [[r["method"], *rounded([r["test_score"], r["ci_low"]])] for r in rows]
    got = {
        "directions": {"version": probes.VERSION, "digest": spec_key(directions)[:16]},
        "baselines": {"version": probes.VERSION, "digest": spec_key({"rows": baselines})[:16]},
    }
    assert got == json.loads(GOLDEN.read_text()), (
        "directions or baselines give another output: raise VERSION in probes/targets.py, then put what "
        "was found here into tests/golden/contrastive.json"
    )
