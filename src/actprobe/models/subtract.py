"""The differences stage: one activation artefact minus another, row by row, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.models.artefact import open_activations
from actprobe.models.prepared import READ_FACTS
from actprobe.models.records import DifferenceTarget

_VALUES = 1 << 22  # of a block in memory
# Norms and the plan of batches are one model's own.
_TOLD = (*READ_FACTS, "module")


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the targets of a batch one after the other; the disk is the limit, not threads."""
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        out.make(out.todo(), _subtract)


def _subtract(t: DifferenceTarget) -> Path:
    """Write one difference. Raises BadInput when the two models did not read the same."""
    with ExitStack() as stack:
        both = (t.args.of, t.args.minus)
        own, other = (stack.enter_context(open_activations(path)) for path in both)
        facts, facts_of_other = (store.read_header(path)["facts"] for path in both)
        _require_same(t, facts, facts_of_other)
        if own.shape != other.shape:
            raise BadInput(f"{t.name}: {own.shape} minus {other.shape}: the widths differ")
        n, d = own.shape
        arrays: dict[str, Any] = {
            "x": ((n, d), "float32"),
            "n_tokens": (own.n_tokens.shape, "int32"),
        }
        small = {"n_tokens": own.n_tokens}
        if own.offsets is not None and own.token_ids is not None:
            small |= {"offsets": own.offsets, "token_ids": own.token_ids}
            arrays |= {"offsets": (own.offsets.shape, "int64"),
                       "token_ids": (own.token_ids.shape, "int32")}  # fmt: skip
        step = max(1, _VALUES // d)
        units = -(-n // step)
        told = {k: facts[k] for k in _TOLD if k in facts}
        told["models"] = {r: f.get("model") for r, f in (("of", facts), ("minus", facts_of_other))}
        with store.Part(t.path, t.record, arrays, units, told, {"x": {"dtype": "float32"}}) as part:
            if part.pending:
                for name, values in small.items():
                    part[name][:] = values
            for u in part.pending:
                rows = slice(u * step, min((u + 1) * step, n))
                part["x"][rows] = np.subtract(own[rows], other[rows], dtype=np.float32)
                part.mark(u)
            return part.finish()


def _require_same(t: DifferenceTarget, own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    if own.get("tokens_sha256") != other.get("tokens_sha256"):
        raise BadInput(
            f"{t.name}: the two models did not read the same tokens, or not the same of them became a "
            "vector: give both the same chat, max_length and special tokens, and the same tokenizer"
        )
