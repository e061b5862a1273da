"""The top_contexts stage: a table for each source and dataset."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.config import Config
from actprobe.contexts.table import SCHEMA, top_contexts, width, words
from actprobe.contexts.targets import ContextTarget
from actprobe.files import hub

log = logging.getLogger(__name__)


def require_unchanged(config: Config, t: ContextTarget) -> None:
    """Raise ActprobeError when the tokenizer is not the plan's any more."""
    if (path := t.args.tokenizer) is not None:
        memo = keys.DigestMemo(config.cache_dir)
        hub.require_whole(path, memo)  # it may be a file of the local hub cache
        found = memo.sha256(path)
        keys.require_unchanged(found, t.spec.tokenizer, f"top_contexts: tokenizer {path}")


def run(batch: Batch, config: Config, threads: int) -> None:
    """Make the tables of a batch, one after the other."""
    with Outcome(batch, config.on_bad_dataset, _write_bad) as out:
        for t in batch.targets:
            with out.guard(t), ExitStack() as stack:
                codes = stack.enter_context(store.open_h5(t.args.codes))
                tokens = codes
                if "token_ids" not in codes:
                    tokens = stack.enter_context(store.open_h5(t.args.tokens))
                word = words(tokens, t.args.tokenizer)
                require_unchanged(config, t)
                offsets, spec = tokens["offsets"][:], t.spec
                table = top_contexts(codes, offsets, word, spec.latents, spec.k, spec.window)
                facts = {"source": t.args.source, "dataset": t.item, "n_latents": width(codes)}
                out.done(t, store.write_table(t.path, table, t.record, facts))
                log.info("%s: %d contexts", t.name, len(table))


def _write_bad(path: str, spec: dict[str, Any], reason: str) -> Path:
    return store.write_table(path, SCHEMA.empty_table(), spec, bad=reason)
