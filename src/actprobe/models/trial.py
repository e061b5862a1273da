"""A trial of a loaded model on rows that are made up: is every site what its name says?

Before any data go through a model, two short rows do: alone with every layer run, and padded into
one batch as data will be. A site must be [rows, tokens, d] and computed once in a pass; a row must
give the same in the batch as alone (padding, masks, positions and neighbours do nothing to it);
and the residual stream must be where the model's own hidden states are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import ActprobeError
from actprobe.models import extract, families, special_cases
from actprobe.models.load import Model
from actprobe.models.sites import Done, ModelFailed, hooked, until_all

LENGTHS = (7, 4)  # of the rows
_D_MODEL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")  # as wide as the stream
# Largest relative L2 difference of a token between batch and alone; in half precision the mean over
# the tokens, because rounding may send a token to another expert.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}

Sites = dict[str, list[torch.Tensor]]  # site -> [tokens, d] of each row


def trial(model: Model, name: str) -> tuple[Model, dict[str, int]]:
    """The model as it is to be run, and d of each of its sites.

    Of a multimodal model the outermost part is run that needs nothing but text. Raises
    ActprobeError saying what is not as it should be.
    """
    config = model.config.to_dict()
    try:
        rows = _made_up(config, extract.known_tokens(model))
        model, first, states = _first_that_runs(model, rows[0])
        _require_width(first, families.d_model(config))
        if not families.is_one_of(config, special_cases.STATES_SKIP):
            _compare_with_own(model, first, states)
        together = rows if model.pads else [rows[0], rows[0][::-1]]
        alone = {s: [*first[s], *h] for s, h in _read(model, together[1:])[0].items()}
        _compare(_read(model, together)[0], alone, model.dtype)
    except ModelFailed as e:
        part, kind = type(model.module).__name__, families.model_type(config)
        raise ActprobeError(
            f"models.{name}: {part} (model family {kind!r}) cannot be read: {e}"
            + ("" if model.dtype == torch.float32 else f" (in {model.dtype}; try dtype: float32)")
        ) from e
    except extract.OutOfMemory as e:
        raise ActprobeError(f"models.{name}: no memory for {sum(LENGTHS)} tokens ({e})") from e
    return model, {site: of_rows[0].shape[-1] for site, of_rows in first.items()}


def _first_that_runs(
    model: Model, row: np.ndarray
) -> tuple[Model, Sites, Sequence[torch.Tensor] | None]:
    """The model with the outermost of its parts that runs on a row of tokens alone."""
    *outer, last = (replace(model, module=part) for part in model.parts)
    for candidate in outer:
        with contextlib.suppress(ModelFailed):
            found, states = _read(candidate, [row], whole=True)
            if states is not None:
                return candidate, found, states
    return last, *_read(last, [row], whole=True)


def _made_up(config: Mapping[str, Any], known: int | None) -> list[np.ndarray]:
    """Rows of ordinary tokens: from the middle of the vocabulary, none that the config names."""
    size = families.number(families.text_config(config), "vocab_size") or known or 256
    size = min(size, known or size)
    special = set(_token_ids(config))
    ordinary = [i for i in range(size // 4, size) if i not in special] or [0]
    chosen = [ordinary[k * len(ordinary) // (2 * sum(LENGTHS))] for k in range(sum(LENGTHS))]
    return np.split(np.array(chosen), np.cumsum(LENGTHS)[:-1])


def _token_ids(config: Mapping[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif str(key).endswith(("_id", "_index", "_ids")):
            values = value if isinstance(value, list | tuple) else [value]
            yield from (v for v in values if isinstance(v, int))


def _read(
    model: Model, rows: Sequence[np.ndarray], whole: bool = False
) -> tuple[Sites, tuple[torch.Tensor, ...] | None]:
    """Every site over a batch of these rows; for a whole pass also the model's hidden states."""
    found: Sites = {}

    def read(site: str, h: torch.Tensor) -> None:
        h = extract.by_token(model, h, inputs["input_ids"].shape, site)
        found[site] = [h[k, : len(r)].clone().cpu() for k, r in enumerate(rows)]

    reader = read if whole else until_all(model.points, read)
    with extract.explained(), torch.inference_mode():
        inputs = extract.padded(model, rows)
        own = {"output_hidden_states": True} if whole else {}
        with hooked(model.points, reader) as calls, contextlib.suppress(Done):
            out = extract.run(model, use_cache=False, **own, **inputs)
    shared = families.is_one_of(model.config.to_dict(), special_cases.SHARED_LAYERS)
    for site in model.points:
        if site not in found:
            raise ModelFailed(f"site {site} is never computed; ask for other layers")
        if calls[site] > 1 and not shared:
            raise ModelFailed(f"site {site} is computed {calls[site]} times in one pass")
    return found, getattr(out, "hidden_states", None) if whole else None


def _require_width(found: Sites, d: int | None) -> None:
    for site, [h] in found.items():
        if d is not None and site.partition(".")[0] in _D_MODEL and h.shape[-1] != d:
            raise ModelFailed(f"site {site} has {h.shape[-1]} dimensions, expected d_model, {d}")


def _compare_with_own(model: Model, found: Sites, states: Sequence[torch.Tensor] | None) -> None:
    """Hold the residual stream against the model's own hidden states.

    hidden_states[L] is the stream before layer L (in some families the one behind it); the last is
    behind the final norm and left out.
    """
    if states is None or len(states) != model.depth + 1:
        given = "no" if states is None else len(states)
        raise ModelFailed(
            f"the model itself gives {given} hidden states for {model.depth} layers, expected one "
            "before each layer and one at the end: the layers cannot be held against them"
        )
    behind = families.is_one_of(model.config.to_dict(), special_cases.STATES_BEHIND)
    for site, [h] in found.items():
        kind, _, layer = site.partition(".")
        at = int(layer or 0) + (kind == "resid_post") - behind
        if kind not in ("resid_pre", "resid_post") or not 0 <= at < len(states) - 1:
            continue
        if states[at].shape != (1, *h.shape) or _difference(h, states[at][0]).max() > 1e-3:
            raise ModelFailed(
                f"site {site} is not what the model itself gives as hidden state {at}"
            )


def _compare(together: Sites, alone: Sites, dtype: torch.dtype) -> None:
    tolerance = _TOLERANCE[dtype]
    for site in together:
        for batched, single in zip(together[site], alone[site], strict=True):
            if not torch.isfinite(single).all():
                continue  # found and named when a row has it
            each = _difference(batched, single)
            worst = float(each.max() if dtype == torch.float32 else each.mean())
            if not worst <= tolerance:
                raise ModelFailed(
                    f"site {site} of a row of {len(single)} tokens differs by {worst:.1e} (relative "
                    f"L2) between the row alone and a padded batch, expected at most {tolerance:.0e}: "
                    "padding or the other rows change it"
                )


def _difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Relative L2 difference of each token, [tokens]."""
    norm, b = torch.linalg.vector_norm, b.float().cpu()
    return norm(a.float() - b, dim=-1) / norm(b, dim=-1).clamp_min(1e-30)
