"""Fits tried on other collections: scores, numbers, classes by name, what was fitted is left out."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from probes_inputs import Cache, as_latents, data, sparse_data
from test_probes_kept import own
from texts_inputs import with_facts

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store
from actprobe.experiment import targets as experiment
from actprobe.probes import data as reading
from actprobe.probes import intervals, keep
from actprobe.probes.evaluations import VERSION, nulls
from actprobe.probes.metrics.binary import auc

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "probes.json").read_text())


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def add(cache, name, n=120, seed=0, label=None, classes=("no", "yes"), **texts):
    x, y = data(n, 6, seed=seed, strength=4.0)
    label = y if label is None else label
    cache.texts(name, label, texts.pop("text", None), classes=classes, **texts)
    cache.activations(name, x)
    return x, y


def made(cache, *entries, on_bad="stop"):
    """Make everything; rows of evaluations by (dataset, collection), and all their rows."""
    config = cache.config(*entries, on_bad=on_bad)
    planned = cache.plan(config)
    for batch in planned.in_order():
        experiment.run(batch, config, 1)
    found = [t for t in planned.targets.values() if t.stage == "evaluations"]
    return [row for t in found for row in store.read_table(t.path).to_pylist()]


def entry(folder, **keys_):
    return {"protocol": own(folder), "methods": ["logreg"], "sources": ["m/*"], **keys_}


def test_a_fit_is_tried_on_another_collection_and_on_its_own_test_rows(cache, tmp_path):
    add(cache, "a")
    x, y = add(cache, "b", seed=0, n=90)
    asked = entry(tmp_path, datasets=["a"], apply_to=["b"])
    diagonal, tried = made(cache, asked)
    assert [(r["dataset"], r["collection"]) for r in (diagonal, tried)] == [("a", "a"), ("a", "b")]
    [fit] = list(cache.folder.glob("probes/**/*.parquet"))
    [of] = store.read_table(fit).to_pylist()
    scores = keep.read(of["kept_model"]).scores(x)
    assert tried["kept_scores"] == scores.tolist() and tried["kept_label"] == y.tolist()
    assert tried["kept_row"] == list(range(90)) and not any(tried["kept_excluded"])
    assert tried["score"] == tried["test_auc"] == auc(y, scores)
    low, high = intervals.auc_interval(y, scores, np.arange(90), 0.95)
    assert (tried["ci_low"], tried["ci_high"]) == (low, high)
    assert tried["null_low"] < 0.5 < tried["null_high"] < tried["score"]
    assert (tried["n"], tried["n_used"], tried["n_excluded"], tried["n_other"]) == (90, 90, 0, 0)
    assert diagonal["score"] == of["test_auc"] and diagonal["kept_row"] == of["kept_test"]
    assert (diagonal["ci_low"], diagonal["ci_high"]) == (of["ci_low"], of["ci_high"])


def test_texts_and_groups_that_were_fitted_are_scored_and_not_counted(cache, tmp_path):
    text = [f"t{i}" for i in range(120)]
    group = [f"g{i // 4}" for i in range(120)]
    add(cache, "a", text=text, group=group)
    # Of b ten texts are those of a, ten rows are of a's groups, one group has no name.
    others = text[:10] + [f"other {i}" for i in range(80)]
    groups = [None] * 10 + group[40:50] + [f"new {i // 2}" for i in range(70)]
    _, y = add(cache, "b", n=90, seed=0, text=others, group=groups)
    rows = made(cache, entry(tmp_path, datasets=["a"], apply_to=["b"]))
    tried = rows[1]
    [fit] = list(cache.folder.glob("probes/**/*.parquet"))
    [of] = store.read_table(fit).to_pylist()
    fitted = set(of["kept_train"])
    expected = [i in fitted for i in range(10)]
    expected += [group[i] in {group[j] for j in fitted} for i in range(40, 50)] + [False] * 70
    assert tried["kept_excluded"] == expected and tried["n_excluded"] == sum(expected) > 5
    new = ~np.array(expected)
    assert tried["score"] == auc(y[new], np.array(tried["kept_scores"])[new])
    assert tried["n_used"] == new.sum() and len(tried["kept_scores"]) == 90


def test_classes_are_matched_by_name(cache, tmp_path):
    _, y = add(cache, "a")
    add(cache, "turned", label=1 - y, classes=("yes", "no"))
    add(cache, "one_name", label=y, classes=("other", "yes"))
    add(cache, "three", label=np.arange(120) % 3, classes=("yes", "no", "perhaps"))
    add(cache, "none", label=[None] * 120, classes=())
    rows = made(cache, entry(tmp_path, datasets=["a"],
                             apply_to=["turned", "one_name", "three", "none"]))  # fmt: skip
    of = {r["collection"]: r for r in rows}
    assert of["turned"]["score"] == of["one_name"]["score"] > 0.9
    assert of["three"]["n_other"] == 40 and of["three"]["n_used"] == 80
    assert math.isnan(of["none"]["score"]) and "no row has a label" in of["none"]["reason"]
    assert len(of["none"]["kept_scores"]) == 120, "scored all the same"


def test_other_classes_are_refused_while_planning_with_both_lists(cache, tmp_path):
    add(cache, "a")
    add(cache, "b", classes=("bad", "good"))
    add(cache, "c")
    known = {t.item: t for t in cache.known["texts"]}
    cache.known["texts"] = [with_facts(t) for t in known.values()]
    words = r"b has the classes 'bad', 'good', the probe knows 'no', 'yes' \(a\)"
    with pytest.raises(ConfigError, match=words):
        cache.plan(cache.config(entry(tmp_path, datasets=["a"], apply_to=["b"])))
    planned = cache.plan(cache.config(entry(tmp_path, datasets=["a"], apply_to=["*"])))
    tried = {t.args.collection for t in planned.targets.values() if t.stage == "evaluations"}
    assert tried == {"a", "c"}, "a pattern stands for those that suit"


def test_what_cannot_be_tried_is_refused_while_planning(cache, tmp_path):
    add(cache, "a")
    cache.texts("no_source", np.arange(40) % 2)
    for more, words in (
        ({"apply_to": ["no_source"]}, "none of the sources is computed for no_source"),
        ({"apply_to": ["b"]}, "no dataset matches 'b'"),
        ({"apply_to": ["a"], "keep": []}, r"write `keep: \[normal\]`"),
    ):
        with pytest.raises(ConfigError, match=words):
            cache.plan(cache.config(entry(tmp_path, datasets=["a"], **more)))


def test_one_more_collection_makes_its_evaluations_alone(cache, tmp_path):
    for name in "abc":
        add(cache, name, seed=0)
    asked = entry(tmp_path, datasets=["a"], apply_to=["b"])
    made(cache, asked)
    planned = cache.plan(cache.config({**asked, "apply_to": ["b", "c"]}))
    [t] = [planned.targets[p] for p in planned.pending]
    assert (t.stage, t.args.collection) == ("evaluations", "c")


@pytest.mark.parametrize("kind", ["multiclass", "continuous"])
def test_other_label_kinds(cache, tmp_path, kind):
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0), ("b", 1)):
        x = rng.standard_normal((150, 6)).astype(np.float32)
        if kind == "continuous":
            cache.texts(name, x[:, 0] + 0.1 * rng.standard_normal(150))
        else:
            y = np.arange(150) % 3
            x[np.arange(150), y] += 2
            names = ["r", "g", "b"]
            numbers = (y + shift) % 3  # the same classes, with other numbers
            cache.texts(name, numbers, classes=[names[(i - shift) % 3] for i in range(3)])
        cache.activations(name, x)
    method = "ridge" if kind == "continuous" else "logreg"
    asked = entry(tmp_path, datasets=["a"], apply_to=["b"], methods=[method])
    row = made(cache, asked)[1]
    assert row["score"] == row["test_r2" if kind == "continuous" else "test_auc"] > 0.8
    assert row["null_high"] < row["ci_low"] < row["score"] < row["ci_high"]
    assert len(row["kept_scores"]) == 150 * (3 if kind == "multiclass" else 1)


def test_one_class_against_the_rest(cache, tmp_path):
    y = np.arange(150) % 3
    for name, classes in (("a", ("r", "g", "b")), ("b", ("r", "g", "other"))):
        x = np.random.default_rng(0).standard_normal((150, 6)).astype(np.float32)
        x[np.arange(150), y] += 2
        cache.texts(name, y, classes=classes)
        cache.activations(name, x)
    asked = entry(tmp_path, datasets=["a"], apply_to=["b"], one_vs_rest=True)
    of = {r["label"]: r for r in made(cache, asked) if r["collection"] == "b"}
    assert of["r"]["score"] > 0.8 and of["g"]["score"] > 0.8
    assert "no row has a label that the probe knows" in of["b"]["reason"]


def test_latents_neighbours_and_several_ks(cache, tmp_path):
    for name in "ab":
        add(cache, name, seed=0)
        cache.latents(name, sparse_data(120, 60, seed=0)[0])
    mine = own(tmp_path, methods={"ksparse_b": {"ks": [1, 4]}, "knn": {"neighbours": 5}})
    asked = {
        "protocol": mine,
        "methods": ["ksparse_b", "knn"],
        "datasets": ["a"],
        "apply_to": ["b"],
    }
    rows = [r for r in made(cache, asked) if r["collection"] == "b"]
    assert {(r["method"], r["k"]) for r in rows} == {
        ("ksparse_b", 1),
        ("ksparse_b", 4),
        ("knn", None),
    }
    assert all(math.isfinite(r["score"]) for r in rows)


def test_a_skipped_fit_leaves_tombstones(cache, tmp_path):
    add(cache, "a")
    x, y = data(120, 6)
    cache.texts("b", y, bad="broken file")
    cache.activations("b", x)
    asked = entry(tmp_path, datasets=["a"], apply_to=["b"])
    with pytest.raises(ActprobeError, match="broken file"):
        made(cache, asked)
    config = cache.config(asked, on_bad="skip")
    planned = cache.plan(config)
    for batch in planned.in_order():
        experiment.run(batch, config, 1)
    bad = [store.read_header(p)["bad"] for p in cache.folder.glob("evaluations/**/*@b.*.parquet")]
    assert bad == ["broken file"]


def test_the_closed_form_of_the_null_band_is_that_of_many_draws():
    rng = np.random.default_rng(0)
    y, scores = np.arange(200) % 2, np.round(rng.random(200), 1)  # with ties
    low, high = nulls.null_band("binary", y, scores, np.arange(200))
    drawn = [auc(rng.permutation(y), scores) for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_groups_make_the_null_band_wider_and_few_orders_make_none():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 10)
    y = (group % 2).astype(int)
    scores = rng.standard_normal(20)[group] + 0.1 * rng.standard_normal(200)
    single = nulls.null_band("binary", y, scores, np.arange(200))
    grouped = nulls.null_band("binary", y, scores, group)
    assert grouped[1] - grouped[0] > 2 * (single[1] - single[0])
    few = nulls.null_band("binary", y[:40], scores[:40], group[:40])
    assert math.isnan(few[0]) and math.isnan(few[1])


def test_golden(cache, tmp_path):
    """A digest of evaluations on a tiny input, four digits of every number."""
    add(cache, "a")
    add(cache, "b", seed=1, n=90)
    rows = made(cache, entry(tmp_path, datasets=["a"], apply_to=["b"]))
    rounded = [
        {c: float(f"{v:.4g}") if isinstance(v, float) and math.isfinite(v) else str(v)
         for c, v in row.items() if c != "key" and not c.startswith("kept_")}
        for row in rows
    ]  # fmt: skip
    found = {"version": VERSION, "rows": keys.spec_key({"rows": rounded})}
    assert found == GOLDEN["evaluations"], (
        "evaluations give other numbers: raise VERSION in probes/evaluations/targets.py, then put what "
        "was found here into tests/golden/probes.json"
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from probes_inputs import Cache
from actprobe.cache import store
from actprobe.experiment import targets as experiment
from actprobe.cache.store import tables
import test_probes_evaluations as own

left = int(sys.argv[2])
whole = tables.write_table

def write(*args, **more):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return whole(*args, **more)

cache = own.everything(Path(sys.argv[1]))
store.write_table = write
config, planned = own.whole_plan(cache)
from actprobe.cache import plan
if plan.take_over(planned):
    config, planned = own.whole_plan(cache)
for batch in planned.in_order():
    experiment.run(batch, config, 1)
"""


def everything(folder):
    """A cache with texts, activations and latents; fits of each source, and their evaluations."""
    cache = Cache(folder / "cache")
    for name in "ab":
        x, y = data(100, 5, seed=3)
        cache.texts(name, y)
        cache.activations(name, x)
        cache.latents(name, as_latents(np.maximum(x, 0)))
    return cache


def whole_plan(cache):
    mine = own(cache.folder.parent, methods={"ksparse_b": {"ks": [2]}, "logreg": {"C": [1.0]}})
    config = cache.config({"protocol": mine, "methods": ["logreg", "ksparse_b", "baseline_tfidf"],
                           "datasets": ["a"], "apply_to": ["b"]})  # fmt: skip
    return config, cache.plan(config)


def test_killed_at_every_event_the_bytes_are_equal(tmp_path):
    """Killed before each file of fits and evaluations is written, and started again."""
    folders = [str(Path(__file__).parent), str(Path(reading.__file__).parents[2])]

    def start(folder, left):
        code = KILLED.format(path=folders)
        return subprocess.run(
            [sys.executable, "-c", code, str(folder), str(left)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip

    def bytes_of(folder):
        made = [
            p for stage in ("probes", "evaluations") for p in (folder / "cache" / stage).rglob("*")
        ]
        return {p.name: p.read_bytes() for p in made if p.is_file() and p.suffix == ".parquet"}

    (tmp_path / "whole").mkdir()
    done = start(tmp_path / "whole", -1)
    assert done.returncode == 0, done.stderr
    whole = bytes_of(tmp_path / "whole")
    assert len(whole) == 3 * 3, "a fit, its diagonal and one more collection of each source"
    (tmp_path / "killed").mkdir()
    deaths = 0
    while (done := start(tmp_path / "killed", 1)).returncode:
        assert done.returncode == -9, done.stderr
        deaths += 1
    assert deaths >= 7 and bytes_of(tmp_path / "killed") == whole
