"""The saes stage: SAEs that have to be made before they can encode, by training or conversion."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from actprobe.base.errors import BadInput, ConfigError
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.config import Config
from actprobe.sae import rows, stream, training
from actprobe.sae.artefact import facts_of
from actprobe.sae.blame import blaming
from actprobe.sae.checkpoint import Checkpoint
from actprobe.sae.convert import convert
from actprobe.sae.formats import Sae
from actprobe.sae.records import SaeTarget, TrainTarget, is_trained
from actprobe.sae.sizes import FIRST, HELD, training_bytes
from actprobe.sae.sources import open_place, require_unchanged

log = logging.getLogger(__name__)


def make(batch: Batch, config: Config, threads: int) -> None:
    """Make all targets of a batch, each a whole SAE."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config.on_bad_dataset, store.write_bad))
        stack.enter_context(threadpool_limits(threads))
        for t in out.todo(hold=True):
            with out.guard(t):
                out.done(t, _made(t, config))


def _made(t: SaeTarget, config: Config) -> Path:
    """Train or convert the SAE of a target; returns the sealed part."""
    if is_trained(t):
        return _train(t, config)
    with blaming(f"saes.{t.loader}"):
        sae = open_place(t.args.place)
        require_unchanged(t.loader, config, t.spec.source)
        return convert(sae, t.path, t.record)


def _train(t: TrainTarget, config: Config) -> Path:
    """Train the SAE of a target; returns the sealed part. Raises BadInput for unusable tokens."""
    settings, seed = t.spec.train, t.spec.train.seed
    entry = config.saes[t.loader]
    used = rows.chosen(t)
    with stream.opened(t.args.tokens, settings.holdout, seed, used.keep) as (
        tokens,
        held_out,
    ):
        _require_memory(t, tokens.d, config.max_memory)
        rng = np.random.default_rng(seed)
        first = stream.sample(tokens, FIRST, rng)
        held = stream.sample(held_out, HELD, rng)
        if not (np.ptp(first, axis=0).any() and np.ptp(held, axis=0).any()):
            raise BadInput(f"{t.args.tokens[0]}: all tokens are equal: nothing to train on")
        log.info("%s: training on %d tokens, %d held out", t.loader, tokens.n, len(held))
        batches = stream.batches(tokens, settings.batch_size, rng)
        checkpoint = Checkpoint(store.claim(t.path), t.key)
        found = training.train(batches, first, held, tokens.n, settings, checkpoint)
        n, d = tokens.n, tokens.d
    sae = Sae(
        weights="",
        architecture="topk",
        d_in=d,
        d_sae=settings.width,
        k=settings.k,
        subtract_b_dec=True,
        model=entry.model,
        hook=t.args.hook,
    )
    course = {"curve": found.curve, "stopped": found.stopped, "tokens": n, "massive": found.massive}
    facts = facts_of(sae) | {"training": course | used.facts}
    p = found.parameters
    arrays: dict[str, Any] = {
        "encoder.weight": p.W_enc, "W_dec": p.W_dec, "b_enc": p.b_enc, "b_dec": p.b_dec,
        rows.TEXTS: used.texts,
    }  # fmt: skip
    return store.write_h5(t.path, arrays, t.record, facts)


def _require_memory(t: TrainTarget, d: int, limit: int) -> None:
    """Raise ConfigError when training cannot fit: it has no smaller pieces to fall back on."""
    train = t.spec.train
    needed = training_bytes(d, train)
    if limit < needed:
        raise ConfigError(
            f"max_memory: {limit / 1e6:,.0f} MB; training saes.{t.loader} ({train.width} latents of "
            f"width {d}) needs {needed / 1e6:,.0f} MB"
        )
