"""What a probe worker needs, from the shape of what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import h5py

from actprobe import lora
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.plan import Target
from actprobe.probes import protocol
from actprobe.probes.evaluations import EvaluationArgs
from actprobe.probes.records import FeatureArgs
from actprobe.probes.search import TEST_BYTES

_BASE = 300 * 10**6  # one worker before it reads anything
_ENTRIES, _PER_ENTRY = 1 << 22, 44  # entries that `sae.Latents` works on at a time, bytes of each
_FEATURE_COPIES = 4  # float32: as read, joined, scaled, and what a solver makes of them
_TRAIN_COPIES = 4  # float64: the train rows, prepared, those of a fold, the solver's


def needed(t: Target) -> int:
    """Bytes that a worker takes at most for a target; a little where its input is not there."""
    if isinstance(t.args, EvaluationArgs):
        recipe = protocol.recipe(protocol.load(t.args.protocol), t.args.setting, t.args.method)
        read = [t.args.matrix] if t.args.matrix else []
        read += [t.args.train_matrix] if t.args.train_matrix in t.inputs else []
        return _BASE + sum(_matrix(_shapes(path), recipe) for path in read)
    if isinstance(t.args, FeatureArgs):
        return _BASE + _features(t.args)
    recipe = protocol.recipe(protocol.load(t.args.protocol), t.spec.setting, t.spec.method)
    matrices = filter(None, (t.args.matrix, t.args.test_matrix, t.args.compare_matrix))
    return _BASE + sum(_matrix(_shapes(path), recipe) for path in matrices)


def require(todo: list[Target], max_memory: int) -> int:
    """The most that one of these targets needs. Raises ActprobeError when that is over max_memory."""
    found = {t.path: needed(t) for t in todo}
    over = [t for t in todo if found[t.path] > max_memory]
    if over:
        worst = max(over, key=lambda t: found[t.path])
        raise ActprobeError(
            f"{len(over)} of {len(todo)} probe files need more memory than `max_memory` "
            f"({max_memory / 1e6:,.0f} MB); {worst.name} needs about {found[worst.path] / 1e6:,.0f} "
            f"MB: write `max_memory: {-(-found[worst.path] // 10**8) * 100}MB`"
        )
    return max(found.values(), default=_BASE)


def _features(args: FeatureArgs) -> int:
    """The chosen columns, and a copy that is scaled (of one module at a time where each is fitted)."""
    whole = 4 * sum(_chosen(path, args.patterns) for path in args.features)
    return _FEATURE_COPIES * whole


@lru_cache(maxsize=4096)
def _chosen(path: str, patterns: tuple[str, ...]) -> int:
    """Numbers in the columns of a features artefact whose modules match; 0 where it is not there."""
    try:
        facts, shape = store.read_header(path)["facts"], _shapes(path).get("x", (0, 0))
    except (ActprobeError, OSError):
        return 0
    units = zip(facts.get("units", ()), facts.get("widths", ()), strict=True)
    return shape[0] * sum(w for u, w in units if lora.matches(u.partition(":")[0], patterns))


def _matrix(shapes: Mapping[str, tuple[int, ...]], recipe: Mapping[str, Any]) -> int:
    method = recipe["method"]
    match method["reads"]:
        case "pooled" if "x" in shapes:
            n, d = shapes.get("n_tokens", shapes["x"])[0], shapes["x"][1]
            return 4 * 8 * n * d + (1 << 28)
        case "activations" if "x" in shapes:
            n, d = shapes["x"]
            train = min(n, recipe["split"].get("n_train", n))
            tested = 4 * n * d + 2 * min(8 * n * d, TEST_BYTES)
            return 4 * n * d + tested + _TRAIN_COPIES * 8 * train * d
        case "latents" if "data" in shapes:
            n, entries = shapes["indptr"][0] - 1, shapes["data"][0]
            dense = 8 * n * method["ks"][-1] * (_TRAIN_COPIES + recipe["validation"]["folds"])
            return 8 * (entries + n) + _PER_ENTRY * min(entries, _ENTRIES) + dense
        case "tokens" if "x" in shapes:
            n, d = shapes["x"]
            return 3 * 4 * n * d
        case "token_latents" if "data" in shapes:
            return 6 * 8 * shapes["data"][0]
    return 0


@lru_cache(maxsize=4096)
def _shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in a file, for an estimate; none of one that is not there or has none, or
    that is damaged: whoever reads it says so."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            return {k: f[k].shape for k in ("x", "n_tokens", "data", "indptr") if k in f}
    except (OSError, KeyError, ValueError, RuntimeError):  # what h5py raises for damage
        return {}
