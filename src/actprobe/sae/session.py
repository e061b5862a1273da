"""An SAE open for encoding, and the datasets that go through it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprobe import models
from actprobe.base.errors import BadInput
from actprobe.config import Config
from actprobe.config.saes import SAE
from actprobe.sae import checks
from actprobe.sae.architectures import Rule, check_folding, rule
from actprobe.sae.blame import blaming
from actprobe.sae.engine import Engine, engine
from actprobe.sae.pieces import Pieces
from actprobe.sae.records import LatentTarget
from actprobe.sae.sources import open_place, require_unchanged
from actprobe.sae.weights import Weights

log = logging.getLogger(__name__)


@dataclass
class Work:
    """One dataset on its way through the SAE: the n rows of its activations, and their tiles."""

    target: LatentTarget
    n: int
    pieces: Pieces
    usable: bool = True


@dataclass(frozen=True)
class Session:
    """An open SAE with everything that encoding needs."""

    name: str
    settings: SAE
    weights: Weights
    rule: Rule
    b_dec: NDArray[np.float32] | None
    engine: Engine

    @property
    def d_sae(self) -> int:
        return self.weights.sae.d_sae


@contextlib.contextmanager
def opened(name: str, t: LatentTarget, config: Config) -> Iterator[Session]:
    """Open the SAE of these targets. Raises BadInput naming what is wrong with it.

    An SAE that could not be looked at while planning is compared with the site here (ConfigError).
    """
    settings = config.saes[name]
    with blaming(f"saes.{name}"):
        sae = open_place(t.args.sae)
        if not settings.train:  # one trained here belongs to them by its key
            checks.require_match(name, sae, config, t.args.extracted)
        fold = settings.fold_decoder_norm
        if fold:
            check_folding(sae)
        weights = Weights(sae)
    with weights:
        require_unchanged(name, config, t.spec.sae)
        with blaming(f"saes.{name}"):
            norms = weights.decoder_norms() if fold or sae.rescale != "none" else None
            b_dec = weights.vector("b_dec") if sae.subtract_b_dec else None
            how = rule(sae, weights.vector, norms, fold)
        device = engine(settings.device, settings.product)
        yield Session(name, settings, weights, how, b_dec, device)
        read = weights.bytes_read()
        log.info("%s: %.2f GB of %s read", name, sum(read.values()) / 1e9, ", ".join(read))


def activations(path: str, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32 [n, d_in] of some rows; heads are flattened. Raises BadInput for one not finite."""
    with models.open_activations(path) as a:
        x = a[rows]
    x = x.reshape(len(x), -1)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        places = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        raise BadInput(f"{path}: row {places[bad[0]]} is not finite")
    return x
