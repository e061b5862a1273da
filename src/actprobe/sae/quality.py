"""How well latents reconstruct their input, on a sample of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from scipy.sparse._sparsetools import csr_matvecs

from actprobe.sae.architectures import normalisation
from actprobe.sae.assemble import Window
from actprobe.sae.sizes import MASSIVE
from actprobe.sae.weights import Matrix, Weights

SAMPLE = 1000  # rows of a dataset that are reconstructed
ENTRIES = 1 << 22  # codes of sampled rows held at a time
_ROWS = 1 << 14  # most rows reconstructed at a time, where W_dec is read in several blocks
_STRIP = 512  # the same where it is read in one
_LINES = 1 << 27  # bytes of a decoder held at a time that has its latents last
_Z = 1.96  # normal quantile of a 95 % interval

Floats = NDArray[np.float32]


def sample(n: int) -> NDArray[np.int64]:
    """Up to SAMPLE of n rows, ascending: all, or one at random out of each of SAMPLE equal parts.

    Rows at equal distances could all be first tokens, or none of them.
    """
    if n <= SAMPLE:
        return np.arange(n)
    edges = np.arange(SAMPLE + 1) * n // SAMPLE
    inside = np.random.RandomState(0).random_sample(SAMPLE) * np.diff(edges)
    return edges[:-1] + inside.astype(np.int64)


def pick(w: Window, rows: NDArray[np.int64], d_sae: int) -> tuple[slice, csr_array]:
    """Which of the rows (ascending) are in the window, and their latents, CSR."""
    low, high = np.searchsorted(rows, [w.first, w.first + len(w.lengths)])
    ends = np.concatenate([[0], np.cumsum(w.lengths)])
    whole = csr_array((w.values, w.latents, ends), (len(w.lengths), d_sae))
    return slice(int(low), int(high)), whole[rows[low:high] - w.first]


@dataclass
class Sampled:
    """The sampled rows of one dataset.

    x: activations [m, d_in]; of: rows of the dataset; error: squared error of each row's
    reconstruction [m].
    """

    x: Floats
    of: int
    error: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.error = np.zeros(len(self.x))

    def facts(self) -> dict[str, Any]:
        """Share of variance explained over all sampled rows, and over those without a massive
        activation (norm above MASSIVE times the median; Sun et al. 2024, arXiv 2402.17762)."""
        norm = np.sqrt(_squares(self.x))
        massive = norm > MASSIVE * np.median(norm)
        share, low, high = self._explained(np.ones(len(norm), bool))
        found = {
            "variance_explained": share, "variance_explained_low": low,
            "variance_explained_high": high, "sample": len(norm), "massive": int(massive.sum()),
        }  # fmt: skip
        share, low, high = self._explained(~massive) if massive.any() else (share, low, high)
        return found | {
            "ordinary_explained": share, "ordinary_explained_low": low,
            "ordinary_explained_high": high,
        }  # fmt: skip

    def _explained(
        self, chosen: NDArray[np.bool_]
    ) -> tuple[float | None, float | None, float | None]:
        """1 - sum |x - x_hat|² / sum |x - mean x|², over rows, and its 95 % interval.

        None where the rows are all equal; no interval where the sample is the whole dataset. The
        interval is the jackknife's of a ratio of sums over rows drawn at random, with the correction
        for a finite population (Cochran 1977, sections 6.4 and 6.17); that the rows lie apart, one in
        each part of the dataset, makes it no narrower. Six significant digits.
        """
        x, error = self.x[chosen], self.error[chosen]
        mean = x.mean(axis=0, dtype=np.float64) if len(x) else 0.0
        spread = _squares(x - np.asarray(mean, np.float32))
        total = spread.sum()
        if not total > 0:
            return None, None, None
        ratio = error.sum() / total
        if not np.isfinite(ratio):
            return None, None, None
        n, left = len(x), 1 - len(self.x) / self.of
        if left <= 0 or n < 2:
            return _six(1 - ratio), None, None
        without = (error - ratio * spread) / (1 - np.minimum(spread / total, 0.999))
        without -= without.mean()
        half = _Z * np.sqrt(left * (n - 1) / n * np.sum(without**2)) / total
        return _six(1 - ratio), _six(1 - ratio - half), _six(1 - ratio + half)


class Reconstruction:
    """Reconstructs sampled rows of several datasets, many at a time: W_dec is read once for all
    that are held together.

    norms: by which latents were multiplied (rescaled or folded), or None; block: decoder rows held
    at a time; rows: sampled rows that there is memory for.
    """

    def __init__(self, weights: Weights, norms: Floats | None, block: int, rows: int):
        self._weights, self._norms, self._block = weights, norms, block
        self._rows = min(rows, _ROWS)
        self._waiting: list[tuple[Sampled, slice, csr_array]] = []

    def add(self, sampled: Sampled, at: slice, z: csr_array) -> None:
        """Latents z of the rows `at` of a sample."""
        if z.shape[0] == 0:
            return
        self._waiting.append((sampled, at, z))
        if sum(part.nnz for _, _, part in self._waiting) >= ENTRIES:
            self.finish()

    def finish(self) -> None:
        """Reconstruct what waits; the errors stand in its samples then."""
        if not self._waiting:
            return
        z = vstack([part for _, _, part in self._waiting], format="csr")
        if self._norms is not None:
            values = z.data / np.maximum(self._norms[z.indices], np.float32(1e-8))
            z = csr_array((values, z.indices, z.indptr), z.shape)
        x = [s.x[at] for s, at, _ in self._waiting]
        error = np.concatenate(list(self._errors(z, x)))
        ends = np.cumsum([len(part) for part in x])[:-1]
        for (s, at, _), part in zip(self._waiting, np.split(error, ends), strict=True):
            s.error[at] = part
        self._waiting = []

    def _errors(self, z: csr_array, x: Sequence[Floats]) -> Iterator[NDArray[np.float64]]:
        """Squared errors of the rows of z, some at a time; x: their activations, in pieces."""
        decoder, ends = self._weights.decoder, np.cumsum([0, *map(len, x)])
        blocks = _blocks(np.flatnonzero(np.bincount(z.indices, minlength=decoder.n)), self._block)
        kept = None
        if decoder.latents_first and len(blocks) == 1:  # read once, whatever the number of rows
            kept = _read(decoder, blocks[0])
            z = _columns(z, kept[0])
        step = self._rows if kept is None else _STRIP
        for low in range(0, z.shape[0], step):
            high = min(low + step, z.shape[0])
            first, last = np.searchsorted(ends, [low, high - 1], "right").tolist()
            pieces = [
                x[i - 1][max(low - ends[i - 1], 0) : high - ends[i - 1]]
                for i in range(first, last + 1)
            ]
            rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            part = z[low:high]
            out = part @ kept[1] if kept else _decode(part, decoder, blocks)
            _undo(out, rows, self._weights)
            out -= rows
            yield _squares(out)


def _undo(out: Floats, x: Floats, weights: Weights) -> None:
    """From z·W_dec to the input that it stands for, in place.

    x: the activations that were encoded: run-time normalisation is undone with them.
    """
    sae = weights.sae
    if sae.input_scale != 1:
        out /= np.float32(sae.input_scale)
    if sae.decoder_bias:
        out += weights.b_dec * np.float32(sae.bias_scale)
    if sae.normalize != "none" or sae.center:
        center, scale = normalisation(x, sae)
        if sae.normalize == "layer_norm":
            scale = scale - np.float32(1e-5)  # the way back is without the epsilon, as in SAELens
        out *= scale
        out += center


def _blocks(active: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Active latents (ascending), cut where more than `most` lie between first and last."""
    found = []
    while len(active):
        n = int(np.searchsorted(active, active[0] + most))
        found.append(active[:n])
        active = active[n:]
    return found


def _read(decoder: Matrix, latents: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Decoder rows [m, d] of these latents and perhaps of those between them, and which they are.

    What is returned may be a buffer that the next call fills again.
    """
    first, last = int(latents[0]), int(latents[-1]) + 1
    if 2 * len(latents) > last - first:  # in one go, and without a copy
        return np.arange(first, last), decoder.block(first, last).T
    return latents, decoder.rows(latents)


def _decode(z: csr_array, decoder: Matrix, blocks: Sequence[NDArray[np.int64]]) -> Floats:
    """z [n, F] times W_dec, float32 [n, d]; blocks: the latents that fire."""
    out = np.zeros((z.shape[0], decoder.d), np.float32)
    if decoder.latents_first:
        for latents in blocks:
            chosen, w = _read(decoder, latents)
            _add_product(out, _columns(z, chosen), w)
    elif blocks:
        active = np.concatenate(blocks)
        part, step = _columns(z, active), max(1, _LINES // (4 * decoder.n))
        for low in range(0, decoder.d, step):
            high = min(low + step, decoder.d)
            out[:, low:high] = part @ np.ascontiguousarray(decoder.lines(low, high)[:, active].T)
    return out


def _columns(z: csr_array, chosen: NDArray[np.int64]) -> csr_array:
    """The chosen columns (ascending) of a CSR array."""
    place = np.full(z.shape[1], -1, np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    column = place[z.indices]
    kept = column >= 0
    if kept.all():
        return csr_array((z.data, column, z.indptr), (z.shape[0], len(chosen)))
    ends = np.concatenate([[0], np.cumsum(kept)])[z.indptr]
    return csr_array((z.data[kept], column[kept], ends), (z.shape[0], len(chosen)))


def _add_product(out: Floats, z: csr_array, w: Floats) -> None:
    """Add z [n, m] times w [m, d] to out [n, d], latent by latent: sums do not depend on how W_dec is
    cut into blocks, which follows from memory and from the other datasets."""
    indices, indptr = z.indices.astype(np.int64), z.indptr.astype(np.int64)
    csr_matvecs(*z.shape, w.shape[1], indptr, indices, z.data, w.ravel(), out.ravel())


def _squares(x: Floats) -> NDArray[np.float64]:
    """Squared norm of each row."""
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", x, x).astype(np.float64)
    return squares


def _six(value: float | np.floating) -> float:
    return float(f"{value:.6g}")
