"""Token activations of many datasets as shuffled batches, without holding them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from actprobe import models
from actprobe.base.errors import BadInput
from actprobe.sae.sizes import POOL

_RUN = 256  # neighbouring tokens that are read in one go


class Tokens:
    """Tokens of several artefacts with position `tokens`, one after the other.

    spans: int64 [m, 3], which tokens: (artefact, first, one after the last); n: how many.
    """

    def __init__(self, files: Sequence[models.Activations], spans: NDArray[np.int64]):
        self._files, self._spans = files, spans
        self._ends = np.cumsum(spans[:, 2] - spans[:, 1])
        self.n, self.d = int(self._ends[-1]), int(files[0].shape[1])

    def read(self, low: int, high: int) -> NDArray[np.float32]:
        """Tokens low..high as float32 [high - low, d]. Raises BadInput for one not finite."""
        found = []
        first, last = np.searchsorted(self._ends, [low, high - 1], side="right").tolist()
        for i in range(first, last + 1):
            file, begin, end = self._spans[i].tolist()
            before = int(self._ends[i]) - (end - begin)
            a, b = begin + max(low - before, 0), begin + min(high - before, end - begin)
            x = self._files[file][a:b]
            bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
            if len(bad):
                raise BadInput(
                    f"{self._files[file].x.file.filename}: token {a + bad[0]} is not finite"
                )
            found.append(x)
        return np.concatenate(found)


@contextlib.contextmanager
def opened(
    paths: Sequence[str],
    holdout: float,
    seed: int,
    keep: Sequence[NDArray[np.bool_]] = (),
) -> Iterator[tuple[Tokens, Tokens]]:
    """Tokens to train on and tokens held out: a share of the rows of each dataset, at least one.

    keep: for each dataset the rows that may be used [N]; all where it is empty. Raises BadInput when a
    dataset has fewer than two rows, or for another width than the first.
    """
    rng = np.random.default_rng(seed)
    train, held = [], []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(models.open_activations(p)) for p in paths]
        for i, (path, file) in enumerate(zip(paths, files, strict=True)):
            assert file.offsets is not None
            n = len(file.offsets) - 1
            if n < 2 or file.shape[1] != files[0].shape[1]:
                raise BadInput(
                    f"{path}: {n} rows of width {file.shape[1]}; training holds some rows out and "
                    f"needs at least two, of width {files[0].shape[1]}"
                )
            kept = keep[i] if keep else np.ones(n, bool)
            rows = np.flatnonzero(kept)
            out = np.zeros(n, bool)
            if len(rows) > 1:
                share = min(max(1, round(holdout * len(rows))), len(rows) - 1)
                out[rows[rng.choice(len(rows), share, replace=False)]] = True
            held.append(_spans(i, file.offsets, out))
            train.append(_spans(i, file.offsets, kept & ~out))
        yield Tokens(files, np.concatenate(train)), Tokens(files, np.concatenate(held))


def _spans(file: int, offsets: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Tokens of the chosen rows; neighbouring rows are one span."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    begin, end = offsets[edges[::2]], offsets[edges[1::2]]
    return np.stack([np.full(len(begin), file), begin, end], axis=1)[end > begin]


def pools(tokens: Tokens, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Float32 [up to POOL, d] again and again: each epoch all tokens once, in random order."""
    starts = np.arange(0, tokens.n, _RUN)
    while True:
        order = rng.permutation(starts)
        for low in range(0, len(order), POOL // _RUN):
            runs = order[low : low + POOL // _RUN].tolist()
            pool = np.concatenate([tokens.read(a, min(a + _RUN, tokens.n)) for a in runs])
            yield pool[rng.permutation(len(pool))]


def batches(tokens: Tokens, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Float32 [size, d] without end."""
    left = np.empty((0, tokens.d), np.float32)
    for pool in pools(tokens, rng):
        pool = np.concatenate([left, pool])
        whole = len(pool) // size * size
        for low in range(0, whole, size):
            yield pool[low : low + size]
        left = pool[whole:]


def sample(tokens: Tokens, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Up to n tokens, in runs from random places, float32 [m, d]."""
    starts = rng.permutation(np.arange(0, tokens.n, _RUN))[: -(-n // _RUN)]
    runs = [tokens.read(a, min(a + _RUN, tokens.n)) for a in sorted(starts.tolist())]
    return np.concatenate(runs)[:n]
