"""Which rows of a dataset count: drawn by the seed, of one size, in groups, enough to test on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from configs import edited
from probes_inputs import Cache, data, sparse_data

from actprobe import probes
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.probes import data as labelled
from actprobe.probes import fit, fits, methods, permute, protocol, search, sizes, splits
from actprobe.probes.sizes import CannotFit, Condition

P = "saeprobes-0.4.2"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def add(cache, y, x=None, name="a", **columns):
    x = data(len(y), 6, seed=len(y))[0] if x is None else x
    t = cache.texts(name, y, **columns)
    cache.activations(name, x)
    return labelled.labels(t.path)


def facts_of(cache, name="a"):
    """What the header of a dataset's texts says of it."""
    [path] = [t.path for t in cache.known["texts"] if t.item == name]
    return store.read_header(path)["facts"]


# A9: of a long dataset the seed draws the rows.


def sorted_labels(n=8000, first=4900):
    """The first rows are all of one class."""
    return np.r_[np.zeros(first, int), np.ones(n - first, int)]


def test_a9_rows_of_a_long_dataset_are_drawn_by_the_seed(cache):
    add(cache, sorted_labels())
    rows = cache.run({"protocol": "actprobe-1", "methods": ["mean_difference"]})
    assert {r["n_train"] for r in rows} == {1024} and all(r["n_test"] > 1000 for r in rows)
    assert {r["n_unused"] for r in rows} == {3000}


def test_a9_published_protocols_keep_the_first_rows_and_say_so(cache, caplog):
    add(cache, sorted_labels())
    [row] = cache.run({"protocol": P, "methods": ["logreg"]})
    assert "positive rows" in row["reason"] and row["n_unused"] == 3000
    assert caplog.text.count("a: saeprobes-0.4.2 uses 5,000 of 8,000 labelled rows") == 1
    needed = probes.requirements(P, ["normal"], ["logreg"])
    assert probes.remarks(needed, facts_of(cache)) == [
        f"{P} uses 5,000 of 8,000 labelled rows, the first ones"
    ]


def test_a9_each_seed_draws_its_own_rows_and_a_short_dataset_keeps_all(cache):
    labels = add(cache, np.arange(300) % 2)
    one, two, again = (labels.keep(100, "drawn", seed) for seed in (0, 1, 0))
    assert set(one.row) != set(two.row) and (one.row == again.row).all()
    assert len(one) == 100 and (np.diff(one.row) > 0).all() and one.n_unused == 200
    assert (labels.keep(300, "drawn", 0).row == labels.row).all()
    assert (labels.keep(100, "first", 0).row == np.arange(100)).all()
    assert 30 < one.y.sum() < 70


# A12: the size of a condition does not depend on the other conditions that are listed.


@pytest.mark.parametrize("base", [P, "actprobe-1"])
def test_a12_listed_ratios_leave_the_sizes_alone(cache, tmp_path, base):
    add(cache, np.arange(1000) % 2)
    own = tmp_path / "own.yaml"
    own.write_text(
        f"name: own\ndescription: mine\nextends: {base}\n"
        "settings: {imbalance: {values: [0.2, 0.8]}}\n"
    )
    entry = {"settings": ["imbalance"], "methods": ["logreg"]}
    whole = cache.run({"protocol": base, **entry})
    some = cache.run({"protocol": str(own), **entry})
    assert {r["condition"] for r in some} == {"0.2", "0.8"}
    named = {(r["condition"], r["seed"]): r for r in whole}
    for row in some:
        same = named[row["condition"], row["seed"]]
        assert (row["n_train"], row["test_auc"]) == (same["n_train"], same["test_auc"])
    if base == P:
        assert {r["n_train"] for r in whole} == {426}


# D3: groups that a protocol parts.


def authors(y_of_author=lambda a: a % 2, n=80, texts=5, d=6, seed=0):
    """Labels that are constant per author, random for each, and activations that tell authors."""
    rng = np.random.RandomState(seed)
    author = np.repeat(np.arange(n), texts)
    labels = rng.permutation([y_of_author(a) for a in range(n)])
    x = rng.standard_normal((n, d))[author] + 0.05 * rng.standard_normal((len(author), d))
    return labels[author], x.astype(np.float32), [f"author {a}" for a in author]


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ("group", "groups", r"a has rows that belong together \(`group`\).* `groups: ignore`"),
        ("pair", "groups", r"a has rows that belong together \(`pair`\).* `groups: ignore`"),
        ("split", "split", r"a has a split of its own.* write `split: ignore` in this entry"),
    ],
)
def test_d3_a_protocol_that_parts_groups_is_refused_unless_told_to(cache, columns, key, message):
    y, x, names = authors()
    if columns == "split":
        names = ["train", "test"] * 200
    add(cache, y, x, **{columns: names})
    entry = {"protocol": P, "methods": ["knn"]}
    with pytest.raises(ConfigError, match=message):
        cache.run(entry)
    [row] = cache.run({**entry, key: "ignore"})
    assert math.isfinite(row["test_auc"])
    with pytest.raises(ConfigError, match=f"leave `{key}: ignore` out"):
        cache.run({"protocol": "actprobe-1", "methods": ["knn"], key: "ignore"})


def test_d3_groups_of_one_row_and_empty_splits_are_none(cache):
    """As far as the texts are known while planning."""
    y = np.arange(250) % 2
    add(cache, y, group=[f"g{i}" for i in range(250)], split=[None] * 250)
    [texts] = cache.known["texts"]
    with pytest.raises(ConfigError, match="rows that belong together"):
        cache.run({"protocol": P, "methods": ["knn"]})
    cache.known["texts"] = [replace(texts, args=replace(texts.args, facts=facts_of(cache)))]
    [row] = cache.run({"protocol": P, "methods": ["knn"]})
    assert row["group_fraction"] == 0


def test_d3_groups_that_train_and_test_are_told_beside_repeated_texts(cache):
    y, x, names = authors()
    add(cache, y, x, group=names)
    [row] = cache.run({"protocol": P, "methods": ["knn"], "groups": "ignore"})
    assert row["test_auc"] > 0.9 and row["leak_fraction"] == 0
    assert row["group_fraction"] > 0.9 and not row["test_score_unseen"] > 0.9
    kept = cache.run({"protocol": "actprobe-1", "methods": ["knn"]})
    assert {r["group_fraction"] for r in kept} == {0.0}
    assert np.mean([r["test_auc"] for r in kept]) < 0.75
    needed = probes.requirements(P, ["normal"], ["knn"])
    assert f"{P} parts its 80 groups between train and test" in probes.remarks(
        needed, facts_of(cache)
    )


def test_d3_pairs_stay_on_one_side_of_a_disjoint_split(cache):
    rng = np.random.RandomState(0)
    pair = np.repeat(np.arange(100), 2)
    labels = add(cache, np.arange(200) % 2, pair=[f"p{i}" for i in rng.permutation(pair)])
    how = protocol.load("actprobe-1")
    train, test = splits.disjoint(
        labels.y, labels.component, None, Condition(), {}, how["split"], 0
    )
    assert not set(labels.group[train]) & set(labels.group[test])


def test_d3_groups_of_a_test_set_are_those_of_the_same_name(cache):
    y, x, names = authors(n=300)
    add(cache, y, x, group=names)
    add(cache, y[:200], x[:200], "a_OOD", group=[*names[:100], *map(str, range(100))])
    entry = {"protocol": "actprobe-1", "settings": ["ood"], "methods": ["knn"], "datasets": ["a"]}
    assert {r["group_fraction"] for r in cache.run(entry)} <= {0.4, 0.5}


# D7: enough rows to test on.


def test_d7_too_few_test_rows_have_a_reason_instead_of_a_number(cache):
    add(cache, np.arange(8) % 2)
    rows = cache.run({"protocol": "actprobe-1", "methods": ["logreg"]})
    reason = "1 positive and 1 negative test rows are usable, at least 5 of each class needed"
    assert {r["reason"] for r in rows} == {reason}
    assert all(math.isnan(r["test_score"]) for r in rows)
    told = probes.unfit(probes.requirements("actprobe-1", ["normal"], ["logreg"]), facts_of(cache))
    assert told.startswith(reason) and "'no': 4 rows, 'yes': 4 rows" in told


def test_d7_a_test_set_of_its_own_needs_rows_of_each_class_too(cache):
    add(cache, np.arange(1500) % 2)
    add(cache, [0] * 40 + [1] * 3, name="a_OOD")
    entry = {"protocol": "actprobe-1", "settings": ["ood"], "methods": ["knn"], "datasets": ["a"]}
    assert {r["reason"] for r in cache.run(entry)} == {
        "3 positive and 40 negative test rows are usable, at least 5 of each class needed"
    }


def test_d7_intervals_take_equal_texts_for_one_row(cache):
    y = np.repeat(np.arange(60) % 2, 5)
    x = np.repeat(data(60, 6)[0], 5, axis=0)
    add(cache, y, x, text=[f"t{i // 5}" for i in range(300)])
    add(cache, y, x, name="b")
    rows = cache.run({"protocol": "actprobe-1", "methods": ["mean_difference"]})
    width = {n: [r["ci_high"] - r["ci_low"] for r in rows if r["dataset"] == n] for n in "ab"}
    assert min(width["a"]) > 1.5 * np.mean(width["b"])


# D12: what the folds of shuffled labels are folds of.


def test_d12_folds_are_those_of_the_shuffled_labels(cache, monkeypatch):
    """Of 8 train rows every pair of both classes is left out: of both shuffled classes."""
    seen = []
    own = fits.search

    def spy(task):
        seen.append((task.y_train, task.folds))
        return own(task)

    monkeypatch.setattr(fits, "search", spy)
    add(cache, np.arange(60) % 2)
    entry = {"protocol": "actprobe-1", "settings": ["scarcity"]}
    rows = cache.run({**entry, "methods": ["control_shuffled_labels"]})
    eight = [(y, folds) for y, folds in seen if len(y) == 8]
    assert len(eight) == 5
    for y, folds in eight:
        assert len(folds) == y.sum() * (8 - y.sum())
        assert all(len(set(y[b])) == 2 for _, b in folds)
    assert all(math.isfinite(r["val_score"]) for r in rows if r["n_train"] == 8)


def test_labels_are_exchanged_between_whole_groups_and_within_mixed_ones():
    y = np.array([1, 1, 1, 0, 0, 1, 0, 0, 1])
    group = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4])
    found = [permute.exchanged(y, group, np.random.RandomState(i)) for i in range(200)]
    whole = {(f[0], f[3], f[5], f[6]) for f in found}
    assert all(len(set(f[:3])) == len(set(f[3:5])) == 1 and f[7] + f[8] == 1 for f in found)
    assert len(whole) == 6 and {(f[7], f[8]) for f in found} == {(0, 1), (1, 0)}
    assert permute.arrangements(y, group) == pytest.approx(12)
    assert permute.arrangements(np.arange(8) % 2, np.arange(8)) == pytest.approx(70)
    assert permute.arrangements(np.arange(9000) % 2, np.arange(9000)) == math.inf


def test_a_control_shuffles_the_labels_of_whole_groups(cache):
    """With labels constant per author, single shuffled rows would be another problem."""
    seen = []

    def spy(task):
        seen.append(task.y_train)
        raise CannotFit("seen")

    y, x, names = authors()
    labels = add(cache, y, x, group=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "search", spy)
        cache.run({"protocol": "actprobe-1", "methods": ["control_shuffled_labels"]})
    how = protocol.load("actprobe-1")
    for seed, found in enumerate(seen):
        train, _ = splits.disjoint(
            labels.y, labels.component, None, Condition(), {}, how["split"], seed
        )
        assert all(len(set(found[labels.group[train] == g])) == 1 for g in labels.group[train])


# D15: what the header of the texts says already.


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"classes": [], "counts": []}, "no labels"),
        ({"classes": ["a", "b"], "counts": [400, 1]}, "'a': 400 rows, 'b': 1 rows"),
        ({"classes": ["a", "b"], "counts": [400, 400]}, None),
    ],
)
@pytest.mark.parametrize("name", [P, "actprobe-1"])
def test_c12_d15_what_cannot_be_probed_is_known_from_the_header(name, facts, reason):
    told = probes.unfit(probes.requirements(name, ["normal", "scarcity"], ["logreg"]), facts)
    assert told is None if reason is None else reason in told


def test_c12_several_classes_need_rows_of_each_or_a_choice():
    facts = {"classes": ["a", "b", "c"], "counts": [90, 90, 1]}
    told = probes.unfit(probes.requirements(P, ["normal"], ["logreg"]), facts)
    assert "found 3: 'a', 'b', 'c'; name the one that becomes class 1 with `positive`" in told
    needed = probes.requirements("actprobe-1", ["normal"], ["logreg"])
    assert "a class has 0 test rows" in probes.unfit(needed, facts)
    assert probes.unfit(needed, facts | {"counts": [90, 90, 90]}) is None


def test_d15_one_setting_that_runs_is_enough():
    facts = {"classes": ["a", "b"], "counts": [60, 60]}
    assert probes.unfit(probes.requirements(P, ["scarcity"], ["logreg"]), facts) is None
    told = probes.unfit(probes.requirements(P, ["imbalance"], ["logreg"]), facts)
    assert "100 test rows are needed" in told and "(saeprobes-0.4.2, imbalance;" in told


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"texts": 1, "n": 200}, "all rows have the same text"),
        ({"least": {"class": "b", "rows": 100, "texts": 1}}, "class 'b' has 100 rows of one text"),
        ({"groups": {"number": 1, "rows": 200, "largest": 200}, "n": 200}, "are of one group"),
        ({"splits": {"train": 200}}, "0 positive and 0 negative test rows are usable"),
        ({"splits": {"train": 2, "test": 198}}, None),
    ],
)
def test_d15_what_no_disjoint_split_can_part(facts, reason):
    facts = {"classes": ["a", "b"], "counts": [100, 100], **facts}
    told = probes.unfit(probes.requirements("actprobe-1", ["normal"], ["logreg"]), facts)
    assert told is None if reason is None else reason in told


def random_dataset(rng):
    """Labels, groups, a given split and texts of every shape that a small dataset may have."""
    n = int(rng.integers(2, 60)) * int(rng.choice([1, 1, 12]))
    y = (rng.random(n) < rng.choice([0.02, 0.2, 0.5])).astype(int)
    if rng.random() < 0.4:
        y = np.arange(n) % 2
    if len(set(y)) < 2:
        y[0] = 1 - y[0]
    columns = {}
    if rng.random() < 0.4:
        columns["group"] = [f"g{g}" for g in rng.integers(0, rng.integers(1, 40), n)]
    if rng.random() < 0.3:
        columns["split"] = rng.choice(["train", "test", None], n, p=[0.6, 0.3, 0.1]).tolist()
    if rng.random() < 0.3:
        columns["text"] = [f"t{t}" for t in rng.integers(0, rng.integers(1, 50), n)]
    return y, columns


def has_a_split(labels, recipe):
    for seed in recipe["seeds"]:
        kept = labels.keep(recipe["rows"]["most"], recipe["rows"]["kept"], seed)
        for condition in sizes.conditions(recipe["setting"]):
            try:
                fit.split(kept, recipe, condition, seed)
            except CannotFit:
                continue
            return True
    return False


@pytest.mark.parametrize("name", [P, "actprobe-1"])
@pytest.mark.parametrize("setting", ["normal", "scarcity", "imbalance"])
def test_d15_a_reason_from_the_header_is_never_wrong(cache, name, setting):
    rng = np.random.default_rng(0)
    recipe = protocol.recipe(protocol.load(name), setting, "logreg")
    needed = probes.requirements(name, [setting], ["logreg"])
    told = 0
    for i in range(60):
        y, columns = random_dataset(rng)
        labels = labelled.labels(cache.texts(f"d{i}", y, **columns).path)
        reason, works = probes.unfit(needed, facts_of(cache, f"d{i}")), has_a_split(labels, recipe)
        assert not (reason and works), (reason, y.tolist(), columns)
        if name == P:  # rows one by one: nothing but the counts matters
            assert works or reason
        told += reason is not None
    assert 5 < told < 60


# What a library raises, and what it returns.


def test_scores_that_are_no_numbers_are_the_reason_of_one_fit(cache, monkeypatch):
    monkeypatch.setattr(search, "scores", lambda model, X, *kind: np.full(len(X), np.nan))
    add(cache, np.arange(250) % 2)
    [row] = cache.run({"protocol": P, "methods": ["knn"]})
    assert row["reason"] == "the fitted probe scores rows with what is no number"


def test_one_number_of_latents_without_a_fit_leaves_the_others(cache, monkeypatch):
    def only_small(task):
        if task.X_train.shape[1] > 16:
            raise CannotFit("too many")
        return own(task)

    own = fits.search
    monkeypatch.setattr(fits, "search", only_small)
    y = np.arange(250) % 2
    cache.texts("a", y)
    cache.latents("a", sparse_data(250, 60)[0])
    rows = cache.run({"protocol": "saeprobes-0.4.2-fast"})
    assert [r["k"] for r in rows if not r["reason"]] == [1, 2, 4, 8, 16]
    assert [r["k"] for r in rows if r["reason"] == "too many"] == [32, 64, 128, 256, 512]


def test_what_a_library_raises_is_the_reason_of_one_target(cache, monkeypatch):
    def broken(how, params, seed):
        raise TypeError("neighbours: unexpected")

    monkeypatch.setitem(methods._REGISTERED, "knn", replace(methods.family("knn"), make=broken))
    add(cache, np.arange(250) % 2)
    entry = {"protocol": P, "methods": ["knn", "logreg"]}
    with pytest.raises(
        ActprobeError,
        match=r"1 of 2 targets.*\n.*a: knn of saeprobes-0.4.2 \(normal, seed 42\) on m/resid_post.0."
        "mean cannot be fitted: TypeError: neighbours: unexpected; leave knn",
    ):
        cache.run(entry)
    with pytest.raises(BadInput, match="a: knn of"):
        cache.run(entry, on_bad="skip")


def test_a_solver_without_a_solution_is_the_reason_of_one_fit(cache, monkeypatch):
    def singular(self, X, y):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression.fit", singular)
    add(cache, np.arange(250) % 2)
    [row] = cache.run({"protocol": P, "methods": ["logreg"]})
    assert row["reason"] == "LogisticRegression found no solution: SVD did not converge"


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "disk"), RuntimeError("not enough memory: 5 bytes")]
)
def test_what_the_machine_lacks_is_no_reason_to_skip(cache, monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr(fits, "search", fails)
    add(cache, np.arange(250) % 2)
    with pytest.raises(type(error)):
        cache.run({"protocol": P, "methods": ["logreg"]}, on_bad="skip")


# A15: what the models must have read.


def test_a15_a_protocol_states_its_beginning_of_sequence(cache):
    assert protocol.load(P)["bos"] == protocol.load("saeprobes-paper")["bos"] == "added"
    assert protocol.load("actprobe-1")["bos"] == "any"
    add(cache, np.arange(250) % 2)
    for name, refused in ((P, True), ("actprobe-1", False)):
        config = cache.config({"protocol": name, "methods": ["knn"]})
        for bos in (True, "auto", False):
            config = edited(config, ["models"], {"m": {"source": "org/m", "prepend_bos": bos}})
            if refused and bos is False:
                with pytest.raises(ConfigError, match="model m has `prepend_bos: false`; write"):
                    cache.plan(config)
            else:
                cache.plan(config)


@pytest.mark.parametrize(
    ("has_bos", "n_bos", "refused"), [(True, 0, True), (True, 250, False), (False, 0, False)]
)
def test_a15_rows_without_the_beginning_that_their_tokenizer_has(tmp_path, has_bos, n_bos, refused):
    cache, y = Cache(tmp_path), np.arange(250) % 2
    cache.texts("d", y)
    read = {"causal": True, "n_rows": 250, "n_bos": n_bos, "has_bos": has_bos}
    cache.activations("d", np.random.default_rng(0).normal(size=(250, 4)), facts=read)
    if refused:
        with pytest.raises(ActprobeError, match="its rows begin with no BOS token"):
            cache.run({"protocol": P, "methods": ["knn"]})
    else:
        assert cache.run({"protocol": P, "methods": ["knn"]})[0]["test_auc"] is not None


def test_protocols_say_what_they_leave_out():
    described = " ".join(protocol.load(P)["description"].split())
    assert "of latents with equal scores the lower one is taken" in described  # D11
    assert "group_fraction" in described and "own split is not looked at" in described
    assert json.dumps(protocol.load("actprobe-1")["rows"]) == '{"most": 5000, "kept": "drawn"}'
