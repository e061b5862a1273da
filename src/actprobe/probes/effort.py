"""How long fits of features will take: operations over measured rates, known while the plan is made.

Right within a factor of about three where a collection has the modules that are guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

_CLASSES = 10
_PER_MODEL = 600  # bytes of a kept fit beside its rows and weights
_PER_ROW = 12.0  # of a row of it: place, label, score, some of a second score
_PER_FIT = 0.05  # CPU s of reading, scaling and scoring
# Operations in a CPU second of one thread, float32.
_LINEAR, _PRODUCT, _NETWORK, _SORTED = 1e10, 5e10, 3e10, 1e8
_PASSES, _EPOCHS = 100, 50  # of a solver over all C; of an early-stopped network


def seconds(recipe: Mapping[str, Any], n: int, width: int, parts: int = 1) -> float:
    """CPU seconds of all runs of a recipe on n rows with `width` columns, cut into so many parts that
    are fitted by themselves."""
    rule, fits, width = recipe["method"], len(recipe["seeds"]) * parts, width // parts
    match rule["family"]:
        case "ridge_path":
            m = min(n, width)
            one = (2 * n * width * m + 10 * m**3) / _PRODUCT
        case "tree":
            one = len(rule["depth"]) * n * width * math.log2(n + 2) / _SORTED
        case "stopped_mlp":
            weights = sum(a * b for a, b in pairwise([width, *rule["hidden"]]))
            one = 6 * _EPOCHS * n * weights / _NETWORK
        case _:
            one = 4 * _PASSES * n * width * _CLASSES / _LINEAR
    return fits * (_PER_FIT + one)


def fits(recipe: Mapping[str, Any]) -> int:
    """Rows of a file: seeds, conditions and numbers of latents."""
    conditions = len(recipe["setting"].get("values", [0]))
    return len(recipe["seeds"]) * conditions * len(recipe["method"].get("ks", [0]))


def kept_bytes(recipe: Mapping[str, Any], n: float, width: float, parts: int = 1) -> float:
    """Bytes on disk of what the fits of a recipe keep, on n rows of `width` numbers.

    Of each row its place, label and score, of train rows a second score; of a model its weights. Trees
    and layers are guessed.
    """
    rule, most = recipe["method"], n
    if recipe["rows"] != "all":
        most = min(n, recipe["setting"].get("rows", recipe["rows"]["most"]))
    weights = 8.0 * width / parts
    if "ks" in rule:
        weights = 16.0 * sum(rule["ks"]) / len(rule["ks"])
    match rule["family"]:
        case "xgboost":
            weights += 400_000
        case "mlp" | "stopped_mlp":
            weights *= rule.get("hidden", [32])[0]
        case "knn":
            weights = 16.0 * width
        case _ if rule["reads"] == "tokens":
            weights *= 2 if rule["family"] == "attention" else recipe["setting"]["max_tokens"]
    return fits(recipe) * parts * (_PER_MODEL + _PER_ROW * most + weights)
