"""Texts to tokens: once per dataset, with the mask of tokens that belong to the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from actprobe.errors import ActprobeError, BadInput
from actprobe.models.chat import Segment, template

_CHUNK = 1000  # texts tokenised at once
_UNLIMITED = 1 << 40  # tokenizers without a limit report a huge number


@dataclass(frozen=True)
class Tokens:
    """The tokens of a dataset, row after row.

    ids: int32 [T]; offsets: int64 [N+1], row i is ids[offsets[i]:offsets[i+1]]; content: bool [T],
    False for special and template tokens; chars: int32 [T, 2] or None, the characters of the row's
    text that each token covers (end > start only where it covers any); n_truncated: rows cut.
    """

    ids: np.ndarray
    offsets: np.ndarray
    content: np.ndarray
    chars: np.ndarray | None
    n_truncated: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [N]."""
        return np.diff(self.offsets)

    def row(self, i: int) -> slice:
        """Where row i stands in `ids`, `content` and `chars`."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def shared_prefix(tokens: Tokens) -> int:
    """How many first tokens all rows share, leaving each row at least one of its own."""
    starts, most = tokens.offsets[:-1], int(tokens.lengths.min()) - 1
    for k in range(most):
        column = tokens.ids[starts + k]
        if (column != column[0]).any():
            return k
    return most


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    names: Sequence[str],
    params: Mapping[str, Any],
    limit: int | None,
    with_chars: bool = False,
) -> Tokens:
    """Tokenise a dataset.

    names: row ids, for messages. params: `max_length`, `truncation_side`, `add_special_tokens`,
    `chat` of the model's config. limit: most positions the model has, None when unlimited.
    with_chars: keep character offsets (for spans). Raises BadInput naming the row for a text
    without tokens or with a doubled BOS, ActprobeError for a tokenizer that cannot do it.
    """
    chat = params["chat"]
    if not tokenizer.is_fast and (chat or with_chars):
        raise ActprobeError(
            f"{type(tokenizer).__name__} gives no character offsets, which chat templates and "
            "spans need; use a model with a tokenizer.json"
        )
    render = template(tokenizer, chat) if chat else None
    rendered = [render(t) for t in texts] if render else [(t, [(0, len(t), 0)]) for t in texts]
    tokenizer.truncation_side = params["truncation_side"]
    options = {
        "add_special_tokens": params["add_special_tokens"] and not chat,
        "max_length": (m := params["max_length"] or _default_length(tokenizer, limit)),
        "truncation": m is not None,
        "return_special_tokens_mask": True,
        "return_offsets_mapping": bool(chat or with_chars),
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }
    pieces = [
        _chunk(tokenizer, rendered[i : i + _CHUNK], options, bool(chat))
        for i in range(0, len(rendered), _CHUNK)
    ]
    ids, lengths, content, chars, cut = (list(p) for p in zip(*pieces, strict=True))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    flat, kept = np.concatenate(ids), np.concatenate(content)
    if not (options["add_special_tokens"] or chat):  # a text may bring its own
        starts = offsets[:-1][np.diff(offsets) > 0]
        kept[starts] &= ~np.isin(flat[starts], _firsts(tokenizer))
    tokens = Tokens(
        flat,
        offsets,
        kept,
        np.concatenate(chars) if with_chars else None,
        sum(cut),
    )
    _check(tokenizer, tokens, names)
    return tokens


def _default_length(tokenizer: Any, limit: int | None) -> int | None:
    """The most tokens that tokenizer and model both take; None when neither has a limit."""
    own = tokenizer.model_max_length
    limits = [n for n in (own, limit) if n is not None and n < _UNLIMITED]
    return int(min(limits)) if limits else None


def _chunk(
    tokenizer: Any,
    rendered: Sequence[tuple[str, list[Segment]]],
    options: Mapping[str, Any],
    chat: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, int]:
    batch = tokenizer([text for text, _ in rendered], **options)
    rows = batch["input_ids"]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    flat = chain.from_iterable
    ids = np.fromiter(flat(rows), np.int32)
    content = np.fromiter(flat(batch["special_tokens_mask"]), np.int8) == 0
    cut = sum(bool(e.overflowing) for e in batch.encodings or ())
    if "offset_mapping" not in batch:
        return ids, lengths, content, None, cut
    chars = np.fromiter(flat(flat(batch["offset_mapping"])), np.int32).reshape(-1, 2)
    ends = np.cumsum(lengths)
    for (_, segments), start, end in zip(rendered, ends - lengths, ends, strict=True):
        own, inside = _to_text(chars[start:end], segments)
        chars[start:end] = own
        if chat:
            content[start:end] = inside
    return ids, lengths, content, chars, cut


def _to_text(chars: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Character offsets in the rendered string to offsets in the row's text.

    Returns [T, 2] offsets ((0, 0) outside the text) and which tokens overlap the text, bool [T].
    """
    own, inside = np.zeros_like(chars), np.zeros(len(chars), bool)
    for start, end, at in segments:
        low, high = np.maximum(chars[:, 0], start), np.minimum(chars[:, 1], end)
        hit = high > low
        own[hit] = np.stack([low, high], 1)[hit] - start + at
        inside |= hit
    return own, inside


def _firsts(tokenizer: Any) -> list[int]:
    """The tokens that stand for the beginning of a text."""
    return list({tokenizer.bos_token_id, tokenizer.cls_token_id} - {None})


def _check(tokenizer: Any, tokens: Tokens, names: Sequence[str]) -> None:
    empty = np.flatnonzero(tokens.lengths == 0)
    if len(empty):
        raise BadInput(f"row {names[empty[0]]!r} has no tokens ({len(empty)} such rows)")
    starts = tokens.offsets[:-1][tokens.lengths > 1]
    for first in _firsts(tokenizer):
        twice = (tokens.ids[starts] == first) & (tokens.ids[starts + 1] == first)
        if twice.any():
            row = np.flatnonzero(tokens.lengths > 1)[twice.argmax()]
            raise BadInput(
                f"row {names[row]!r} begins with {tokenizer.decode([first])!r} twice "
                f"({int(twice.sum())} such rows): the text brings its own; set "
                "add_special_tokens: false or take it out of the text"
            )
