"""Forward passes over the rows of one dataset: batches in, reduced activations out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actprobe.errors import ActprobeError
from actprobe.models.load import Model
from actprobe.models.positions import BatchReduction, Reduction, for_batch
from actprobe.models.sites import Done, Reader, hooked
from actprobe.models.tokens import Tokens

Wanted = Mapping[str, Sequence[str]]  # site -> positions

# Largest relative L2 difference between a row in a padded batch and alone: ten times and more what
# rounding does (1e-6, 1e-3, 1e-2), below what a wrong mask or position does (of the order of 1).
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class Prefix:
    """The first tokens of every row, passed through the model once.

    length: tokens; cache: their keys and values; states: site -> [1, length, d].
    """

    length: int
    cache: Any
    states: Mapping[str, torch.Tensor]


# How CUDA's driver and MPS, the CPU, and cuBLAS say it.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class OutOfMemory(Exception):
    """The device could not hold a batch."""


def forward(
    model: Model,
    tokens: Tokens,
    rows: Sequence[int],
    reductions: Mapping[str, Reduction],
    wanted: Wanted,
    prefix: Prefix | None = None,
) -> dict[tuple[str, str], torch.Tensor]:
    """One pass over `rows`: (site, position) -> [len(rows), d] on the CPU, rows in that order.

    For position `tokens` the kept tokens of the rows, one row after the other. The batch is padded
    on the right; causal models get no mask (padding cannot be seen from the left, and the kernels
    without a mask are the fast ones). Runs only as far as the last wanted site. With a prefix, the
    rows' other tokens alone are computed.
    """
    skip = prefix.length if prefix else 0
    lengths = tokens.lengths[list(rows)] - skip
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    types = np.zeros_like(ids)
    for k, i in enumerate(rows):
        ids[k, : lengths[k]] = tokens.ids[tokens.row(i)][skip:]
        if tokens.types is not None:
            types[k, : lengths[k]] = tokens.types[tokens.row(i)][skip:]
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(model.device)}
    if tokens.types is not None:
        inputs["token_type_ids"] = torch.from_numpy(types).to(model.device)
    if prefix:
        inputs["past_key_values"] = copy.deepcopy(prefix.cache)
        inputs["past_key_values"].batch_repeat_interleave(len(rows))
    if model.mask:
        mask = torch.arange(ids.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        inputs["attention_mask"] = mask.long().to(model.device)
    used = {p for positions in wanted.values() for p in positions}
    cut: dict[str, BatchReduction] = {
        p: for_batch(reductions[p], tokens, rows, model.device) for p in used
    }
    found: dict[tuple[str, str], torch.Tensor] = {}

    def read(site: str, h: torch.Tensor) -> None:
        h = h.view(*ids.shape, -1)  # some modules see a batch flattened to [tokens, d]
        if prefix:
            h = torch.cat([prefix.states[site].expand(len(rows), -1, -1), h], dim=1)
        for position in wanted[site]:
            value = cut[position](h)
            # All tokens of all layers would not fit on a GPU; vectors wait there for one transfer.
            found[site, position] = value.cpu() if cut[position].kind == "tokens" else value

    with _memory_errors(), torch.inference_mode():
        _pass(model, wanted, read, use_cache=prefix is not None, **inputs)
        return {k: v.cpu() for k, v in found.items()}


def make_prefix(model: Model, tokens: Tokens, length: int, sites: Iterable[str]) -> Prefix:
    """Pass the first `length` tokens, the same in every row, through the model."""
    from transformers import DynamicCache

    states: dict[str, torch.Tensor] = {}
    cache = DynamicCache(config=model.config)
    ids = torch.from_numpy(tokens.ids[:length].astype(np.int64))[None].to(model.device)

    def read(site: str, h: torch.Tensor) -> None:
        states[site] = h.view(1, length, -1)

    with _memory_errors(), torch.inference_mode():
        _pass(model, sites, read, input_ids=ids, past_key_values=cache, use_cache=True)
    return Prefix(length, cache, states)


def _pass(model: Model, sites: Iterable[str], read: Reader, **inputs: Any) -> None:
    """One forward pass that ends after the last of the sites."""
    with hooked({s: model.points[s] for s in sites}, read), contextlib.suppress(Done):
        model.module(**inputs)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise OutOfMemory(str(e)) from e
    except MemoryError as e:
        raise OutOfMemory("no memory") from e
    except RuntimeError as e:
        if not any(words in str(e) for words in _NO_MEMORY):
            raise
        raise OutOfMemory(str(e)) from e


def widths(model: Model) -> dict[str, int]:
    """d of every site of the model, from a pass over one token."""
    one = Tokens(np.zeros(1, np.int32), np.array([0, 1]), np.ones(1, bool), None, 0)
    first = {"first": Reduction("pick", np.zeros(1, np.int64))}
    found = forward(model, one, [0], first, {s: ["first"] for s in model.points})
    missing = sorted(set(model.points) - {s for s, _ in found})
    if missing:
        raise ActprobeError(f"{type(model.module).__name__}: site {missing[0]} is never computed")
    return {site: value.shape[-1] for (site, _), value in found.items()}


def self_check(
    model: Model,
    tokens: Tokens,
    reductions: Mapping[str, Reduction],
    wanted: Wanted,
    budget: int,
    name: str,
    prefix: Prefix | None = None,
) -> float | None:
    """Compare rows in a padded batch with the same rows alone; returns the largest difference.

    Takes the median row, the shortest, and the one halfway in rank, as many as fit into the budget
    without the prefix; None when no two do, or when no row alone is finite. Differences are
    relative L2 norms. Raises ActprobeError when one exceeds rounding.
    """
    own = tokens.lengths - (prefix.length if prefix else 0)
    order = np.argsort(own, kind="stable")
    order = order[own[order] <= budget // 2]
    if len(order) < 2:
        return None
    middle = len(order) // 2
    rows = list(dict.fromkeys(order[[middle, 0, middle // 2]].tolist()))
    rows = rows[: budget // int(own[rows[0]])]
    together = forward(model, tokens, rows, reductions, wanted, prefix)
    alone = [forward(model, tokens, [i], reductions, wanted) for i in rows]
    worst: float | None = None
    for (site, position), value in together.items():
        reference = torch.cat([a[site, position] for a in alone]).float()
        if not torch.isfinite(reference).all():
            continue  # found and named when the row comes up
        norm = torch.linalg.vector_norm
        each = norm(value.float() - reference, dim=1) / norm(reference, dim=1).clamp_min(1e-30)
        relative = float(each.max())
        if not relative <= _TOLERANCE[model.dtype]:
            raise ActprobeError(
                f"{name}: self-check failed at {site}.{position}: rows in a padded batch differ "
                f"from the same rows alone by {relative:.1e} (relative L2), expected at most "
                f"{_TOLERANCE[model.dtype]:.0e}; padding or masking is wrong for this model"
            )
        worst = max(worst or 0.0, relative)
    return worst


def to_storable(value: torch.Tensor) -> np.ndarray:
    """The array that stands in the artefact: bfloat16 as its bits in uint16."""
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view(np.uint16)
    return value.numpy()
