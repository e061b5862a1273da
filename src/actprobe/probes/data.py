"""What a probe reads: labels and text digests, activations, SAE latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import sae, store
from actprobe.errors import BadInput
from actprobe.probes import splits, tokens
from actprobe.probes.splits import Rows


@dataclass(frozen=True)
class Labels:
    """Labelled rows of a texts artefact, in dataset order.

    row: their places in the dataset; y: 0/1 labels; digest: of each text; component: rows with the
    same text or group share one; split: the dataset's own split, or None. All [n].
    """

    row: Rows
    y: NDArray[np.int64]
    digest: NDArray[Any]
    component: Rows
    split: NDArray[Any] | None
    classes: tuple[str, ...]
    n_rows: int

    def __len__(self) -> int:
        return len(self.y)

    def head(self, n: int) -> Labels:
        """The labels of the dataset's first n rows."""
        kept = self.row < n
        split = self.split[kept] if self.split is not None else None
        own = (self.row[kept], self.y[kept], self.digest[kept], self.component[kept])
        return Labels(*own, split, self.classes, self.n_rows)


@lru_cache(maxsize=32)
def labels(path: str) -> Labels:
    """Read a texts artefact. Raises BadInput for a tombstone or a dataset without labels."""
    table = store.read_table(path, ["label", "group", "split", "digest"])
    row = np.flatnonzero(table["label"].is_valid().to_numpy())
    if not len(row):
        raise BadInput(f"{path}: no row has a label; probes need labels")
    digest, group, split = (
        table[c].to_numpy(zero_copy_only=False)[row] for c in ("digest", "group", "split")
    )
    return Labels(
        row,
        table["label"].to_numpy(zero_copy_only=False)[row].astype(np.int64),
        digest.astype("S64"),
        splits.components(digest, group if table["group"].null_count < len(table) else None),
        split if table["split"].null_count < len(table) else None,
        tuple(store.read_header(path)["facts"]["classes"]),
        len(table),
    )


def read_dense(path: str) -> NDArray[np.float32]:
    """`x` [N, d] of an activations artefact. Raises BadInput when a value is not finite."""
    with store.open_h5(path) as f:
        x = f["x"][:]
        if f["x"].attrs.get("dtype") == "bfloat16":
            x = (x.astype(np.uint32) << 16).view(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise BadInput(f"{path}: {len(bad)} rows are not finite, first row {bad[0]}")
    return x


def matrix(path: str, method: Mapping[str, Any], setting: Mapping[str, Any]) -> Any:
    """What a method reads: float32 activations [N, d], `sae.Latents` or `tokens.Ragged`."""
    match method["reads"]:
        case "latents":
            return sae.open_latents(path)
        case "token_latents":
            return sae.open_pooled(path, method["pool"], setting["max_tokens"])
        case "tokens":
            return tokens.read_tokens(path)
    return read_dense(path)
