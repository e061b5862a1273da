"""Whether a tokenizer's tokens are where it says: what it says is compared with what they read."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.models.rows import Rows
from actprobe.models.segments import Rendered


def check(tokenizer: Any, rows: Rows, rendered: Sequence[Rendered], names: Sequence[str]) -> None:
    """Raise BadInput for a row in which a turn's tokens read other words than their characters say.

    Roles and turns of tokens are found by character offsets. For each piece that is said, the tokens
    that cover some of it are decoded again, and must give the characters from the first one's
    beginning to the last one's end: letters and digits, case and accents aside, since normalisers
    change the rest.
    """
    unknown = tokenizer.unk_token_id
    ids, covered, row_of = [], [], []
    ends = np.cumsum(rows.lengths)
    for i, ((string, segments), low, high) in enumerate(
        zip(rendered, rows.starts, ends, strict=True)
    ):
        begin, end = rows.chars[low:high].T
        for s in segments:
            hit = np.flatnonzero(np.minimum(end, s.end) > np.maximum(begin, s.start))
            if not len(hit):
                if string[s.start : s.end].strip():
                    raise _misplaced(names[i], string[s.start : s.end], "nothing")
                continue
            chosen = rows.ids[low + hit[0] : low + hit[-1] + 1].tolist()
            if unknown is not None and unknown in chosen:
                continue
            ids.append(chosen)
            covered.append(string[begin[hit[0]] : end[hit].max()])
            row_of.append(i)
    read = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False) if ids else []
    for i, words, said in zip(row_of, read, covered, strict=True):
        if words != said and _letters(words) != _letters(said):
            raise _misplaced(names[i], said, repr(words[:60]))


def _misplaced(name: str, said: str, read: str) -> BadInput:
    return BadInput(
        f"row {name!r}: the tokenizer says that some tokens are {said[:60]!r}, and they read {read}: "
        "its character offsets are wrong, and with them who says what"
    )


def _letters(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(filter(str.isalnum, decomposed))
