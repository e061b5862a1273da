"""The saes stage: SAEs that have to be made before they can encode, by training or conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from actprobe import store
from actprobe.jobs import Outcome
from actprobe.plan import Batch
from actprobe.sae.convert import convert
from actprobe.sae.sources import open_place


def make(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch, each a whole SAE."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config["on_bad_dataset"], store.write_bad))
        for t in batch.targets:
            if store.finished_part(t.path, t.key):
                out.done(t, store.claim(t.path))
                continue
            with out.guard(t):
                if t.args["make"] == "convert":
                    out.done(t, convert(open_place(t.args["place"]), t.path, t.spec))
                else:
                    from actprobe.sae.training import train_target

                    out.done(t, train_target(t, config, threads))
