"""Classifiers: splits, scaling, the mended early stopping, metrics, controls."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lora_tools as tools
import numpy as np
import pytest
import torch

from actprobe import store
from actprobe.errors import ActprobeError, BadInput, ConfigError
from actprobe.lora import classifiers, inference, metrics, mlp, probe, protocol, splits, synthetic
from actprobe.lora.scaling import standardise

RULE = {"kind": "stratified", "test": 0.25, "validation": 0.25, "seed": "per_run"}
MLP = {**protocol.load("lora-default")["methods"]["mlp"], "hidden": [16, 16], "max_epochs": 40}


def _blobs(n: int = 120, classes: int = 3, d: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = 1.5 * rng.standard_normal((classes, d))
    return (centres[y] + rng.standard_normal((n, d))).astype(np.float32), y


def test_splits_are_disjoint_complete_and_stratified() -> None:
    y = np.arange(120) % 3
    sides = splits.draw(y, None, None, RULE, 0)
    assert sorted(np.concatenate(sides)) == list(range(120))
    assert [len(s) for s in sides] == [60, 30, 30]
    for s in sides:
        assert np.bincount(y[s]).tolist() == [len(s) // 3] * 3
    assert not np.array_equal(sides[2], splits.draw(y, None, None, RULE, 1)[2])
    fixed = {**RULE, "seed": 7}
    np.testing.assert_array_equal(
        splits.draw(y, None, None, fixed, 0)[2], splits.draw(y, None, None, fixed, 1)[2]
    )


def test_groups_stay_on_one_side_and_a_given_split_decides() -> None:
    y = np.arange(120) % 3
    group = np.array([f"g{i // 6}" for i in range(120)])
    train, validation, test = (set(group[s]) for s in splits.draw(y, group, None, RULE, 3))
    assert not (train & test or train & validation or validation & test)
    given = np.array(["train"] * 80 + ["val"] * 20 + ["test"] * 20)
    assert [len(s) for s in splits.draw(y, None, given, RULE, 0)] == [80, 20, 20]
    given[80:100] = "train"
    assert [len(s) for s in splits.draw(y, None, given, RULE, 0)] == [75, 25, 20]
    for name in ("validation", "valid", "dev"):
        given = np.array(["train"] * 80 + [name] * 20 + ["test"] * 20)
        assert [len(s) for s in splits.draw(y, None, given, RULE, 0)] == [80, 20, 20]
    given[:3] = ["Test", "", "train"]
    with pytest.raises(BadInput, match="has the values '', 'Test'; expected train"):
        splits.draw(y, None, given, RULE, 0)
    with pytest.raises(BadInput, match="values train and test, it has: a"):
        splits.draw(y, None, np.array(["a"] * 120), RULE, 0)
    with pytest.raises(BadInput, match="too few"):
        splits.draw(np.array([0] * 10 + [1]), None, None, RULE, 0)


def test_scaling_uses_training_rows_and_present_entries_only() -> None:
    z = np.array([[1, 5, 2], [3, 5, 0], [100, 6, 9], [9, 9, 0]], np.float32)
    mask = np.ones((4, 2), bool)
    mask[1, 1] = mask[3, 1] = False
    constant, cut = standardise(z, mask, np.array([0, 0, 1]), np.array([0, 1]), 1e-6)
    np.testing.assert_allclose(z[:, 0], [-1, 1, 98, 7])
    assert not cut.any(), "two rows have no range"
    assert not z[:, 1].any() and constant == 2, "5, 5 is constant among the training rows"
    assert z[1, 2] == z[3, 2] == 0, "what is missing stands at the training mean"


@pytest.mark.parametrize("method", ["logreg", "ridge", "svm"])
def test_linear_classifiers_learn(method: str) -> None:
    x, y = _blobs()
    how = protocol.load("lora-default")["methods"][method]
    fitted = getattr(classifiers, method)(x[:80], y[:80], x[80:], y[80:], how, 0)
    assert classifiers.accuracy(fitted.scores(x[80:]), y[80:]) > 0.85
    two = y[:80] % 2
    scores = getattr(classifiers, method)(x[:80], two, x[80:], y[80:] % 2, how, 0).scores(x)
    assert scores.shape == (120, 2)


def test_ridge_equals_scikit_learn_in_both_forms() -> None:
    from sklearn.linear_model import RidgeClassifier

    for d in (6, 90):  # fewer and more columns than rows
        x, y = _blobs(d=d)
        fitted = classifiers.ridge(x[:60], y[:60], x[60:], y[60:], {"alpha": [3.0]}, 0)
        model = RidgeClassifier(alpha=3.0).fit(x[:60].astype(float), y[:60])
        np.testing.assert_allclose(
            fitted.scores(x), model.decision_function(x), rtol=1e-3, atol=1e-4
        )


def test_the_mlp_keeps_the_weights_of_its_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live `state_dict()` would end with the weights of the last epoch."""
    x, y = _blobs(seed=3)
    seen: list[float] = []
    accuracy = mlp.accuracy

    def recording(scores, labels) -> float:
        # pretend that validation accuracy peaks in epoch 3 and falls from then on
        seen.append(accuracy(scores, labels))
        return 1.0 if len(seen) == 3 else 0.1 / len(seen)

    snapshots: list[dict] = []
    step = torch.optim.lr_scheduler.ReduceLROnPlateau.step

    def snapshot(self, value, *a, **k):
        weights = [p.detach().clone() for g in self.optimizer.param_groups for p in g["params"]]
        snapshots.append(dict(enumerate(weights)))
        return step(self, value, *a, **k)

    monkeypatch.setattr(mlp, "accuracy", recording)
    monkeypatch.setattr(torch.optim.lr_scheduler.ReduceLROnPlateau, "step", snapshot)
    models = []
    network = mlp.network
    monkeypatch.setattr(mlp, "network", lambda *a: models.append(network(*a)) or models[-1])
    fitted = mlp.mlp(x[:80], y[:80], x[80:], y[80:], MLP, 0)
    assert fitted.params == {"best_epoch": 3, "epochs": 3 + MLP["patience"]}
    kept = dict(enumerate(models[0].parameters()))
    assert all(torch.equal(kept[i], w) for i, w in snapshots[2].items())
    assert any(not torch.equal(kept[i], w) for i, w in snapshots[-1].items())


def test_the_mlp_learns_and_a_seed_fixes_it() -> None:
    x, y = _blobs()
    first = mlp.mlp(x[:80], y[:80], x[80:], y[80:], MLP, 0)
    again = mlp.mlp(x[:80], y[:80], x[80:], y[80:], MLP, 0)
    assert classifiers.accuracy(first.scores(x[80:]), y[80:]) > 0.8
    np.testing.assert_array_equal(first.scores(x), again.scores(x))
    other = mlp.mlp(x[:80], y[:80], x[80:], y[80:], MLP, 1)
    assert not np.array_equal(first.scores(x), other.scores(x))


def test_metrics_of_a_known_confusion() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    values, confusion = metrics.evaluate(y, scores, 3)
    assert confusion.tolist() == [[0, 0, 2], [0, 1, 1], [1, 1, 2], [2, 0, 1]]
    assert values["test_acc"] == pytest.approx(4 / 6)
    assert values["test_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert values["test_precision"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert values["test_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert inference.wilson(0.5, 100) == pytest.approx((0.4038315, 0.5961685))
    for n in range(1, 200):
        assert inference.wilson(0.0, n)[0] == 0 and inference.wilson(1.0, n)[1] == 1, "not 1e-17"
        assert 0 < inference.wilson(1 / (n + 1), n + 1)[0] < 1 / (n + 1)
    assert math.isnan(metrics.auc(np.zeros(3, int), scores[:3]))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Probes of a small synthetic collection: rows of all fits."""
    folder = tmp_path_factory.mktemp("toy")
    synthetic.write(folder, per_class=24)
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "group": "subject", "representations": ["left_projector", "stats"]}}  # fmt: skip
    probes = {"p": {"loras": ["toy"], "methods": ["ridge"], "each_layer": ["left_projector"],
                    "layers": {"all": "*", "attn1": "*.attn1.*", "attn2": "*.attn2.*"}}}  # fmt: skip
    made = tools.run(tools.resolved(folder, loras, probes))
    rows = []
    for t in made.targets.values():
        if t.stage == "lora_probes":
            rows += store.read_table(t.path).to_pylist()
    return folder, rows


def _accuracy(rows: list[dict], source: str, condition: str, site: str = "") -> float:
    chosen = [r for r in rows if r["source"] == source and r["condition"] == condition]
    chosen = [r for r in chosen if not site or r["site"].endswith(site)]
    assert chosen and not any(r["reason"] for r in chosen)
    return float(np.mean([r["test_acc"] for r in chosen]))


def test_the_planted_signal_is_found_where_it_is_and_nowhere_else(toy) -> None:
    rows = toy[1]
    assert _accuracy(rows, "left_projector", "attn1") > 0.6
    planted = "up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_v"
    assert _accuracy(rows, "left_projector", "each", planted) > 0.8
    for source, condition, site in [
        ("left_projector", "attn2", ""),
        ("left_projector", "each", "mid_block_attentions_0_transformer_blocks_0_attn1_to_v"),
        ("norm_only", "all", ""),
        ("recipe_only", "all", ""),
    ]:
        assert _accuracy(rows, source, condition, site) < 0.5, (source, condition)


def test_rows_are_complete(toy) -> None:
    rows = toy[1]
    assert {r["source"] for r in rows} == {"left_projector", "stats", "norm_only", "recipe_only"}
    for r in rows:
        assert r["leak_fraction"] == 0 and r["n_train"] + r["n_test"] == 96
        assert sum(n for _, _, n in json.loads(r["confusion"])) == r["n_test"]
        assert r["ci_low"] <= r["test_acc"] <= r["ci_high"] and 0.2 <= r["chance"] <= 0.3
    seeds = {(r["source"], r["condition"], r["site"], r["method"], r["seed"]) for r in rows}
    assert len(seeds) == len(rows)


def test_another_label_column_recomputes_probes_alone(toy) -> None:
    folder = toy[0]
    loras = {"toy": {"files": str(folder / "files"), "labels": str(folder / "labels.csv"),
                     "group": "subject", "representations": ["left_projector", "stats"]}}  # fmt: skip
    entry = {"loras": ["toy"], "methods": ["ridge"], "each_layer": ["left_projector"],
             "layers": {"all": "*", "attn1": "*.attn1.*", "attn2": "*.attn2.*"}}  # fmt: skip
    cfg = tools.resolved(folder, loras, {"p": entry})
    assert tools.to_make(cfg) == {}
    entry["label"] = "style"
    assert tools.to_make(tools.resolved(folder, loras, {"p": entry})) == {"lora_probes": 13}
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
    cfg = tools.resolved(tmp_path, loras, {"p": {"loras": ["c"], "methods": ["ridge"]}})
    (tmp_path / "l.csv").write_text("id,label\nx,cat\n")
    with pytest.raises(ConfigError, match=r"loras\.c\.labels: no row .* called 'l\d', .* rows 'x'"):
        tools.planned(cfg)
    (tmp_path / "l.csv").write_text("id,label\n" + "".join(f"l{i},cat\n" for i in range(4)))
    with pytest.raises(ActprobeError, match="all LoRAs have the label 'cat'"):
        tools.run(cfg)
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,\nl2,dog\n")
    caplog.clear()
    with pytest.raises(ConfigError, match=r"p: c: too few LoRAs of 'cat' \(1\), 'dog' \(1\)"):
        tools.planned(cfg)
    (said,) = caplog.messages
    assert said.startswith(
        "lora_probes.p: 2 of 4 files of c have no label and are left out, e.g. l"
    )
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,cat\nl2,dog\nl3,dog\n")
    made = tools.run(cfg)
    path = tools.path_of(made, "p/c/stats.all.ridge")
    rows = store.read_table(path).to_pylist()
    assert all("too few" in r["reason"] and r["test_acc"] is None for r in rows)
    (tmp_path / "l.csv").write_text("id,label\nl0,cat\nl1,dog\nl2,dog\nl3,dog\n")
    with pytest.raises(ActprobeError, match=r"l\.csv was changed after the plan was made"):
        probe.labels(made.targets[path], cfg)


def test_unknown_names_are_told_with_the_nearest_one(tmp_path: Path) -> None:
    tools.write_lora(tmp_path / "loras" / "a.safetensors")
    (tmp_path / "l.csv").write_text("id,label\na,cat\n")
    loras = {"c": {"files": str(tmp_path / "loras"), "labels": str(tmp_path / "l.csv")}}
    for entry, message in [
        ({"loras": ["d"]}, r"lora_probes\.p\.loras: unknown collection 'd'"),
        ({"methods": ["ridg"]}, r"lora_probes\.p\.methods.*did you mean 'ridge'"),
        ({"representations": ["statz"]}, r"lora_probes\.p\.representations.*did you mean 'stats'"),
        ({"each_layer": ["statz"]}, r"lora_probes\.p\.each_layer.*did you mean 'stats'"),
        ({"protocol": "lora-defalt"}, "unknown LoRA protocol 'lora-defalt'; did you mean"),
        ({"label": "kind"}, "no column 'kind'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            tools.planned(tools.resolved(tmp_path, loras, {"p": {"loras": ["c"], **entry}}))


def test_protocols_are_checked(tmp_path: Path) -> None:
    assert protocol.names() == ["lora-default", "weightspace"]
    assert protocol.load("weightspace")["methods"]["mlp"]["hidden"] == [512, 512, 512]
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nseeds: [0]\nconstant: 0\nmethods: {}\nsplit: {kind: even}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: "):
        protocol.load(str(own))
