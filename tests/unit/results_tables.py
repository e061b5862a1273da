"""Result tables of every shape, for tests of what is made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from actprobe import results

CONDITIONS = {
    "normal": [""],
    "scarcity": ["2", "16", "1024"],
    "imbalance": ["0.05", "0.5"],
    "label_noise": ["0", "0.25"],
    "ood": ["x_OOD"],
}
METHODS = ["logreg", "pca", "knn", "xgboost", "mlp", "svm", "control_shuffled_labels"]
# Names as people and published files have them, and as nobody should.
KINDS = {
    "short": "{i}_set",
    "long": "{i}_" + "a_very_long_name_of_a_dataset_" * 3,
    "alike": "the_same_beginning_of_all_names_" * 2 + "{i}" + "_and_the_same_end",
    "wide": "{i}" + "W" * 80,
    "words": "{i} words with spaces between them, and commas, and more words than fit on a line",
    "formula": "=cmd|' /C calc'!A{i}",
    "markup": "--><b>{i}</b> & \"quotes\" 'single' </script>",
    "dollars": "$\\frac{{{i}}}$ and $ alone _{{x}}",
    "controls": "{i}\x0b\x00\x1b[0m\u2028tab\tand\r\nlines",
    "script": "数据集{i}مجموعة🙂",
}


def name(kind: str, i: object) -> str:
    """The i-th name of a kind; "mixed" takes the kinds in turn."""
    if kind != "mixed":
        return KINDS[kind].format(i=i)
    kinds = [k for k in KINDS if k != "short"]
    return KINDS[kinds[int(str(i).strip("abcdefghijklmnopqrstuvwxyz")) % len(kinds)]].format(i=i)


@dataclass(frozen=True)
class Shape:
    """How many of what a table has, and what is missing in it."""

    datasets: int = 3
    kind: str = "short"
    protocols: int = 1
    settings: tuple[str, ...] = ("normal",)
    models: int = 1
    layers: int = 2
    positions: int = 1
    methods: int = 2
    saes: int = 0
    ks: tuple[int, ...] = (1, 16)
    seeds: int = 1
    baselines: bool = True
    labels: tuple[str, ...] = ("binary",)  # label kinds, of which the datasets have one in turn
    classes: int = 0  # one-versus-rest labels of each dataset
    missing: frozenset[str] = field(default_factory=frozenset)
    seed: int = 0


SHAPES = st.builds(
    Shape,
    datasets=st.sampled_from([1, 2, 3, 9, 45, 130]),
    kind=st.sampled_from(["mixed", *sorted(KINDS)]),
    protocols=st.integers(1, 3),
    settings=st.lists(st.sampled_from(sorted(CONDITIONS)), min_size=1, max_size=4, unique=True).map(
        tuple
    ),
    models=st.integers(1, 3),
    layers=st.sampled_from([0, 1, 2, 7, 40]),
    positions=st.integers(1, 2),
    methods=st.integers(1, len(METHODS)),
    saes=st.sampled_from([0, 0, 1, 2, 8]),
    ks=st.sampled_from([(1,), (1, 16, 128)]),
    seeds=st.integers(1, 2),
    baselines=st.sampled_from([True, True, True, False]),
    labels=st.sampled_from(
        [("binary",), ("continuous",), ("multiclass",), ("continuous", "binary", "multiclass")]
    ),
    classes=st.sampled_from([0, 0, 0, 3]),
    missing=st.frozensets(
        st.sampled_from(
            [
                "unseen",
                "val",
                "interval",
                "leak",
                "some",
                "dataset",
                "method",
                "converged",
                "counts",
            ]
        )
    ),
    seed=st.integers(0, 9),
)
MOST_PLACES, MOST_ROWS = 8, 400  # a comparison of every probe takes its time


def table(shape: Shape) -> pd.DataFrame:
    """The tidy table of a shape; of very large ones some rows at random."""
    rng = np.random.default_rng(shape.seed)
    datasets = [name(shape.kind, i) for i in range(shape.datasets)]
    models = ["tiny"]
    if shape.models > 1:
        models = [name(shape.kind, f"m{i}") for i in range(shape.models)]
    sites = [f"resid_post.{i}" for i in range(shape.layers)] or ["", "embed", "mlp_out.1"]
    places = list(
        product(
            [f"protocol_{i}" for i in range(shape.protocols)],
            [(s, c) for s in shape.settings for c in CONDITIONS[s]],
            models,
            sites,
            ["mean", "span.the_answer"][: shape.positions],
        )
    )
    if len(places) > MOST_PLACES:
        places = [places[i] for i in sorted(rng.choice(len(places), MOST_PLACES, replace=False))]
    places = [(*place, seed) for place in places for seed in range(shape.seeds)]
    probes = [(None, m, None) for m in METHODS[: shape.methods] if shape.baselines]
    probes += [
        (name(shape.kind, f"s{i}"), "ksparse_b", k) for i in range(shape.saes) for k in shape.ks
    ]
    if not probes:
        probes = [("only", "ksparse_b", 4)]
    every = list(product(datasets, places, probes))
    if len(every) > MOST_ROWS and shape.datasets < 1000:
        every = [every[i] for i in sorted(rng.choice(len(every), MOST_ROWS, replace=False))]
    rows = pd.DataFrame([_row(*one, rng) for one in every])
    rows = _of_classes(_of_kinds(rows, shape), shape)
    return results.tidy(_without(rows, shape, rng).assign(experiment="e"))


def _row(dataset, place, probe, rng) -> dict:  # type: ignore[no-untyped-def]
    protocol, (setting, condition), model, site, position, seed = place
    source, method, k = probe
    auc = float(np.round(rng.beta(6, 2), 3))
    return {
        "dataset": dataset, "label": "", "kind": "binary", "metric": "auc", "chance": 0.5,
        "model": model, "site": site, "position": position, "protocol": protocol,
        "source": source or f"{model}/{site}.{position}", "setting": setting, "condition": condition,
        "method": method, "k": k, "seed": seed, "n_train": 100, "n_test": 30, "n_unused": 0,
        "val_score": round(min(1.0, auc + 0.02), 2), "test_score": auc, "test_auc": auc,
        "test_acc": auc, "test_f1": auc,
        "ci_low": max(0.0, auc - 0.1), "ci_high": min(1.0, auc + 0.1),
        "converged": bool(rng.random() < 0.9), "leak_fraction": float(np.round(rng.random() / 2, 2)),
        "test_score_unseen": max(0.0, auc - 0.1 * rng.random()), "reason": "", "params": "{}",
        "key": "0123456789ab", "group_fraction": None,
    }  # fmt: skip


def _of_kinds(rows: pd.DataFrame, shape: Shape) -> pd.DataFrame:
    """The rows with the label kinds of the shape: those of continuous labels have R² down to -5."""
    turn = pd.factorize(rows["dataset"])[0] % len(shape.labels)
    kind = pd.Series(shape.labels, dtype="object").iloc[turn].to_numpy()
    rows = rows.assign(kind=kind, test_r2=np.nan)
    values = rows["kind"] == "continuous"
    scores = ["val_score", "test_score", "ci_low", "ci_high", "test_score_unseen"]
    rows.loc[values, scores] = 6 * rows.loc[values, scores] - 5
    rows.loc[values, "test_r2"] = rows.loc[values, "test_score"]
    rows.loc[values, ["test_auc", "test_acc", "test_f1"]] = np.nan
    rows.loc[values, "metric"] = "r2"
    return rows


def _of_classes(rows: pd.DataFrame, shape: Shape) -> pd.DataFrame:
    """The rows of two classes once for each one-versus-rest label of their dataset."""
    binary = rows["kind"] == "binary"
    if not shape.classes or not binary.any():
        return rows
    rows = rows.head(max(MOST_ROWS // shape.classes, 1))
    binary = rows["kind"] == "binary"
    labels = [name(shape.kind, f"c{i}") for i in range(shape.classes)]
    every = [rows[binary].assign(label=label) for label in labels]
    return pd.concat([rows[~binary], *every], ignore_index=True)


def _without(rows: pd.DataFrame, shape: Shape, rng) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """The rows with what the shape calls missing taken out."""
    gone = {
        "unseen": ["test_score_unseen"],
        "val": ["val_score"],
        "interval": ["ci_low", "ci_high"],
        "leak": ["leak_fraction"],
        "converged": ["converged"],
        "counts": ["n_train", "n_test", "n_unused"],
    }
    lost = pd.Series(False, rows.index)
    if "some" in shape.missing:
        lost |= rng.random(len(rows)) < 0.3
    if "dataset" in shape.missing:  # the first dataset has no number at all
        lost |= rows["dataset"] == rows["dataset"].iloc[0]
    if "method" in shape.missing:
        lost |= rows["method"] == rows["method"].iloc[0]
    for name, columns in gone.items():
        if name in shape.missing:
            rows = rows.assign(**dict.fromkeys(columns, None))
    numbers = ["val_score", "test_score", "test_auc", "test_acc", "test_f1", "ci_low", "ci_high"]
    numbers += ["test_score_unseen"]
    rows.loc[lost, numbers] = np.nan
    rows.loc[lost, "reason"] = "=one class <only> in the test rows"
    return rows
