"""Classifiers: splits, scaling, the mended early stopping, metrics, controls."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lora_tools as tools
import numpy as np
import pytest
import torch

from actprobe import lora
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store
from actprobe.lora import synthetic
from actprobe.probes import intervals, metrics, protocol, shares
from actprobe.probes.feature_targets import EACH
from actprobe.probes.methods import stopped_mlp
from actprobe.probes.scaling import standardise
from actprobe.probes.search import Fitted, search
from actprobe.probes.sizes import CannotFit
from actprobe.probes.sources import labelled

RULE = {"kind": "stratified", "test": 0.25, "validation": 0.25, "seed": "per_run"}
METHODS = protocol.load("lora-1")["methods"]
MLP = {**METHODS["mlp"], "hidden": [16, 16], "max_epochs": 40}


def _blobs(n: int = 120, classes: int = 3, d: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = 1.5 * rng.standard_normal((classes, d))
    return (centres[y] + rng.standard_normal((n, d))).astype(np.float32), y


def _sides(*args) -> tuple:
    split = shares.draw(*args)
    return split.train, split.validation, split.test


def test_splits_are_disjoint_complete_and_stratified() -> None:
    y = np.arange(120) % 3
    sides = _sides(y, None, None, RULE, 0)
    assert sorted(np.concatenate(sides)) == list(range(120))
    assert [len(s) for s in sides] == [60, 30, 30]
    for s in sides:
        assert np.bincount(y[s]).tolist() == [len(s) // 3] * 3
    assert not np.array_equal(sides[2], _sides(y, None, None, RULE, 1)[2])
    fixed = {**RULE, "seed": 7}
    np.testing.assert_array_equal(
        _sides(y, None, None, fixed, 0)[2], _sides(y, None, None, fixed, 1)[2]
    )


def test_groups_stay_on_one_side_and_a_given_split_decides() -> None:
    y = np.arange(120) % 3
    group = np.array([f"g{i // 6}" for i in range(120)])
    train, validation, test = (set(group[s]) for s in _sides(y, group, None, RULE, 3))
    assert not (train & test or train & validation or validation & test)
    given = np.array(["train"] * 80 + ["val"] * 20 + ["test"] * 20)
    assert [len(s) for s in _sides(y, None, given, RULE, 0)] == [80, 20, 20]
    given[80:100] = "train"
    assert [len(s) for s in _sides(y, None, given, RULE, 0)] == [75, 25, 20]
    for name in ("validation", "valid", "dev"):
        given = np.array(["train"] * 80 + [name] * 20 + ["test"] * 20)
        assert [len(s) for s in _sides(y, None, given, RULE, 0)] == [80, 20, 20]
    given[:3] = ["Test", "", "train"]
    with pytest.raises(CannotFit, match="has the values '', 'Test'; expected train"):
        _sides(y, None, given, RULE, 0)
    with pytest.raises(CannotFit, match="values train and test, it has: a"):
        _sides(y, None, np.array(["a"] * 120), RULE, 0)
    with pytest.raises(CannotFit, match="too few"):
        _sides(np.array([0] * 10 + [1]), None, None, RULE, 0)


def test_scaling_uses_training_rows_and_present_entries_only() -> None:
    z = np.array([[1, 5, 2], [3, 5, 0], [100, 6, 9], [9, 9, 0]], np.float32)
    mask = np.ones((4, 2), bool)
    mask[1, 1] = mask[3, 1] = False
    by = standardise(z, mask, np.array([0, 0, 1]), np.array([0, 1]), 1e-6)
    np.testing.assert_allclose(z[:, 0], [-1, 1, 98, 7])
    assert not by.cut.any(), "two rows have no range"
    assert not z[:, 1].any() and by.still == 2, "5, 5 is constant among the training rows"
    assert z[1, 2] == z[3, 2] == 0, "what is missing stands at the training mean"


def _accuracy_of(fitted: Fitted, y: np.ndarray) -> float:
    return float(np.mean(fitted.predicted == y))


@pytest.mark.parametrize("method", ["logreg", "ridge", "svm", "tree"])
def test_classifiers_learn(method: str) -> None:
    x, y = _blobs()
    fitted = search(tools.task(x, y, METHODS[method], 80))
    assert _accuracy_of(fitted, y[80:]) > (0.7 if method == "tree" else 0.85)
    assert fitted.val_score == _accuracy_of(fitted, y[80:]) and fitted.train_score > 0.85
    assert fitted.scores.shape == (40, 3)
    assert search(tools.task(x, y % 2, METHODS[method], 80)).scores.shape == (40,)


def test_ridge_equals_scikit_learn_in_both_forms() -> None:
    from sklearn.linear_model import RidgeClassifier

    for d in (6, 90):  # fewer and more columns than rows
        x, y = _blobs(d=d)
        fitted = search(tools.task(x, y, {**METHODS["ridge"], "alpha": [3.0]}, 60))
        model = RidgeClassifier(alpha=3.0).fit(x[:60].astype(float), y[:60])
        np.testing.assert_allclose(
            fitted.scores, model.decision_function(x[60:]), rtol=1e-3, atol=1e-4
        )


def test_equal_validation_scores_go_to_the_stronger_penalty() -> None:
    x, y = _blobs(classes=2)
    far = x + 50 * y[:, None].astype(np.float32)
    for method, param in (("logreg", "C"), ("ridge", "alpha"), ("tree", "max_depth")):
        fitted = search(tools.task(far, y, METHODS[method], 80))
        listed = METHODS[method]["depth" if method == "tree" else param]
        assert fitted.val_score == 1 and fitted.params[param] == listed[0]


def test_the_mlp_keeps_the_weights_of_its_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live `state_dict()` would end with the weights of the last epoch."""
    x, y = _blobs(seed=3)
    seen: list[float] = []
    accuracy = stopped_mlp.accuracy

    def recording(labels, said) -> float:
        # pretend that validation accuracy peaks in epoch 3 and falls from then on
        seen.append(accuracy(labels, said))
        return 1.0 if len(seen) == 3 else 0.1 / len(seen)

    snapshots: list[dict] = []
    step = torch.optim.lr_scheduler.ReduceLROnPlateau.step

    def snapshot(self, value, *a, **k):
        weights = [p.detach().clone() for g in self.optimizer.param_groups for p in g["params"]]
        snapshots.append(dict(enumerate(weights)))
        return step(self, value, *a, **k)

    monkeypatch.setattr(stopped_mlp, "accuracy", recording)
    monkeypatch.setattr(torch.optim.lr_scheduler.ReduceLROnPlateau, "step", snapshot)
    models = []
    network = stopped_mlp.network
    monkeypatch.setattr(stopped_mlp, "network", lambda *a: models.append(network(*a)) or models[-1])
    fitted = search(tools.task(x, y, MLP, 80))
    assert fitted.params == {"best_epoch": 3, "epochs": 3 + MLP["patience"]}
    kept = dict(enumerate(models[0].parameters()))
    assert all(torch.equal(kept[i], w) for i, w in snapshots[2].items())
    assert any(not torch.equal(kept[i], w) for i, w in snapshots[-1].items())


def test_the_mlp_learns_and_a_seed_fixes_it() -> None:
    x, y = _blobs()
    first, again, other = (search(tools.task(x, y, MLP, 80, seed)) for seed in (0, 0, 1))
    assert _accuracy_of(first, y[80:]) > 0.8
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)


def test_metrics_of_a_known_confusion() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    values = metrics.measure("multiclass", y, scores, scores.argmax(axis=1))
    assert values["test_acc"] == pytest.approx(4 / 6)
    assert values["test_balanced_acc"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert values["test_macro_precision"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert values["test_macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert intervals.wilson(0.5, 100) == pytest.approx((0.4038315, 0.5961685))
    for n in range(1, 200):
        assert intervals.wilson(0.0, n)[0] == 0 and intervals.wilson(1.0, n)[1] == 1, "not 1e-17"
        assert 0 < intervals.wilson(1 / (n + 1), n + 1)[0] < 1 / (n + 1)
    assert math.isnan(metrics.main("multiclass", np.zeros(3, int), scores[:3]))


def test_confusions_are_pairs_of_classes_that_occur() -> None:
    x, y = _blobs()
    (row,) = tools.probed(x, y, seeds=1).to_dict("records")
    cells = json.loads(row["confusion"])
    assert sum(n for _, _, n in cells) == row["n_test"] == 24 and len(cells) <= 9
    right = sum(n for true, said, n in cells if true == said)
    assert right / row["n_test"] == pytest.approx(row["test_acc"])


PROBES = [
    {"sources": ["toy/*"], "methods": ["ridge"], "columns": ["*", "*.attn1.*", "*.attn2.*"]},
    {"sources": ["toy/left_projector"], "methods": ["ridge"], "each_column_group": "module"},
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Probes of a small synthetic collection: rows of all fits."""
    folder = tmp_path_factory.mktemp("toy")
    synthetic.write(folder, per_class=24)
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "group": "subject", "representations": ["left_projector", "stats"]}}  # fmt: skip
    made = tools.run(tools.resolved(folder, loras, PROBES))
    rows = []
    for t in made.targets.values():
        if t.stage == "probes":
            rows += store.read_table(t.path).to_pylist()
    return folder, rows


def _accuracy(rows: list[dict], source: str, columns: str, site: str = "") -> float:
    chosen = [r for r in rows if r["source"] == f"toy/{source}" and r["columns"] == columns]
    chosen = [r for r in chosen if not site or r["site"].endswith(site)]
    assert chosen and not any(r["reason"] for r in chosen)
    return float(np.mean([r["test_acc"] for r in chosen]))


def test_the_planted_signal_is_found_where_it_is_and_nowhere_else(toy) -> None:
    rows = toy[1]
    assert _accuracy(rows, "left_projector", "*.attn1.*") > 0.6
    planted = "up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_v"
    assert _accuracy(rows, "left_projector", EACH, planted) > 0.8
    for source, columns, site in [
        ("left_projector", "*.attn2.*", ""),
        ("left_projector", EACH, "mid_block_attentions_0_transformer_blocks_0_attn1_to_v"),
        ("norm_only", "*", ""),
        ("recipe_only", "*", ""),
    ]:
        assert _accuracy(rows, source, columns, site) < 0.5, (source, columns)


def test_rows_are_complete(toy) -> None:
    rows = toy[1]
    known = {"left_projector", "stats", "norm_only", "recipe_only"}
    assert {r["source"] for r in rows} == {f"toy/{r}" for r in known}
    for r in rows:
        assert r["leak_fraction"] == r["group_fraction"] == 0 and r["n_train"] + r["n_test"] == 96
        assert sum(n for _, _, n in json.loads(r["confusion"])) == r["n_test"]
        assert r["metric"] == "acc" and r["test_score"] == r["test_acc"]
        assert r["test_score_unseen"] == r["test_acc"] and 0 < r["n_validation"] < r["n_train"]
        assert r["ci_low"] <= r["test_acc"] <= r["ci_high"] and 0.2 <= r["chance"] <= 0.3
    seeds = {(r["source"], r["columns"], r["site"], r["method"], r["seed"]) for r in rows}
    assert len(seeds) == len(rows)


def test_another_label_column_recomputes_probes_alone(toy) -> None:
    folder = toy[0]
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "group": "subject", "representations": ["left_projector", "stats"]}}  # fmt: skip
    cfg = tools.resolved(folder, loras, PROBES)
    assert tools.to_make(cfg) == {}
    style = [{**entry, "label": "style"} for entry in PROBES]
    assert tools.to_make(tools.resolved(folder, loras, style)) == {"probes": 13}
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("subject\n", "subject,more\n", 1))
    assert tools.to_make(cfg) == {}, "a column that nobody reads changes nothing"


def test_labels_that_cannot_be_probed_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        tools.write_lora(tmp_path / "loras" / f"l{i}.safetensors", i)
    loras = {"c": {"files": str(tmp_path / "loras"), "labels": str(tmp_path / "l.csv"),
                   "representations": ["stats"]}}  # fmt: skip
    cfg = tools.resolved(tmp_path, loras, [{"sources": ["c/*"], "methods": ["ridge"]}])
    (tmp_path / "l.csv").write_text("id,label\nx,cat\n")
    with pytest.raises(ConfigError, match=r"loras\.c\.labels: no row .* called 'l\d', .* rows 'x'"):
        tools.planned(cfg)
    (tmp_path / "l.csv").write_text("id,label\n" + "".join(f"l{i},cat\n" for i in range(4)))
    with pytest.raises(ActprobeError, match="all LoRAs have the label 'cat'"):
        tools.run(cfg)
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,\nl2,dog\n")
    caplog.clear()
    with pytest.raises(
        ConfigError, match=r"probes\[0\]: c: too few LoRAs of 'cat' \(1\), 'dog' \(1\)"
    ):
        tools.planned(cfg)
    (said,) = caplog.messages
    assert said.startswith("probes[0]: 2 of 4 files of c have no label and are left out, e.g. l")
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,cat\nl2,dog\nl3,dog\n")
    made = tools.run(cfg)
    rows = tools.rows_of(made, "c/stats")
    assert all("too few" in r["reason"] and r["test_acc"] is None for r in rows)
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,dog\nl2,dog\nl3,dog\n")
    with pytest.raises(ActprobeError, match=r"l\.csv was changed after the plan was made"):
        (t,) = [t for t in made.targets.values() if t.args.get("source") == "c/stats"]
        ids = lora.load(t.args["features"][0]).id
        labelled.read(t.args, t.spec["table"], RULE, ids)


def test_unknown_names_are_told_with_the_nearest_one(tmp_path: Path) -> None:
    tools.write_lora(tmp_path / "loras" / "a.safetensors")
    (tmp_path / "l.csv").write_text("id,label\na,cat\n")
    loras = {"c": {"files": str(tmp_path / "loras"), "labels": str(tmp_path / "l.csv")}}
    for entry, message in [
        ({"sources": ["d/stats"]}, r"probes\[0\]: no source of features matches 'd/stats'"),
        ({"methods": ["ridg"]}, r"probes\[0\].*did you mean 'ridge'"),
        ({"sources": ["c/statz"]}, r"probes\[0\].*did you mean 'c/stats'"),
        ({"settings": ["norml"]}, r"probes\[0\].*did you mean 'normal'"),
        ({"protocol": "lora-2"}, "unknown protocol 'lora-2'; did you mean"),
        ({"label": "kind"}, "no column 'kind'"),
        ({"datasets": ["a"]}, "`datasets` are texts; LoRAs are chosen by `sources`"),
        ({"groups": "ignore"}, "keeps groups together"),
    ]:
        with pytest.raises(ConfigError, match=message):
            tools.planned(tools.resolved(tmp_path, loras, [{"sources": ["c/*"], **entry}]))
    with pytest.raises(ConfigError, match="`loras` has no collection"):
        tools.planned(tools.resolved(tmp_path, {}, [{}]))
    texts = {"protocol": "actprobe-1", "min_per_class": 3}
    with pytest.raises(ConfigError, match="`min_per_class` is for features of LoRA weights"):
        tools.planned(tools.resolved(tmp_path, loras, [texts]))


def test_entries_of_one_name_have_one_meaning(tmp_path: Path) -> None:
    rows = ["id,label,kind,who"]
    for i in range(30):
        tools.write_lora(tmp_path / "loras" / f"l{i}.safetensors", i)
        rows.append(f"l{i},{'ab'[i % 2]},{'xy'[i % 2]},w{i % 10}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    loras = {"c": {"files": str(tmp_path / "loras"), "labels": str(tmp_path / "l.csv")}}
    entries = [{"sources": ["c/stats"]}, {"sources": ["c/stats"], "label": "kind"},
               {"sources": ["c/stats"], "label": "kind", "group": "who"}]  # fmt: skip
    made = tools.planned(tools.resolved(tmp_path, loras, entries))
    named = {t.args["dataset"] for t in made.targets.values() if t.stage == "probes"}
    assert named == {"c", "c:kind", "c:kind:group=who"}
    entries.append({"sources": ["c/stats"], "min_per_class": 2})
    with pytest.raises(ConfigError, match="read c with another `min_per_class`"):
        tools.planned(tools.resolved(tmp_path, loras, entries))


FIELDS = "description: x\nbos: any\nseeds: [0]\nrows: all\ninterval: {level: 0.9}\n"
METHOD = "{family: tree, reads: features, scaler: none, depth: [1]}"
SHARES = "split: {kind: random, test: 0.2, validation: 0.2, seed: 1}\nvalidation: split\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settings: {a: {}}\nmethods: {tree: {family: tree}}\n" + SHARES, "'reads' is missing"),
        (f"settings: {{a: {{}}}}\nmethods: {{t: {METHOD}}}\n" + SHARES, "needs a 'tree'"),
        (f"settings: {{a: {{vary: noise, values: [0]}}}}\nmethods: {{tree: {METHOD}}}\n" + SHARES,
         "nothing to `vary`"),
        (f"extends: actprobe-1\nmethods: {{tree: {METHOD}}}\n", "stand alone in a protocol"),
        ("extends: actprobe-1\nvalidation: split\n", "others cannot have them"),
    ],
)  # fmt: skip
def test_protocols_are_checked(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"name: own\n{'' if 'extends' in text else FIELDS}{text}")
    with pytest.raises(ConfigError, match=said):
        protocol.load(str(own))


def test_the_protocols_of_features_come_with_the_project() -> None:
    assert {"lora-1", "weightspace"} <= set(protocol.names())
    assert protocol.load("weightspace")["methods"]["mlp"]["hidden"] == [512, 512, 512]
    assert protocol.load("weightspace")["methods"]["tree"]["family"] == "tree"


def test_one_class_against_the_rest_and_a_method_of_any_family(tmp_path: Path) -> None:
    """What dense probes have holds for features, too: labels one against the rest, knn, shuffling."""
    rows = ["id,label"]
    for i in range(60):
        tools.write_lora(tmp_path / "f" / f"l{i:02d}.safetensors", i)
        rows.append(f"l{i:02d},{'abc'[i % 3]}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    knn = "{family: knn, reads: features, scaler: units, constant: 0, neighbours: 5}"
    control = (
        "{family: ridge_path, reads: features, scaler: units, constant: 0, alpha: [1.0], "
        "labels: shuffled}"
    )
    (tmp_path / "own.yaml").write_text(
        f"name: own\ndescription: x\nextends: lora-1\nselect: auc\nmethods: {{knn: {knn}, "
        f"control_shuffled: {control}}}\n"
    )
    loras = {"c": {"files": str(tmp_path / "f"), "labels": str(tmp_path / "l.csv")}}
    entry = {"protocol": str(tmp_path / "own.yaml"), "sources": ["c/stats"],
             "methods": ["knn", "control_shuffled"], "one_vs_rest": True}  # fmt: skip
    made = tools.run(tools.resolved(tmp_path, loras, [entry]))
    for method in entry["methods"]:
        found = tools.rows_of(made, "c/stats", method=method)
        assert [r["label"] for r in found] == [c for c in "abc" for _ in range(5)]
        assert {(r["kind"], r["metric"], r["reason"]) for r in found} == {("binary", "auc", "")}
        assert all(r["test_score"] == r["test_auc"] for r in found)
