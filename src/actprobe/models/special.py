"""Special tokens that a text spells out: `</s>`, `<|endoftext|>`, `[MASK]`.

One rule for `models.X.special_tokens_in_text`. `keep` reads them as what they are, as transformers
does; they count as no part of the text then, like those that the tokenizer adds. `plain` reads
their characters. `refuse` takes no text that holds one. A BOS in front of a text is no case of
it: it is special however it got there (with `plain` it is characters too).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from actprobe.models.segments import Segment


class Special:
    """The special tokens of a tokenizer.

    ids: int64 [k]. The token for unknown characters is none of them, unless it is also another: it
    stands for a part of the text.
    """

    def __init__(self, tokenizer: Any):
        added = getattr(tokenizer, "added_tokens_decoder", {})
        ids = (set(tokenizer.all_special_ids) - {None}) | {i for i, t in added.items() if t.special}
        others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        if tokenizer.unk_token_id not in others:
            ids.discard(tokenizer.unk_token_id)
        self.ids = np.array(sorted(ids), np.int64)
        words = [str(w) for w in tokenizer.convert_ids_to_tokens(self.ids.tolist()) if w]
        # The longest first, as the tokenizer takes them.
        ordered = sorted(words, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def among(self, ids: np.ndarray) -> np.ndarray:
        """Which of these are special, bool, of the same shape."""
        return np.isin(ids, self.ids)

    def spelled_in(self, text: str) -> bool:
        """Whether the text holds the characters of one."""
        return self._spelled is not None and self._spelled.search(text) is not None


Encoded = tuple[list[int], np.ndarray]  # token ids, and the characters of each, int64 [T, 2]


def plain_in_chat(
    tokenizer: Any, special: Special, string: str, segments: list[Segment]
) -> Encoded | None:
    """A rendered conversation in which the text's special tokens are read as characters.

    The template's own special tokens part the string; tokenizers read each part for itself, and so
    each can be read with its special tokens or without. Whether this holds for the tokenizer is
    seen from the parts read with them: together they have to be what the whole string gives. None
    when they are not.
    """
    ids, chars = _encoded(tokenizer, string, plain=False)
    inside = np.zeros(len(ids), bool)
    for s in segments:
        inside |= np.minimum(chars[:, 1], s.end) > np.maximum(chars[:, 0], s.start)
    walls = np.flatnonzero(special.among(np.array(ids)) & ~inside).tolist()
    found: dict[bool, tuple[list[int], list[np.ndarray]]] = {p: ([], []) for p in (False, True)}
    edges = [0, *(int(e) for w in walls for e in chars[w]), len(string)]
    for k, (low, high) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        for plain, (all_ids, all_chars) in found.items():
            part, at = _encoded(tokenizer, string[low:high], plain)
            all_ids.extend(part)
            all_chars.append(at + low)
            if k < len(walls):
                all_ids.append(ids[walls[k]])
                all_chars.append(chars[walls[k]][None])
    if found[False][0] != ids:
        return None
    return found[True][0], np.concatenate(found[True][1])


def _encoded(tokenizer: Any, string: str, plain: bool) -> Encoded:
    if not string:
        return [], np.zeros((0, 2), np.int64)
    out = tokenizer(
        string,
        add_special_tokens=False,
        return_offsets_mapping=True,
        split_special_tokens=plain,
        verbose=False,
    )
    return list(out["input_ids"]), np.array(out["offset_mapping"], np.int64).reshape(-1, 2)
