"""On which rows an SAE is trained, and which tested rows it has seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import models
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.probes import tested
from actprobe.sae.records import TrainTarget

log = logging.getLogger(__name__)

TEXTS = "trained_texts"  # array of a trained SAE: the first 64 bits of the digests of its texts
LEAST = 0.1  # share of the tokens below which untested rows are too few to train on alone


@dataclass(frozen=True)
class Rows:
    """The rows of each dataset that train [N], the digests of their texts (uint64, ascending), and
    what the artefact says of them."""

    keep: list[NDArray[np.bool_]]
    texts: NDArray[np.uint64]
    facts: dict[str, Any]


def chosen(t: TrainTarget) -> Rows:
    """The rows that train the SAE of a target: those whose texts no probe of it tests, or all where
    the config says so or the untested ones hold too few tokens.

    Raises BadInput for a dataset that cannot be used, or whose texts are not those of its tokens.
    """
    lengths = [_lengths(path) for path in t.args.tokens]
    texts = [_digests(p) if p else None for p in t.args.texts]
    for path, n, digest in zip(t.args.tokens, lengths, texts, strict=True):
        if digest is not None and len(digest) != len(n):
            raise BadInput(f"{path}: {len(n)} rows of tokens, its dataset has {len(digest)} texts")
    tests = zip(t.args.texts, t.args.tests, texts, strict=True)
    seen = [d[tested.rows(p, of)] for p, of, d in tests if of and p is not None and d is not None]
    out = np.unique(np.concatenate(seen)) if seen else np.empty(0, np.uint64)
    keep = [
        np.ones(len(n), bool) if digest is None else ~np.isin(digest, out)
        for n, digest in zip(lengths, texts, strict=True)
    ]
    share = sum(int(n[k].sum()) for n, k in zip(lengths, keep, strict=True)) / max(
        1, sum(int(n.sum()) for n in lengths)
    )
    rows = t.spec.train.rows
    if share < LEAST:
        log.warning(
            "%s: rows that no probe tests hold %.1f %% of the tokens: too few, so it is trained on "
            "all rows, tested ones too; other datasets to train on: saes.%s.train.datasets",
            t.loader, 100 * share, t.loader,
        )  # fmt: skip
        keep, rows = [np.ones(len(n), bool) for n in lengths], "all"
    digests = [d[k] for d, k in zip(texts, keep, strict=True) if d is not None]
    return Rows(
        keep,
        np.unique(np.concatenate(digests)) if digests else np.empty(0, np.uint64),
        {
            "rows": rows,
            "rows_used": sum(int(k.sum()) for k in keep),
            "rows_there": sum(len(n) for n in lengths),
        },
    )


def _lengths(path: str) -> NDArray[np.int64]:
    """Tokens of each row of a tokens artefact [N]."""
    with models.open_activations(path) as a:
        assert a.offsets is not None
        return np.diff(a.offsets)


def _digests(texts: str) -> NDArray[np.uint64]:
    """The first 64 bits of the digest of each text [N]."""
    column = store.read_table(texts, ["digest"])["digest"].to_pylist()
    return np.array([int(d[:16], 16) for d in column], np.uint64)


def seen(artefact: str, texts: str, tests: Sequence[tested.Test]) -> float | None:
    """Share of the rows that these tests test on whose text a trained SAE has seen.

    artefact: of the SAE; texts: of the dataset. None where nothing is tested.
    """
    rows = tested.rows(texts, tests)
    if not rows.any():
        return None
    with store.open_h5(artefact) as f:
        if TEXTS not in f:
            return None
        trained = f[TEXTS][:]
    return float(np.isin(_digests(texts)[rows], trained).mean())
