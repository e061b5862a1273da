"""What a probe reads: labels and text digests, activations, SAE latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import sae
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.probes import projections, splits, tokens
from actprobe.probes.kinds import BINARY, CONTINUOUS, kind_of
from actprobe.probes.splits import Rows

_BLOCK = 1 << 25  # bytes of activations that are read at a time


@dataclass(frozen=True)
class Labels:
    """Labelled rows of a texts artefact, in dataset order.

    row: their places in the dataset; y: 0/1 labels, class numbers, or values; digest: of each text;
    component: rows with the same text, group or pair share one; group: rows with the same group or
    pair share one, None where the dataset has neither; group_name: names of the groups, or None; split:
    the dataset's own split, or None; pair: names of the pairs, or None. All [n]. classes: names by
    number, () of values; n_rows: rows of the dataset; n_unused: labelled rows that were left out; kind:
    of the label; answers: whether the rows are pairs of answers, whose classes have no own names.
    """

    row: Rows
    y: NDArray[Any]
    digest: NDArray[Any]
    component: Rows
    group: Rows | None
    group_name: NDArray[Any] | None
    split: NDArray[Any] | None
    classes: tuple[str, ...]
    n_rows: int
    n_unused: int = 0
    kind: str = BINARY
    pair: NDArray[Any] | None = None
    answers: bool = False

    def __len__(self) -> int:
        return len(self.y)

    def against_rest(self, number: int) -> Labels:
        """The same rows with two classes: one of the present ones, and all others."""
        name = self.classes[number]
        y = (self.y == number).astype(np.int64)
        return replace(self, y=y, classes=(f"not {name}", name), kind=BINARY)

    def keep(self, most: int, kept: str, seed: int) -> Labels:
        """At most `most` of these rows, in dataset order.

        kept: "first" takes what stands among the dataset's first rows, "drawn" takes any by `seed`.
        """
        if kept == "first":
            chosen = np.flatnonzero(self.row < most)
        elif len(self) <= most:
            chosen = np.arange(len(self))
        else:
            rng = np.random.RandomState([seed, most])
            chosen = np.sort(rng.choice(len(self), most, replace=False))
        return replace(self.at(chosen), n_unused=len(self) - len(chosen))

    def at(self, chosen: Rows) -> Labels:
        """These of the rows, in this order."""
        return replace(
            self,
            row=self.row[chosen],
            y=self.y[chosen],
            digest=self.digest[chosen],
            component=self.component[chosen],
            group=None if self.group is None else self.group[chosen],
            group_name=None if self.group_name is None else self.group_name[chosen],
            split=None if self.split is None else self.split[chosen],
            pair=None if self.pair is None else self.pair[chosen],
        )


@lru_cache(maxsize=32)
def labels(path: str) -> Labels:
    """Read a texts artefact. Raises BadInput for a tombstone or a dataset without labels."""
    header = store.read_header(path)
    facts, kind = header["facts"], kind_of(header["facts"])
    label = "value" if kind == CONTINUOUS else "label"
    table = store.read_table(path, [label, "group", "split", "pair", "digest"])
    row = np.flatnonzero(table[label].is_valid().to_numpy())
    if not len(row):
        raise BadInput(f"{path}: no row has a label; probes need labels")
    digest = table["digest"].to_numpy(zero_copy_only=False)[row]
    group, split, pair = (
        table[c].to_numpy(zero_copy_only=False)[row] if table[c].null_count < len(table) else None
        for c in ("group", "split", "pair")
    )
    named = [names for names in (group, pair) if names is not None]
    y = table[label].to_numpy(zero_copy_only=False)[row]
    return Labels(
        row,
        y.astype(np.float64 if kind == CONTINUOUS else np.int64),
        digest.astype("S64"),
        splits.components(digest, *named),
        splits.components(*named) if named else None,
        group,
        split,
        tuple(facts["classes"]),
        len(table),
        kind=kind,
        pair=pair,
        answers="answers" in facts,
    )


def texts(path: str) -> NDArray[Any]:
    """The texts of a dataset, object array [N]."""
    return store.read_table(path, ["text"])["text"].to_numpy(zero_copy_only=False)


def read_dense(path: str) -> NDArray[np.float32]:
    """`x` [N, d] of an activations artefact. Raises BadInput when a value is not finite."""
    with store.open_h5(path) as f:
        stored, (n, d) = f["x"], f["x"].shape
        as_bits = stored.attrs.get("dtype") == "bfloat16"
        x = np.empty((n, d), np.float32)
        rows = max(1, _BLOCK // (4 * d))
        finite = np.empty(n, bool)
        for first in range(0, n, rows):
            block = slice(first, first + rows)
            values = stored[block]
            x[block] = (values.astype(np.uint32) << 16).view(np.float32) if as_bits else values
            finite[block] = np.isfinite(x[block]).all(axis=1)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise BadInput(f"{path}: {len(bad)} rows are not finite, first row {bad[0]}")
    return x


def matrix(path: str, method: Mapping[str, Any], setting: Mapping[str, Any]) -> Any:
    """What a method reads: float32 activations [N, d], `sae.Latents`, `tokens.Ragged`, float64 means
    over tokens [N, d], or texts [N]."""
    match method["reads"]:
        case "texts":
            return texts(path)
        case "pooled":
            return projections.pooled(path)
        case "latents":
            return sae.open_latents(path)
        case "token_latents":
            return sae.open_pooled(path, method["pool"], setting["max_tokens"])
        case "tokens":
            return tokens.read_tokens(path)
    return read_dense(path)
