"""Train and test rows: the published rule index by index, and the group-disjoint rule."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actprobe.probes import leakage, protocol, sizes, splits
from actprobe.probes.sizes import CannotFit, Condition

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "splits.json").read_text())
PROTOCOL = protocol.load("saeprobes-0.4.2")


def sha(rows):
    """First 16 hex digits of the SHA-256 of row numbers as little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes()).hexdigest()[:16]


def alternating(n):
    return np.arange(n) % 2


def sizes_of(y, condition, setting, split=PROTOCOL["split"]):
    positives = int(np.sum(y))
    return sizes.sizes(len(y), positives, len(y) - positives, condition, setting, split)


def conditions_that_fit(setting, n):
    how, found = PROTOCOL["settings"][setting], []
    for c in sizes.conditions(how):
        try:
            found.append((c, *sizes_of(alternating(n), c, how)))
        except CannotFit:
            continue
    return found


@pytest.mark.parametrize(
    ("n", "n_train", "n_test", "ratio", "train", "test"), GOLDEN["alternating_labels"]
)
def test_rows_without_texts(n, n_train, n_test, ratio, train, test):
    drawn = splits.draw(alternating(n), n_train, n_test, ratio, seed=42)
    assert (sha(drawn[0]), sha(drawn[1])) == (train, test)


def test_flipped_labels():
    want = GOLDEN["flips"]
    y = np.zeros(want["n_train"], int)
    rows = np.random.RandomState(42).choice(len(y), int(len(y) * want["noise"]), replace=False)
    assert sha(rows) == want["rows"]
    assert set(np.flatnonzero(splits.flip(y, want["noise"], 42))) == set(rows)
    half = splits.flip(y, 0.5, 42)
    assert not y.any() and half.sum() == 512 and half[rows].all(), "more noise flips a superset"


def test_all_113_sets_of_sae_probes(wheels):
    """Needs the wheel's labels: equal rows and equal share of test texts that are train texts."""
    [wheel] = wheels.glob("sae_probes-0.4.2-*.whl")
    how = PROTOCOL["settings"]["normal"]
    with zipfile.ZipFile(wheel) as z:
        for name, want in GOLDEN["sae-probes"].items():
            content = z.read(f"sae_probes/data/cleaned_data/{name}.csv.zst")
            rows = pd.read_csv(io.BytesIO(content), compression="zstd")
            y = np.unique(rows["target"].astype(str), return_inverse=True)[1]
            n_train, n_test = sizes_of(y, Condition(), how)
            train, test = splits.draw(y, n_train, n_test, 0.5, 42)
            assert (sha(train), sha(test)) == (want["train"], want["test"]), name
            text = rows["prompt"].to_numpy(dtype=object)
            share = leakage.repeated(text[train].astype(str), text[test].astype(str)).mean()
            assert round(share, 4) == want["leak_fraction"], name


def test_number_of_conditions():
    """The published numbers of (dataset, condition) pairs, from the sizes of the 113 sets."""
    sizes = [d["n"] for d in GOLDEN["sae-probes"].values()]
    count = {s: sum(len(conditions_that_fit(s, n)) for n in sizes) for s in PROTOCOL["settings"]}
    assert count["normal"] == 113
    assert count["scarcity"] == 2247
    assert count["imbalance"] == 113 * 19
    assert count["label_noise"] == 113 * 11


def test_sizes_of_every_setting():
    normal = conditions_that_fit("normal", 728)
    assert normal == [(Condition(), 628, 99)]
    assert conditions_that_fit("label_noise", 5000)[-1][1:] == (1024, 3975)
    scarcity = conditions_that_fit("scarcity", 728)
    assert scarcity[0][1:] == (2, 725) and scarcity[-1][1:] == (531, 196)
    # 2,500 of each class: 2,631 rows at most, whatever the ratio
    assert {s[1:] for s in conditions_that_fit("imbalance", 5000)} == {(1024, 1606)}
    ood = PROTOCOL["settings"]["ood"]
    [condition] = sizes.conditions(ood, "a_OOD")
    assert condition.name == "a_OOD"
    assert sizes_of(alternating(1500), condition, ood) == (1024, 0)


@pytest.mark.parametrize("n", [2, 50, 101])
def test_too_small_a_dataset_has_a_reason(n):
    with pytest.raises(CannotFit, match=f"100 test rows are needed, {n} are usable"):
        sizes_of(alternating(n), Condition(), {})


def test_too_few_rows_of_a_class_has_a_reason():
    y = np.r_[np.ones(30, int), np.zeros(970, int)]
    with pytest.raises(
        CannotFit, match=r"needs 450 \+ 50 positive rows \(train \+ test\), found 30"
    ):
        splits.draw(y, 900, 99, 0.5, 42)


def test_first_rows_of_each_class():
    train, test = splits.first_of_each(alternating(40), 20, seed=0)
    assert sorted(train) == list(range(20)) and len(test) == 0
    assert list(train) != sorted(train)


def test_components_join_equal_texts_and_groups():
    digest = ["a", "b", "a", "c", "d", "e"]
    group = [None, "g", "h", "h", None, "g"]
    joined = splits.components(digest, group)
    assert joined[0] == joined[2] == joined[3], "row 2 has the text of row 0 and the group of row 3"
    assert joined[1] == joined[5]
    assert len(set(joined)) == 3


@pytest.fixture
def grouped():
    """600 rows in groups of one to six; labels are mixed within groups."""
    rng = np.random.RandomState(0)
    component = np.sort(rng.randint(0, 170, 600))
    return rng.randint(0, 2, 600), component


SPLIT = {"groups": "disjoint", "n_train": 1024, "test_fraction": 0.25, "least_test": 5}


def disjoint(grouped, setting, condition=None, seed=0, given=None):
    condition = condition or Condition()
    return splits.disjoint(*grouped, given, condition, setting, SPLIT, seed)


def test_groups_stay_on_one_side(grouped):
    y, component = grouped
    train, test = disjoint(grouped, {})
    assert not set(component[train]) & set(component[test])
    assert len(set(train)) == len(train) > 380 and len(set(test)) == len(test) > 130
    assert abs(y[train].mean() - 0.5) < 0.01 and abs(y[test].mean() - 0.5) < 0.01


def test_a_learning_curve_grows_one_train_set_and_keeps_the_test_set(grouped):
    setting = {"vary": "n_train", "values": [2, 5, 40]}
    drawn = [disjoint(grouped, setting, c) for c in sizes.conditions(setting)]
    trains = [set(train) for train, _ in drawn]
    assert [len(t) for t in trains] == [2, 5, 40]
    assert trains[0] < trains[1] < trains[2]
    assert all((test == drawn[0][1]).all() for _, test in drawn)
    with pytest.raises(CannotFit, match="needs 5000 train rows"):
        disjoint(grouped, setting, Condition("5000", 5000))


def test_every_ratio_has_the_same_size(grouped):
    setting = {"vary": "ratio", "values": [0.1, 0.5, 0.9], "range": [0.1, 0.9]}
    drawn = [disjoint(grouped, setting, c) for c in sizes.conditions(setting)]
    assert len({(len(a), len(b)) for a, b in drawn}) == 1
    shares = [grouped[0][train].mean() for train, _ in drawn]
    assert np.allclose(shares, [0.1, 0.5, 0.9], atol=0.01)


def test_seeds_differ_and_repeat(grouped):
    assert sha(disjoint(grouped, {}, seed=1)[0]) == sha(disjoint(grouped, {}, seed=1)[0])
    assert sha(disjoint(grouped, {}, seed=1)[0]) != sha(disjoint(grouped, {}, seed=2)[0])


def test_the_datasets_own_split(grouped):
    given = np.array(["train"] * 400 + ["test"] * 150 + ["held back"] * 50, dtype=object)
    train, test = disjoint(grouped, {}, given=given)
    assert max(train) < 400 <= min(test) and max(test) < 550


def test_the_datasets_own_split_parts_no_text(grouped):
    """A train row whose text or group also tests does not train."""
    _, component = grouped
    given = np.where(np.arange(600) % 4 == 0, "test", "train").astype(object)
    train, test = disjoint(grouped, {}, given=given)
    assert not set(component[train]) & set(component[test]) and len(train) > 50
    assert set(given[test]) == {"test"}


def test_one_group_cannot_be_split():
    y, one = alternating(100), np.zeros(100, int)
    with pytest.raises(
        CannotFit, match="0 positive and 0 negative test rows are usable, at least 5 of"
    ):
        disjoint((y, one), {})
