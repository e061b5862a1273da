"""The job that trains classifiers on representations, with the controls beside them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from actprobe import keys, store
from actprobe.errors import BadInput
from actprobe.jobs import Outcome
from actprobe.lora import (
    classes,
    classifiers,
    collection,
    controls,
    index,
    metrics,
    protocol,
    splits,
)
from actprobe.lora import labels as reading
from actprobe.lora.catalog import EVERY_LAYER
from actprobe.lora.features import Features, load
from actprobe.lora.scaling import standardise
from actprobe.plan import Batch, Target

log = logging.getLogger(__name__)

_TEXT = ("dataset", "model", "site", "position", "source", "protocol", "setting", "condition")
_NUMBERS = (
    "val_auc", "test_auc", "test_acc", "test_f1", "ci_low", "ci_high", "test_precision",
    "test_recall", "val_acc", "train_acc", "chance",
)  # fmt: skip
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*_TEXT, "method")),
        *((name, pa.int32()) for name in ("k", "seed", "n_train", "n_test")),
        *((name, pa.float64()) for name in _NUMBERS),
        ("converged", pa.bool_()),
        ("leak_fraction", pa.float64()),
        ("n_columns", pa.int32()),
        ("n_constant", pa.int32()),
        ("n_repeated", pa.int32()),
        *(
            (name, pa.string())
            for name in ("outliers", "classes", "confusion", "reason", "params", "key")
        ),
    ]
)
_FAR_OUT = 0.5  # share of its values that must be cut for a LoRA to be named as an outlier
_MOST_NAMED = 20
Rows = NDArray[np.int64]


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch, one thread: jobs run side by side instead."""
    with Outcome(batch, config["on_bad_dataset"], _tombstone) as out, threadpool_limits(1):
        for n, t in enumerate(sorted(batch.targets, key=lambda t: t.item), 1):
            with out.guard(t):
                out.done(t, _make(t, config))
                log.info("%d of %d: %s", n, len(batch.targets), t.name)


def _tombstone(path: str, spec: dict[str, Any], reason: str) -> Path:
    return store.write_table(path, SCHEMA.empty_table(), spec, bad=reason)


def _make(t: Target, config: Mapping[str, Any]) -> Path:
    args = t.args
    how = protocol.load(args["protocol"])
    recipe = keys.spec_key(protocol.recipe(how, args["method"]))
    keys.require_unchanged(recipe, t.spec["recipe"], f"protocol {args['protocol']}")
    found = features(args, config["max_memory"] // 4)
    data = _Labelled(found, labels(t, config), args["min_per_class"], how["split"])
    rows: list[dict[str, Any]] = []
    if args["subset"] == EVERY_LAYER:
        modules = sorted({u.partition(":")[0] for u in found.units})
        for m in modules:
            chosen = np.array([u.partition(":")[0] == m for u in found.units])[found.unit]
            rows += data.probe(chosen, how, t.args["method"], {"site": m})
    else:
        rows += data.probe(np.ones(len(found.unit), bool), how, t.args["method"], {"site": ""})
    shared = {
        "dataset": args["collection"],
        "model": "",
        "position": "",
        "source": args["representation"],
        "protocol": how["name"],
        "setting": args["probes"],
        "condition": args["subset"],
        "method": args["method"],
        "key": t.key,
    }
    table = pa.Table.from_pylist([r | shared for r in rows], SCHEMA)
    return store.write_table(t.path, table, t.spec)


def features(args: Mapping[str, Any], max_bytes: int) -> Features:
    """The features of a target: parts side by side.

    The control recipe_only leaves out ignored metadata, and LoRAs whose weights cannot be used; it
    has the joint values of what is left.
    """
    parts: list[Features] = []
    for p in args["features"]:
        parts.append(load(p, args["layers"], max_bytes - sum(x.x.nbytes for x in parts)))
    first = parts[0]
    x = first.x if len(parts) == 1 else np.concatenate([p.x for p in parts], axis=1)
    unit = np.concatenate([p.unit for p in parts])
    flag = np.concatenate([p.flag for p in parts])
    if args["representation"] != "recipe_only":
        return Features(x, unit, first.units, first.mask, first.id, flag)
    entries = store.read_header(args["features"][0])["facts"]["entries"]
    kept = np.array([e not in args["ignored"] for e in entries])
    rows = np.isin(first.id.astype(str), load(args["usable"]).id.astype(str))
    x = x[rows][:, kept]
    cells = controls.joint(x)
    return Features(
        np.column_stack([x, cells]),
        np.zeros(x.shape[1] + cells.shape[1], np.int64),
        first.units,
        first.mask[rows],
        first.id[rows],
        np.concatenate([flag[kept], np.zeros(cells.shape[1], np.uint8)]),
    )


def labels(t: Target, config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Label, group and split by id of the LoRA, for the columns that the target reads."""
    name, columns = t.args["collection"], t.args["columns"]
    options, found = config["loras"][name], index.load(t.args["index"])
    said = reading.read(name, options, columns, found)
    if not options.get("tables"):
        rows = {id: list(row.values()) for id, row in said.items()}
        digest = collection.labels_digest([k for k, c in columns.items() if c], rows, found["id"])
        keys.require_unchanged(digest, t.spec["labels"], options["labels"])
    return said


class _Labelled:
    """Features whose LoRAs have a label: what the fits of one target share."""

    def __init__(
        self,
        found: Features,
        labels: Mapping[str, Mapping[str, str]],
        least: int | None,
        rule: Mapping[str, Any],
    ):
        usable = [labels[i] for i in found.id if labels.get(i, {}).get("label")]
        if not usable:
            raise BadInput("none of the LoRAs has a label")
        if why := classes.problem(usable, least, rule):
            raise BadInput(f"of the LoRAs that can be used, {why}")
        small = classes.smaller(usable, least).keys() | {""}
        known = np.array([labels.get(i, {}).get("label", "") not in small for i in found.id], bool)
        self.x = found.x if known.all() else found.x[known]  # it may be gigabytes
        self.mask, self.unit, self.id = found.mask[known], found.unit, found.id[known]
        self.repeated = found.flag == 2
        rows = [labels[i] for i in found.id[known]]
        self.classes, self.y = np.unique([r["label"] for r in rows], return_inverse=True)
        self.group = self.split = None
        if "group" in rows[0]:  # a LoRA without a group is one of its own
            self.group = np.array([r["group"] or f"\0{i}" for i, r in enumerate(rows)])
        if "split" in rows[0]:
            self.split = np.array([r["split"] for r in rows])

    def probe(
        self, chosen: NDArray[np.bool_], how: Mapping[str, Any], method: str, extra: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """One result row per seed, from the chosen columns."""
        for seed in how["seeds"]:
            row = {"seed": seed, "reason": "", "params": "{}", **extra}
            try:
                row |= self._fit(chosen, how, method, seed)
            except BadInput as e:
                row["reason"] = str(e)
            yield row

    def _fit(
        self, chosen: NDArray[np.bool_], how: Mapping[str, Any], method: str, seed: int
    ) -> dict[str, Any]:
        train, validation, test = splits.draw(self.y, self.group, self.split, how["split"], seed)
        if len(np.unique(self.y[train])) < len(self.classes):
            raise BadInput("a class has no training row")
        x = self.x[:, chosen]
        constant, cut = standardise(x, self.mask, self.unit[chosen], train, how["constant"])
        sides = [(x[r], self.y[r]) for r in (train, validation, test)]
        del x
        fitted = _FAMILIES[how["methods"][method]["family"]](
            *sides[0], *sides[1], how["methods"][method], seed
        )
        scores = fitted.scores(sides[2][0])
        values, confusion = metrics.evaluate(self.y[test], scores, len(self.classes))
        majority = np.bincount(self.y[train]).argmax()
        return {
            **{k: None if math.isnan(v) else v for k, v in values.items()},
            "n_train": len(train) + len(validation),
            "n_test": len(test),
            "train_acc": classifiers.accuracy(fitted.scores(sides[0][0]), sides[0][1]),
            "val_acc": classifiers.accuracy(fitted.scores(sides[1][0]), sides[1][1]),
            "val_auc": _or_none(metrics.auc(sides[1][1], fitted.scores(sides[1][0]))),
            "chance": float((self.y[test] == majority).mean()),
            "converged": fitted.converged,
            "leak_fraction": self._leak(np.concatenate([train, validation]), test),
            "n_columns": int(chosen.sum()),
            "n_constant": constant,
            "n_repeated": int(self.repeated[chosen].sum()),
            "outliers": json.dumps(self.id[cut >= _FAR_OUT].tolist()[:_MOST_NAMED]),
            "classes": json.dumps(self.classes.tolist()),
            "confusion": json.dumps(confusion.tolist(), separators=(",", ":")),
            "params": json.dumps(fitted.params, sort_keys=True),
        }

    def _leak(self, train: Rows, test: Rows) -> float | None:
        """Share of test LoRAs whose group also trains; None without groups."""
        if self.group is None:
            return None
        return float(np.isin(self.group[test], self.group[train]).mean())


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mlp(*args: Any) -> classifiers.Fitted:
    from actprobe.lora.mlp import mlp

    return mlp(*args)


_FAMILIES: dict[str, Callable[..., classifiers.Fitted]] = {
    "logreg": classifiers.logreg,
    "ridge": classifiers.ridge,
    "svm": classifiers.svm,
    "tree": classifiers.tree,
    "mlp": _mlp,
}
