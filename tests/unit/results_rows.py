"""Synthetic probe results for the tests of the results room."""

from __future__ import annotations

import numpy as np
import pandas as pd

from actprobe.results import tidy

NAMES = ["5_hist_fig_ismale", "66_living-room", "87_glue_cola", "131_temp_cat_Typical Time"]


def fake_rows(n_datasets: int = 12, layers: int = 6, seed: int = 0) -> pd.DataFrame:
    """Raw rows as probe artefacts hold them: logreg on all layers, five methods on layer 3."""
    rng = np.random.default_rng(seed)
    names = [NAMES[i] if i < len(NAMES) else f"{100 + i}_dataset" for i in range(n_datasets)]
    rows = []
    for i, dataset in enumerate(names):
        base = rng.uniform(0.6, 0.97)
        for layer in range(layers):
            methods = ["logreg", "pca", "knn", "xgboost", "mlp"] if layer == 3 else ["logreg"]
            for m, method in enumerate(methods):
                auc = min(base + 0.02 * layer - 0.004 * m + rng.normal(0, 0.01), 0.999)
                rows.append(
                    {
                        "dataset": dataset,
                        "label": "",
                        "model": "minilm",
                        "site": f"resid_post.{layer}",
                        "position": "mean",
                        "source": f"minilm/resid_post.{layer}.mean",
                        "protocol": "saeprobes-0.4.2",
                        "setting": "normal",
                        "condition": "",
                        "method": method,
                        "k": None,
                        "seed": 42,
                        "n_train": 1024,
                        "n_test": 500 + i,
                        "n_unused": 0,
                        "kind": "binary",
                        "metric": "auc",
                        "val_score": min(auc + 0.01, 1.0),
                        "test_score": auc,
                        "test_auc": auc,
                        "test_acc": auc - 0.05,
                        "test_f1": auc - 0.06,
                        "ci_low": auc - 0.015,
                        "ci_high": min(auc + 0.012, 1.0),
                        "converged": not (i == 2 and layer == 5),
                        "leak_fraction": i % 200 / 200,
                        "group_fraction": None,
                        "test_score_unseen": auc - 0.002 * i / n_datasets,
                        "chance": 0.5,
                        "test_brier": (1 - auc) / 2,
                        "test_ece": (1 - auc) / 3,
                        "reason": "",
                        "params": '{"C":1.0}',
                        "key": f"{i:032x}{layer:016x}{m:016x}",
                    }
                )
    return pd.DataFrame(rows)


def with_saes(n_datasets: int = 6) -> pd.DataFrame:
    """Tidy table: baselines of one layer and one SAE's probes that are 0.02 worse, two settings."""
    base = fake_rows(n_datasets, 4)
    base = base[base["site"] == "resid_post.3"]
    sparse = [
        base[base["method"] == "logreg"].assign(
            source="sae_16k", method="ksparse_b", k=k, test_score=lambda r: r["test_score"] - 0.02
        )
        for k in (1, 16, 128)
    ]
    rows = pd.concat([base, *sparse])
    few = [rows.assign(setting="scarcity", condition=c) for c in ("16", "1024")]
    return tidy(pd.concat([rows, *few]).assign(experiment="e"))


def continuous(n_datasets: int = 12, layers: int = 6) -> pd.DataFrame:
    """Raw rows of continuous labels, with R² from below zero to near one."""
    rows = fake_rows(n_datasets, layers, seed=1)
    names = ["year_of_a_headline", "length_of_a_text", *(f"{i}_rating" for i in range(n_datasets))]
    renamed = dict(zip(rows["dataset"].unique(), names, strict=False))
    methods = {"logreg": "ridge", "pca": "pca", "knn": "knn", "xgboost": "xgboost", "mlp": "mlp"}
    r2 = 3.2 * rows["test_score"] - 2.2
    numbers = {
        "val_score": np.minimum(r2 + 0.01, 1), "test_score": r2, "ci_low": r2 - 0.05,
        "ci_high": np.minimum(r2 + 0.05, 1), "test_score_unseen": r2 - 0.01, "chance": None,
        "test_r2": r2, "test_spearman": np.sqrt(np.clip(r2, 0, 1)), "test_rmse": 12 * np.sqrt(1 - r2),
    }  # fmt: skip
    gone = ["test_auc", "test_acc", "test_f1", "test_brier", "test_ece"]
    return rows.drop(columns=gone).assign(
        kind="continuous", metric="r2", dataset=rows["dataset"].map(renamed),
        method=rows["method"].map(methods), **numbers,
    )  # fmt: skip


def multiclass(n_datasets: int = 4, layers: int = 3) -> pd.DataFrame:
    """Raw rows of labels of several classes."""
    rows = fake_rows(n_datasets, layers, seed=2).drop(columns=["test_brier", "test_ece"])
    acc = rows["test_acc"]
    own = {"test_balanced_acc": acc - 0.02, "test_macro_f1": acc - 0.03, "test_top5": acc + 0.03}
    return rows.assign(kind="multiclass", dataset="many_" + rows["dataset"], chance=0.2, **own)


def one_versus_rest(n_labels: int = 10, layers: int = 2) -> pd.DataFrame:
    """Raw rows of one dataset with a binary task for each of its classes."""
    rows = fake_rows(n_labels, layers, seed=3)
    labels = {d: f"class {i}" for i, d in enumerate(rows["dataset"].unique())}
    return rows.assign(label=rows["dataset"].map(labels), dataset="genres")
