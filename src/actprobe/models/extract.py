"""Forward passes over the rows of one dataset: batches in, reduced activations out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import ActprobeError
from actprobe.models import together
from actprobe.models.load import Model
from actprobe.models.positions import BatchReduction, Reduction, for_batch
from actprobe.models.sites import (
    Done,
    ModelFailed,
    Reader,
    ReaderFailed,
    hooked,
    takes,
    until_all,
)
from actprobe.models.special_cases import PADDED_INSIDE, TOKENS_FIRST
from actprobe.models.tokens import Tokens

Wanted = Mapping[str, Sequence[str]]  # site -> positions

# Largest relative L2 difference between a row in a padded batch and alone: ten times and more what
# rounding does (1e-6, 1e-3, 1e-2), below what a wrong mask or position does (of the order of 1).
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class Prefix:
    """The first tokens of several rows, passed through the model once.

    length: tokens; cache: their keys and values; states: site -> [1, length, d].
    """

    length: int
    cache: Any
    states: Mapping[str, torch.Tensor]


# How CUDA's driver and MPS, the CPU, and cuBLAS say it.
_DEVICES = ("CUDA error", "CUDA driver error", "cuDNN", "NCCL", "HIP error", "MPS backend")
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
    carriers: Sequence[int] | None = None,
) -> dict[tuple[str, str], torch.Tensor]:
    """One pass over `rows`: (site, position) -> [len(rows), d] on the CPU, rows in that order.

    For position `tokens` the kept tokens of the rows, one row after the other. The batch is padded
    on the right; causal models get no mask (padding cannot be seen from the left, and the kernels
    without a mask are the fast ones). Runs only as far as the last wanted site. With a prefix, the
    rows' other tokens alone are computed; carriers: the row that each is read in, itself without them,
    and no others are computed.
    """
    skip = prefix.length if prefix else 0
    batch = list(dict.fromkeys(rows if carriers is None else carriers))
    own = [slice(tokens.row(i).start + skip, tokens.row(i).stop) for i in batch]
    inputs = padded(model, [tokens.ids[s] for s in own])
    shape = inputs["input_ids"].shape
    if tokens.types is not None:
        types = padded(model, [tokens.types[s] for s in own])
        inputs["token_type_ids"] = types["input_ids"]
    if prefix:
        inputs["past_key_values"] = copy.deepcopy(prefix.cache)
        inputs["past_key_values"].batch_repeat_interleave(len(batch))
    used = {p for positions in wanted.values() for p in positions}
    cut: dict[str, BatchReduction] = {
        p: for_batch(reductions[p], tokens, rows, model.device, carriers) for p in used
    }
    found: dict[tuple[str, str], torch.Tensor] = {}

    def read(site: str, h: torch.Tensor) -> None:
        h = by_token(model, h, shape, site)
        if prefix:
            h = torch.cat([prefix.states[site].expand(len(batch), -1, -1), h], dim=1)
        for position in wanted[site]:
            value = cut[position](h)
            # Some models add up the stream in float32.
            if cut[position].kind not in ("mean", "norms"):
                value = value.to(model.dtype)
            # All tokens of all layers would not fit on a GPU; vectors wait there for one transfer.
            found[site, position] = value.cpu() if cut[position].kind == "tokens" else value

    with explained(), torch.inference_mode():
        _pass(model, wanted, read, use_cache=prefix is not None, **inputs)
        if missing := {(s, p) for s, ps in wanted.items() for p in ps} - set(found):
            raise ModelFailed(f"site {min(missing)[0]} is never computed")
        return {k: v.cpu() for k, v in found.items()}


def make_prefix(
    model: Model, tokens: Tokens, row: int, length: int, sites: Iterable[str]
) -> Prefix:
    """Pass the first `length` tokens of a row through the model."""
    from transformers import DynamicCache

    states: dict[str, torch.Tensor] = {}
    cache = DynamicCache(config=model.config)
    inputs = padded(model, [tokens.ids[tokens.row(row)][:length]])

    def read(site: str, h: torch.Tensor) -> None:
        states[site] = by_token(model, h, (1, length), site)

    with explained(), torch.inference_mode():
        _pass(model, sites, read, past_key_values=cache, use_cache=True, **inputs)
    return Prefix(length, cache, states)


def padded(model: Model, rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the model takes for rows of token ids: padded on the right, with a mask if it needs one.

    Raises ModelFailed for a token id that the model has no embedding for.
    """
    lengths = np.array([len(r) for r in rows])
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = row
    _require_known(model, ids)
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(model.device)}
    if model.mask:
        mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
        inputs["attention_mask"] = mask.long().to(model.device)
    return inputs


def by_token(model: Model, h: torch.Tensor, shape: Sequence[int], site: str) -> torch.Tensor:
    """An activation as [rows, tokens, d]; some modules see a batch flattened to [tokens, d].

    shape: rows and tokens of the batch. Raises ModelFailed for an activation of another form.
    """
    rows, length = shape
    if model.form == TOKENS_FIRST:
        h = h.transpose(0, 1)
    elif model.form == PADDED_INSIDE:
        h = h[:, :length]
    if h.shape[:-1] not in ((rows, length), (rows * length,)):
        raise ModelFailed(
            f"site {site} has the shape {list(h.shape)} for {rows} rows of {length} tokens, expected "
            f"[{rows}, {length}, d]"
        )
    return h.reshape(rows, length, h.shape[-1])


def known_tokens(model: Model) -> int | None:
    """How many token ids the model has embeddings for; None where they are no table."""
    try:
        table = model.module.get_input_embeddings()  # type: ignore[operator]
    except (NotImplementedError, AttributeError):  # made of hashes, say
        return None
    return getattr(table, "num_embeddings", None)


def _require_known(model: Model, ids: np.ndarray) -> None:
    """Raise ModelFailed for a token id that the model has no embedding for."""
    known = known_tokens(model)
    if known is not None and ids.max(initial=0) >= known:
        raise ModelFailed(
            f"token id {ids.max()} is not known to the model, which has embeddings for 0 to "
            f"{known - 1}: the tokenizer belongs to another model"
        )


def _pass(model: Model, sites: Iterable[str], read: Reader, **inputs: Any) -> None:
    """One forward pass that ends after the last of the sites."""
    points = {s: model.points[s] for s in sites}
    with hooked(points, until_all(points, read)), contextlib.suppress(Done):
        run(model, **inputs)


def run(model: Model, **inputs: Any) -> Any:
    """What the model returns for these inputs, without those that it does not know."""
    known = {k: v for k, v in inputs.items() if v is not None and takes(model.module, k)}
    return model.module(**known)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """OutOfMemory for a lack of memory, ModelFailed for whatever else a model raises.

    What the machine does not give (files, devices) and what our own code raises stays as it is.
    """
    try:
        yield
    except ReaderFailed as e:
        raise (_lack_of_memory(e.error) or e.error) from e
    except (OutOfMemory, ModelFailed):
        raise
    except Exception as e:
        if lack := _lack_of_memory(e):
            raise lack from e
        if isinstance(e, torch.AcceleratorError | OSError) or _of_the_device(e):
            raise
        raise ModelFailed(f"the forward pass raised {type(e).__name__}: {e}") from e


def _of_the_device(e: Exception) -> bool:
    return isinstance(e, RuntimeError) and any(words in str(e) for words in _DEVICES)


def _lack_of_memory(e: Exception) -> OutOfMemory | None:
    if isinstance(e, MemoryError):
        return OutOfMemory("no memory")
    said = isinstance(e, RuntimeError) and any(words in str(e) for words in _NO_MEMORY)
    return OutOfMemory(str(e)) if said or isinstance(e, torch.OutOfMemoryError) else None


def self_check(
    model: Model,
    tokens: Tokens,
    reductions: Mapping[str, Reduction],
    wanted: Wanted,
    budget: int,
    name: str,
    candidates: np.ndarray,
    carried: Mapping[int, Sequence[int]],
    prefix: Prefix | None = None,
) -> float | None:
    """Compare rows in a padded batch with the same rows alone; returns the largest difference.

    candidates: rows that may share a batch behind the prefix, indices; carried: row -> rows that are
    read in it. Takes the median row, the shortest, and the one halfway in rank, as many as fit into the
    budget without the prefix, and the shortest row that is read in each; None when no two fit, or when
    no row alone is finite. Differences are relative L2 norms. Raises ActprobeError when one exceeds
    rounding.
    """
    own = tokens.lengths - (prefix.length if prefix else 0)
    like = candidates[together.alike(model, tokens.lengths[candidates])]
    order = like[np.argsort(own[like], kind="stable")]
    order = order[own[order] <= budget // 2]
    if len(order) < 2:
        return None
    middle = len(order) // 2
    chosen = list(dict.fromkeys(order[[middle, 0, middle // 2]].tolist()))
    chosen = chosen[: budget // int(own[chosen[0]])]
    read = [(c, i) for c in chosen for i in {c, min(carried[c], key=lambda i: tokens.lengths[i])}]
    carriers, rows = ([r[k] for r in read] for k in (0, 1))
    joint = forward(model, tokens, rows, reductions, wanted, prefix, carriers)
    alone = [forward(model, tokens, [i], reductions, wanted) for i in rows]
    worst: float | None = None
    for (site, position), value in joint.items():
        reference = torch.cat([a[site, position] for a in alone]).float()
        if not torch.isfinite(reference).all():
            continue  # found and named when the row comes up
        norm = torch.linalg.vector_norm
        each = norm(value.float() - reference, dim=1) / norm(reference, dim=1).clamp_min(1e-30)
        # In half precision rounding sends single tokens to other experts; a mask changes all.
        relative = float(each.max() if model.dtype == torch.float32 else each.mean())
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
