"""The contrastive stage from config to artefacts."""

from __future__ import annotations

import json
from pathlib import Path

import contrastive_inputs as inputs
import numpy as np
import pytest

from actprobe import contrastive, keys, store
from actprobe.contrastive import data
from actprobe.contrastive.targets import BASELINES_VERSION
from actprobe.errors import ActprobeError, BadInput, ConfigError, Damaged

GOLDEN = Path(__file__).parents[1] / "golden" / "contrastive.json"
ENTRY = {"train": "pairs", "validate": ["rows"], "positive": "testing"}


def project(folder, sites=("resid_post.1",), score_at=None, **entry):
    """Config, texts and activations of pairs, rows, other pairs and the rows once more."""
    datasets = [
        inputs.dataset(folder, "pairs", inputs.PAIRS),
        inputs.dataset(folder, "rows", inputs.ROWS),
        inputs.dataset(folder, "other", inputs.PAIRS[::-1]),
        inputs.dataset(folder, "same", inputs.ROWS[::-1]),
    ]
    entry = {**ENTRY, "score_at": score_at, **entry}
    config = inputs.resolve(folder, datasets, contrastive=[entry])
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
    return contrastive.load(next(t.path for t in found if t.stage == "contrastive")), found


def test_an_artefact_holds_directions_scores_and_controls(tmp_path):
    d, found = made(tmp_path, compare_with="other")
    assert d.methods == ["mean_difference", "logreg", "lda"]
    assert d.direction.shape == d.unit.shape == (3, 6) and d.direction.dtype == np.float64
    np.testing.assert_allclose(d.direction[0], d.mean_positive - d.mean_negative)
    np.testing.assert_allclose(d.unit * d.norm[:, None], d.direction)
    v = d.validated["rows"]
    assert v.values.shape == (3, 24, 4) and v.y.tolist() == [1, 0] * 12
    assert v.n_tokens.tolist() == [5] * 24
    kinds = ("random", "mean_difference", "logreg", "lda")
    assert {kind: len(aucs) for kind, aucs in v.null.items()} == dict.fromkeys(kinds, 200)
    numbers = v.numbers[0]
    assert numbers["ci_low"] < numbers["test_auc"] < numbers["ci_high"] <= 1
    assert numbers["p_permuted"] < 0.3 and d.numbers[0]["val_auc"] > 0.7
    assert 0.5 < d.numbers[0]["cos_compare"] <= 1 and numbers["auc_without_compare"] is not None
    assert d.facts["source"] == "m/resid_post.1.last" and d.facts["n_train"] == 40
    assert {t.stage for t in found} == {"contrastive", "baselines"}
    for t in found:
        store.verify(t.path)


def test_scores_are_projections_on_the_unit_direction(tmp_path):
    config, known = project(tmp_path)
    d = contrastive.load(inputs.run(config, known)[0].path)
    rows = next(t for t in known["activations"] if t.item == "rows")
    with store.open_h5(rows.path) as f:
        x = f["x"][:].astype(np.float64)
    np.testing.assert_allclose(d.validated["rows"].values[:, :, 0], d.unit @ x.T)


def test_bytes_are_the_same_on_every_run(tmp_path):
    paths = [made(tmp_path / n)[1] for n in "ab"]
    for one, other in zip(*paths, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()


def test_validation_labels_change_no_direction_and_no_score(tmp_path):
    swapped = {"testing": "deployment", "deployment": "testing"}
    config, known = project(tmp_path)
    before = contrastive.load(inputs.run(config, known)[0].path)
    rows = [{**r, "type": swapped[r["type"]]} for r in inputs.ROWS]
    inputs.dataset(tmp_path, "rows", rows)
    known["texts"] = inputs.make_texts(config)
    after = contrastive.load(inputs.run(config, known)[0].path)
    assert before.key != after.key
    np.testing.assert_array_equal(before.direction, after.direction)
    one, other = before.validated["rows"], after.validated["rows"]
    np.testing.assert_array_equal(one.values, other.values)
    assert one.numbers[0]["test_auc"] == pytest.approx(1 - other.numbers[0]["test_auc"])


def test_validation_rows_can_be_scored_over_their_tokens(tmp_path):
    config, known = project(tmp_path, score_at="tokens")
    rows = next(t for t in known["texts"] if t.item == "rows")
    lengths = [3 + i % 4 for i in range(24)]
    x = inputs.separable(np.repeat(inputs.labels(rows), lengths))
    x[np.cumsum([0, *lengths[:-1]])] = [50, 0, 0, 0, 0, 0]  # a first token that dominates
    known["activations"].append(inputs.activations(config, rows, x, lengths=lengths))
    d = contrastive.load(inputs.run(config, known)[0].path)
    v = d.validated["rows"]
    assert v.n_tokens.tolist() == lengths and (v.values[:, :, 3] > 0).all()
    assert v.numbers[0]["first_token"] == 1.0 and v.numbers[0]["length_corr"] > 0.9


def test_class_names_decide_what_is_positive(tmp_path):
    d, _ = made(tmp_path / "a")
    turned, _ = made(tmp_path / "b", positive="deployment")
    assert turned.validated["rows"].y.tolist() == [0, 1] * 12
    np.testing.assert_array_equal(d.direction, turned.direction)  # pairs say it themselves
    with pytest.raises(ActprobeError, match=r"dataset rows: no class 'tests'.*did you mean"):
        made(tmp_path / "c", positive="tests")


def test_class_names_like_those_of_pairs_make_no_pairs(tmp_path):
    rows = [{**r, "type": "negative" if i % 2 else "positive"} for i, r in enumerate(inputs.ROWS)]
    entry = inputs.dataset(tmp_path, "d", rows, positive=None)
    (t,) = inputs.make_texts(inputs.resolve(tmp_path, [entry]))
    assert data.load(t.path, None).y.tolist() == [1, 0] * 12
    assert data.load(t.path, "negative").y.tolist() == [0, 1] * 12
    with pytest.raises(BadInput, match=r"no class 'negativ'.*did you mean 'negative'"):
        data.load(t.path, "negativ")


def test_rows_without_a_pair_are_held_out_on_their_own(tmp_path):
    rows = [r | {"of": str(i // 2) if i < 4 else None} for i, r in enumerate(inputs.ROWS)]
    entry = inputs.dataset(tmp_path, "d", rows, pair="of")
    (t,) = inputs.make_texts(inputs.resolve(tmp_path, [entry]))
    assert data.load(t.path, None).group.tolist() == [0, 0, 1, 1, *range(2, 22)]


def test_a_skipped_dataset_passes_its_reason_on(tmp_path):
    config, known = project(tmp_path)
    config["on_bad_dataset"] = "skip"
    rows = next(t for t in known["activations"] if t.item == "rows")
    Path(rows.path).unlink()
    store.publish([rows.path], [store.write_bad(rows.path, dict(rows.spec), "row 3 is bad")])
    (d, _) = inputs.run(config, known)
    with pytest.raises(BadInput, match="row 3 is bad"):
        contrastive.load(d.path)


def test_activations_of_other_rows_are_refused(tmp_path):
    config, known = project(tmp_path)
    rows = next(t for t in known["activations"] if t.item == "rows")
    Path(rows.path).unlink()
    arrays = {"x": np.ones((40, 8), np.float32), "n_tokens": np.ones(40, np.int32)}
    store.publish([rows.path], [store.write_h5(rows.path, arrays, rows.spec)])
    with pytest.raises(Damaged, match=r"40 rows, expected 24 as in dataset rows"):
        inputs.run(config, known)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"train": "pair"}, r"contrastive\[0\].train: no dataset 'pair'; did you mean 'pairs'"),
        ({"compare_with": "x"}, r"compare_with: no dataset 'x'"),
        ({"validate": ["row"]}, r"validate: no dataset matches 'row'"),
        ({"validate": ["*"]}, "pairs cannot be its own validation set"),
        ({"sources": ["m/resid_post.2.*"]}, "no source of pairs matches"),
        ({"score_at": "tokens"}, r"validate: m/resid_post.1.tokens is not computed for rows"),
    ],
)
def test_what_does_not_exist_is_refused_at_the_door(tmp_path, entry, words):
    config, known = project(tmp_path, **entry)
    with pytest.raises(ConfigError, match=words):
        contrastive.targets(config, known, keys.DigestMemo(tmp_path))


def test_entries_share_what_they_both_ask_for(tmp_path):
    config, known = project(tmp_path, sites=["resid_post.1", "resid_post.2"])
    one = config["contrastive"][0]
    config["contrastive"] = [one, {**one, "sources": ["m/resid_post.1.*"]}]
    found = contrastive.targets(config, known, keys.DigestMemo(tmp_path))
    assert [t.stage for t in found].count("contrastive") == 2
    config["contrastive"][1] = {**one, "C": 2.0}
    with pytest.raises(ConfigError, match=r"contrastive\[1\].* twice with different settings"):
        contrastive.targets(config, known, keys.DigestMemo(tmp_path))


def test_a_source_that_means_two_things_is_refused_where_it_is_read(tmp_path):
    config, known = project(tmp_path, sites=["resid_post.1", "resid_post.2"])
    rows = next(t for t in known["texts"] if t.item == "rows")
    other = inputs.activations(config, rows, inputs.separable(inputs.labels(rows), seed=7))
    known["activations"].append(other)
    memo = keys.DigestMemo(tmp_path)
    with pytest.raises(
        ConfigError, match=r"contrastive\[0\].validate: m/resid_post.1.last of rows"
    ):
        contrastive.targets(config, known, memo)
    config["contrastive"][0]["sources"] = ["m/resid_post.2.*"]
    assert len(contrastive.targets(config, known, memo)) == 2


def rounded(values):
    return [float(f"{v:.3g}") + 0 for v in np.ravel(values)]


def test_golden(tmp_path):
    d, found = made(tmp_path, compare_with="other")
    v = d.validated["rows"]
    texts = store.read_table(found[1].path).to_pylist()
    directions = {
        "unit": rounded(d.unit),
        "norm": rounded(d.norm),
        "values": rounded(v.values[:, :, 0]),
        "null": [rounded(np.quantile(a, [0.1, 0.5, 0.9])) for a in v.null.values()],
        "numbers": [rounded([n["test_auc"], n["ci_low"], n["ci_high"]]) for n in v.numbers],
        "train": [rounded([n["val_auc"], n["val_d"]]) for n in d.numbers],
    }
    baselines = [[r["method"], *rounded([r["test_auc"], r["ci_low"]])] for r in texts]
    got = {
        "directions": {"version": contrastive.VERSION, "digest": keys.spec_key(directions)[:16]},
        "baselines": {
            "version": BASELINES_VERSION,
            "digest": keys.spec_key({"rows": baselines})[:16],
        },
    }
    assert got == json.loads(GOLDEN.read_text()), (
        "the contrastive stages give another output: raise VERSION (directions) or "
        "BASELINES_VERSION in contrastive/targets.py, then put what was found here into "
        "tests/golden/contrastive.json"
    )
