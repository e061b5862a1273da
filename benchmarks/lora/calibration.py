"""How often the claims of the LoRA page are wrong on collections without any signal.

    python benchmarks/lora/calibration.py [--collections 100] [--loras 120] [--classes 2]

Every collection has random features and random labels: 20 representations, 24 single modules and a
recipe of four entries, probed as `lora-1` does (5 splits, ridge; the recipe by a tree, too).
The true accuracy of any classifier is 1/classes: an interval above it is a false claim (nominal: at
most 2.5 of 100), one that does not hold it is a miss (nominal: 5 of 100).
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import pandas as pd

from actprobe import results
from actprobe.probes import fit, fits, protocol
from actprobe.probes.feature_targets import EACH
from actprobe.probes.sources import labelled
from actprobe.probes.sources.features import Features
from actprobe.results import features as told
from actprobe.results.seeds import interval

REPRESENTATIONS, MODULES, WIDTH = 20, 24, 12
LORA = protocol.load("lora-1")


def features(x: np.ndarray, ids: np.ndarray) -> Features:
    """Features x [n, p] of n LoRAs with one unit."""
    n, p = x.shape
    mask = np.ones((n, 1), bool)
    return Features(x.astype(np.float32), np.zeros(p, int), ["m"], mask, ids, np.zeros(p, bool))


def runs(rng: np.random.Generator, n: int, classes: int) -> pd.DataFrame:
    """The runs of one collection without signal."""
    y = rng.permutation(np.arange(n) % classes)
    ids = np.array([f"l{i}" for i in range(n)], object)
    said = [{"label": str(c)} for c in y]
    labels = labelled._labels(np.arange(n), ids, said, dict(zip(ids, ids, strict=True)), n)

    def probed(x: np.ndarray, source: str, method: str = "ridge", **cell: str) -> list[dict]:
        place = {"experiment": "null", "setting": "normal", "protocol": "lora-1", "dataset": "null",
                 "source": f"null/{source}", "columns": "*", "site": "", "method": method,
                 "metric": "acc", "kind": labels.kind} | cell  # fmt: skip
        recipe = protocol.recipe(LORA, "normal", method)
        of = fits.Source(labels, features(x, ids))
        return list(fit._task_rows(of, None, recipe, place, ""))

    rows = []
    for r in range(REPRESENTATIONS):
        rows += probed(rng.normal(size=(n, WIDTH)), f"r{r}")
    for m in range(MODULES):
        rows += probed(rng.normal(size=(n, WIDTH)), "r0", columns=EACH, site=f"m{m}")
    recipe = rng.integers(0, 3, (n, 4)).astype(float)
    for method in ("ridge", protocol.CONTROL):
        rows += probed(recipe, "recipe_only", method)
    return results.tidy(pd.DataFrame(rows))


def uncorrected(runs: pd.DataFrame) -> tuple[float, float]:
    """The interval of one cell as if it were the only one that is looked at."""
    return interval(runs["test_score"].to_numpy(), (runs["n_test"] / runs["n_train"]).mean())


def claims(found: pd.DataFrame, chance: float) -> dict[str, float]:
    """What is said of one collection: 1 where it is wrong, and by how much."""
    summary = told.summarise(found)
    read = summary[(summary["columns"] == "*") & ~told.is_control(summary)]
    each, recipe = summary[summary["columns"] == EACH], summary[told.is_control(summary)]
    best = read.loc[read["val_score"].idxmax()]
    (choice,) = told.choices(found).to_dict("records")
    alone = {
        name: max(
            uncorrected(f)[0] for _, f in found[found["columns"].eq(c) & found["source"].eq(s)]
            .groupby(["site", "method"])
        )
        for name, c, s in (("module", EACH, "null/r0"), ("recipe", "*", "null/recipe_only"))
    }  # fmt: skip
    return {
        "a single cell: above": (read["ci_low"] > chance).mean(),
        "a single cell: missed": ((read["ci_low"] > chance) | (read["ci_high"] < chance)).mean(),
        "best by mean validation: above": best["ci_low"] > chance,
        "best by mean validation: bias": best["test_score"] - chance,
        "choice of every run: above": choice["ci_low"] > chance,
        "choice of every run: bias": choice["test_score"] - chance,
        "some module, its own interval: above": alone["module"] > chance,
        "some module, simultaneous: above": (each["ci_low"] > chance).any(),
        "recipe, its own interval: above": alone["recipe"] > chance,
        "recipe, simultaneous: above": (recipe["ci_low"] > chance).any(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Claims of the LoRA page on null collections.")
    parser.add_argument("--collections", type=int, default=100)
    parser.add_argument("--loras", type=int, default=120)
    parser.add_argument("--classes", type=int, default=2)
    args = parser.parse_args()
    rng, found = np.random.default_rng(0), defaultdict(list)
    for _ in range(args.collections):
        for name, value in claims(runs(rng, args.loras, args.classes), 1 / args.classes).items():
            found[name].append(float(value))
    print(f"{args.collections} collections of {args.loras} LoRAs in {args.classes} classes")
    for name, values in found.items():
        print(f"{name:38}{100 * np.mean(values):6.1f} %")


if __name__ == "__main__":
    main()
