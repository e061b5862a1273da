"""Positions: which tokens of a row become its vector, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actprobe.base.errors import BadInput
from actprobe.models import said
from actprobe.models.records import Position, Span
from actprobe.models.tokens import Tokens


@dataclass(frozen=True)
class Reduction:
    """How a position reduces [tokens, d] of a row.

    kind: "pick" (one token), "mean", "max", "tokens" (all kept ones) or "norms" (their L2 norms).
    index: int64 [N], the token within its row, for "pick"; keep: bool [T], the tokens that count,
    for the others. edges: rows of a span with an edge inside a token.
    """

    kind: str
    index: np.ndarray | None = None
    keep: np.ndarray | None = None
    edges: int = 0

    @property
    def read(self) -> np.ndarray:
        """`index` or `keep`, whichever there is."""
        found = self.keep if self.index is None else self.index
        assert found is not None
        return found


def plan_reduction(
    tokens: Tokens,
    position: Position,
    mask: Mask,
    texts: Sequence[str],
    names: Sequence[str],
    parts: np.ndarray | None = None,
) -> Reduction:
    """What a position means on these rows.

    position: as in the spec, a name or a span. mask: what mean, max and tokens leave out.
    parts: characters that each row's label is of, int [N, 2], where rows are parts.
    Raises BadInput naming a row in which nothing is left.
    """
    n = tokens.lengths
    if position == "last":
        return Reduction("pick", n - 1)
    if position == "first":
        return Reduction("pick", np.zeros_like(n))
    if isinstance(position, Span):
        return _span(tokens, position, mask, texts, names, parts)
    if position.startswith("token."):
        k = int(position.removeprefix("token."))
        index = np.full_like(n, k) if k >= 0 else n + k
        _require((index >= 0) & (index < n), names, f"has no token {k}", n)
        return Reduction("pick", index)
    keep = mask.on(tokens)
    _require(_counts(tokens, keep) > 0, names, f"has no tokens besides {mask}", n)
    return Reduction(position, keep=keep)


@dataclass(frozen=True)
class Mask:
    """What mean, max and tokens leave out: special and template tokens, and the first position."""

    special: bool
    first: bool

    def on(self, tokens: Tokens) -> np.ndarray:
        """The tokens that count, bool [T]."""
        keep = tokens.content.copy() if self.special else np.ones_like(tokens.content)
        if self.first:
            keep[tokens.offsets[:-1]] = False
        return keep

    def __str__(self) -> str:
        left_out = {
            "special ones (exclude_special: false keeps them)": self.special,
            "the first (exclude_first: false keeps it)": self.first,
        }
        return " and ".join(what for what, yes in left_out.items() if yes)


def _span(
    tokens: Tokens,
    span: Span,
    mask: Mask,
    texts: Sequence[str],
    names: Sequence[str],
    parts: np.ndarray | None,
) -> Reduction:
    """The tokens of a span, reduced."""
    if span.said:
        keep, n_split = said.tokens(tokens, span), 0
        what = f"has no token of {said.words(span)} (nothing is, or it was cut off)"
    elif span.labelled:
        if parts is None:
            raise BadInput(
                "the labels are of whole rows, and a position takes the part that a label is of; set "
                "`rows: true` in `spans` or `turns` of the dataset"
            )
        keep, n_split = _within(tokens, parts, texts, partly=True)
        what = "has no token of the part that its label is of (it was cut off, or says nothing)"
    else:
        keep, n_split = _within(tokens, _chars(span, texts, names), texts, partly=False)
        what = "has no token that begins in the span (it lies inside one, or was cut off)"
    _require(_counts(tokens, keep) > 0, names, what, None)
    if span.reduce in ("mean", "max"):
        keep &= mask.on(tokens)
        what = f"has no tokens in the span besides {mask}"
        _require(_counts(tokens, keep) > 0, names, what, None)
        return Reduction(span.reduce, keep=keep, edges=n_split)
    where = np.flatnonzero(keep)
    row = np.searchsorted(tokens.offsets, where, side="right") - 1
    index = np.zeros(len(names), np.int64)
    ordered = slice(None, None, -1) if span.reduce == "first" else slice(None)
    index[row[ordered]] = (where - tokens.offsets[row])[ordered]  # the last assignment stays
    if span.reduce == "after":
        index += 1
        _require(index < tokens.lengths, names, "has no token after the span", None)
    return Reduction("pick", index, edges=n_split)


def _within(
    tokens: Tokens, edges: np.ndarray, texts: Sequence[str], partly: bool
) -> tuple[np.ndarray, int]:
    """Tokens that begin inside a span of characters, bool [T], and rows with an edge inside one.

    edges: of each row, int [N, 2]; partly: take those too that begin before it and end in it. The white
    space that a tokenizer puts before a word belongs to the word: "yes" is the first token in
    "Answer: yes" that begins behind "Answer: ", though " yes" may be one token.
    """
    assert tokens.chars is not None
    begin, end = _words(tokens, texts)
    low, high = np.repeat(edges, tokens.lengths, axis=0).T
    keep = (begin < high) & (begin < end) & (low < end if partly else low <= begin)
    split = [(begin < edge) & (edge < end) for edge in (low, high)]
    return keep, int((_counts(tokens, split[0] | split[1]) > 0).sum())


def _words(tokens: Tokens, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last character of each token, int64 [T], without white space around it.

    A token of white space alone is left as it is.
    """
    assert tokens.chars is not None
    lengths = np.array([len(t) for t in texts], np.int64)
    base = np.repeat(np.cumsum(lengths) - lengths, tokens.lengths)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    blank = np.isin(codes, np.array([c for c in np.unique(codes) if chr(c).isspace()], "<u4"))
    at, n = np.arange(len(codes)), len(codes)
    following = np.minimum.accumulate(np.where(blank, n, at)[::-1])[::-1]  # next that is not blank
    before = np.maximum.accumulate(np.where(blank, -1, at))  # the last one that is not
    begin, end = tokens.chars.astype(np.int64).T
    some = end > begin
    trimmed_begin, trimmed_end = begin.copy(), end.copy()
    trimmed_begin[some] = following[(base + begin)[some]] - base[some]
    trimmed_end[some] = before[(base + end - 1)[some]] + 1 - base[some]
    word = some & (trimmed_begin < end) & (trimmed_end > begin)
    return np.where(word, trimmed_begin, begin), np.where(word, trimmed_end, end)


def _chars(span: Span, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """First and past-the-last character of the span in each text, int64 [N, 2]."""
    if span.chars is not None:
        start, end = span.chars
        bounds = [slice(start, end).indices(len(t))[:2] for t in texts]
        return np.array(bounds, np.int64).reshape(-1, 2)
    assert span.marker is not None
    marker = span.marker
    find = str.rfind if span.occurrence == "last" else str.find
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
    """A reduction cut to the rows of one batch, on the model's device.

    at: [r], where in the batch each row is read; None: row k is its k-th. index: [r], the token taken of
    each row; or keep: [r, longest], with dropped, the indices of its False among all r x longest tokens.
    """

    kind: str
    at: torch.Tensor | None
    index: torch.Tensor | None
    keep: torch.Tensor | None
    dropped: torch.Tensor | None

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """[b, longest, d] to [r, d]; to [kept tokens, d] for "tokens", without d for "norms".

        Means are summed in float32 and returned in it; everything else keeps the model's dtype.
        """
        if self.index is not None:
            at = torch.arange(len(h), device=h.device) if self.at is None else self.at.to(h.device)
            return h[at, self.index.to(h.device)]
        assert self.keep is not None and self.dropped is not None
        keep = self.keep.to(h.device)
        if self.at is None:
            return self._reduced(h, keep, self.dropped.to(h.device))
        found = []  # in parts, so that no more is in memory than one batch
        for at, kept in zip(self.at.to(h.device).split(len(h)), keep.split(len(h)), strict=True):
            found.append(self._reduced(h[at], kept, (~kept).flatten().nonzero()[:, 0]))
        return torch.cat(found)

    def _reduced(self, h: torch.Tensor, keep: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        if self.kind == "tokens":
            return h[keep]
        if self.kind == "norms":
            return torch.linalg.vector_norm(h, dim=-1, dtype=torch.float32)[keep]
        # The next layer reads h; filling a copy by index takes a third of `masked_fill`'s time.
        h = h.clone(memory_format=torch.contiguous_format)
        fill = -torch.inf if self.kind == "max" else 0
        h.view(-1, h.shape[-1]).index_fill_(0, dropped, fill)
        if self.kind == "max":
            return h.amax(dim=1)
        total = h.sum(dim=1, dtype=torch.float32)
        return total / keep.sum(dim=1, dtype=torch.float32)[:, None]


def for_batch(
    r: Reduction,
    tokens: Tokens,
    rows: Sequence[int],
    device: torch.device,
    carriers: Sequence[int] | None = None,
) -> BatchReduction:
    """The reduction of the given rows in a right-padded batch.

    carriers: the rows of the batch that each is read in; None where these are the rows themselves.
    """
    at, batch = None, list(rows)
    if carriers is not None and list(carriers) != batch:
        place = {c: k for k, c in enumerate(dict.fromkeys(carriers))}
        at, batch = torch.tensor([place[c] for c in carriers], device=device), list(place)
    if r.index is not None:
        return BatchReduction(r.kind, at, torch.from_numpy(r.index[rows]).to(device), None, None)
    assert r.keep is not None
    keep = np.zeros((len(rows), int(tokens.lengths[batch].max())), bool)
    for k, i in enumerate(rows):
        kept = r.keep[tokens.row(i)]
        keep[k, : len(kept)] = kept
    dropped = torch.from_numpy(np.flatnonzero(~keep)).to(device)
    return BatchReduction(r.kind, at, None, torch.from_numpy(keep).to(device), dropped)
