"""Prompts for a watched model, read as a probe's rows were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from actprobe.base.errors import BadInput
from actprobe.face.reader import rows_of
from actprobe.models.reading import reading
from actprobe.texts.chats import Chat

if TYPE_CHECKING:
    from actprobe.face.probe import Probe


def padded(
    probe: Probe, model: Any, tokenizer: Any, given: Sequence[Any], prompt: bool | None
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """input_ids and attention_mask, padded on the left, on the model's device; and which tokens are
    neither special nor of the template, bool [rows, tokens].

    Raises BadInput for empty rows, and for rows that are longer than the model reads.
    """
    origin = probe.origin
    if not origin.settings:
        raise BadInput(f"{probe.name} does not say how its rows were read; tokenise them yourself")
    rows = rows_of(given)
    names = list(map(str, range(len(rows))))
    texts = [r.text if isinstance(r, Chat) else r for r in rows]
    if empty := [n for n, text in zip(names, texts, strict=True) if not text.strip()]:
        raise BadInput(f"row {empty[0]!r} is empty ({len(empty)} such rows)")
    how = reading(tokenizer, model.config, origin.model, {**origin.settings, "max_length": None})
    tokens = how.encode(rows, names, prompt=prompt)
    if tokens.n_truncated:
        raise BadInput(
            f"{tokens.n_truncated} rows have more than the {how.most} tokens of the model"
        )
    longest = int(tokens.lengths.max())
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    shape = (len(rows), longest)
    ids, mask = np.full(shape, pad or 0, np.int64), np.zeros(shape, np.int64)
    keep = np.zeros(shape, bool)
    for i in range(len(rows)):
        at = tokens.row(i)
        n = at.stop - at.start
        ids[i, longest - n :], mask[i, longest - n :] = tokens.ids[at], 1
        keep[i, longest - n :] = tokens.content[at]
    device = next(model.parameters()).device
    found = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return {k: v.to(device) for k, v in found.items()}, torch.from_numpy(keep)
