"""Positions: which tokens of a row become its vector, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actprobe.errors import BadInput
from actprobe.models.tokens import Tokens


@dataclass(frozen=True)
class Reduction:
    """How a position reduces [tokens, d] of a row.

    kind: "pick" (one token), "mean", "max" or "tokens" (all kept ones). index: int64 [N], the token
    within its row, for "pick"; keep: bool [T], the tokens that count, for the others.
    """

    kind: str
    index: np.ndarray | None = None
    keep: np.ndarray | None = None


def plan_reduction(
    tokens: Tokens, position: Any, exclude_special: bool, texts: Sequence[str], names: Sequence[str]
) -> Reduction:
    """What a position means on these rows.

    position: as in the spec, a name or {"span": {...}}. exclude_special: keep only content tokens
    for mean, max and tokens. Raises BadInput naming a row that has no such token.
    """
    n = tokens.lengths
    if position == "last":
        return Reduction("pick", n - 1)
    if position == "first":
        return Reduction("pick", np.zeros_like(n))
    if isinstance(position, Mapping):
        span = position["span"]
        return _span(tokens, _chars(span, texts, names), span["reduce"], names)
    if position.startswith("token."):
        k = int(position.removeprefix("token."))
        index = np.full_like(n, k) if k >= 0 else n + k
        _require((index >= 0) & (index < n), names, f"has no token {k}", n)
        return Reduction("pick", index)
    keep = tokens.content if exclude_special else np.ones_like(tokens.content)
    _require(_counts(tokens, keep) > 0, names, "has no tokens besides special ones", n)
    return Reduction(position, keep=keep)


def _span(tokens: Tokens, chars: np.ndarray, reduce: str, names: Sequence[str]) -> Reduction:
    """Tokens that overlap characters chars[i] = (start, end) of their row's text."""
    assert tokens.chars is not None
    start, end = np.repeat(chars, tokens.lengths, axis=0).T
    low, high = np.maximum(tokens.chars[:, 0], start), np.minimum(tokens.chars[:, 1], end)
    keep = high > low
    _require(_counts(tokens, keep) > 0, names, "has no token in the span (cut off?)", None)
    if reduce in ("mean", "max"):
        return Reduction(reduce, keep=keep)
    where = np.flatnonzero(keep)
    row = np.searchsorted(tokens.offsets, where, side="right") - 1
    index = np.zeros(len(chars), np.int64)
    ordered = slice(None) if reduce == "last" else slice(None, None, -1)
    index[row[ordered]] = (where - tokens.offsets[row])[ordered]  # the last assignment stays
    return Reduction("pick", index)


def _chars(span: Mapping[str, Any], texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """First and past-the-last character of the span in each text, int64 [N, 2]."""
    if "chars" in span:
        start, end = span["chars"]
        bounds = [slice(start, end).indices(len(t))[:2] for t in texts]
        return np.array(bounds, np.int64).reshape(-1, 2)
    marker = span["marker"]
    find = str.rfind if span["occurrence"] == "last" else str.find
    at = np.array([find(t, marker) for t in texts], np.int64)
    _require(at >= 0, names, f"does not contain the marker {marker!r}", None)
    return np.stack([at, at + len(marker)], axis=1)


def _counts(tokens: Tokens, keep: np.ndarray) -> np.ndarray:
    return np.add.reduceat(keep.astype(np.int64), tokens.offsets[:-1])


def _require(good: np.ndarray, names: Sequence[str], what: str, lengths: np.ndarray | None) -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        length = f" (it has {lengths[bad[0]]})" if lengths is not None else ""
        raise BadInput(f"row {names[bad[0]]!r} {what}{length}; {len(bad)} such rows")


@dataclass(frozen=True)
class BatchReduction:
    """A reduction cut to one batch, on the model's device.

    index: [b], the token taken of each row; or keep: [b, longest], with dropped, the indices of its
    False among all b x longest tokens.
    """

    kind: str
    index: torch.Tensor | None
    keep: torch.Tensor | None
    dropped: torch.Tensor | None

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """[b, longest, d] to [b, d], or to [kept tokens, d] for "tokens".

        Means are summed in float32 and returned in it; everything else keeps the model's dtype.
        """
        if self.index is not None:
            return h[torch.arange(len(h), device=h.device), self.index.to(h.device)]
        assert self.keep is not None and self.dropped is not None
        keep = self.keep.to(h.device)
        if self.kind == "tokens":
            return h[keep]
        # The next layer reads h; filling a copy by index takes a third of `masked_fill`'s time.
        h = h.clone(memory_format=torch.contiguous_format)
        fill = -torch.inf if self.kind == "max" else 0
        h.view(-1, h.shape[-1]).index_fill_(0, self.dropped.to(h.device), fill)
        if self.kind == "max":
            return h.amax(dim=1)
        total = h.sum(dim=1, dtype=torch.float32)
        return total / keep.sum(dim=1, dtype=torch.float32)[:, None]


def for_batch(
    r: Reduction, tokens: Tokens, rows: Sequence[int], device: torch.device
) -> BatchReduction:
    """The reduction of the given rows in a right-padded batch."""
    if r.index is not None:
        return BatchReduction(r.kind, torch.from_numpy(r.index[rows]).to(device), None, None)
    assert r.keep is not None
    keep = np.zeros((len(rows), int(tokens.lengths[rows].max())), bool)
    for k, i in enumerate(rows):
        kept = r.keep[tokens.row(i)]
        keep[k, : len(kept)] = kept
    dropped = torch.from_numpy(np.flatnonzero(~keep))
    return BatchReduction(r.kind, None, torch.from_numpy(keep).to(device), dropped.to(device))
