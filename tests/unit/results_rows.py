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
                        "val_auc": min(auc + 0.01, 1.0),
                        "test_auc": auc,
                        "test_acc": auc - 0.05,
                        "test_f1": auc - 0.06,
                        "ci_low": auc - 0.015,
                        "ci_high": min(auc + 0.012, 1.0),
                        "converged": not (i == 2 and layer == 5),
                        "leak_fraction": i / 200,
                        "group_fraction": None,
                        "test_auc_unseen": auc - 0.002 * i / n_datasets,
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
            source="sae_16k", method="ksparse_b", k=k, test_auc=lambda r: r["test_auc"] - 0.02
        )
        for k in (1, 16, 128)
    ]
    rows = pd.concat([base, *sparse])
    few = [rows.assign(setting="scarcity", condition=c) for c in ("16", "1024")]
    return tidy(pd.concat([rows, *few]).assign(experiment="e"))
