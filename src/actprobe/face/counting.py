"""Which tokens of a running model are new, and which of them count for a position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from actprobe.base.errors import ActprobeError
from actprobe.models.special import Special

Tensor = torch.Tensor


class Counting(NamedTuple):
    """Which tokens of a row count: special ones too; the first too; or only number `at`."""

    special: bool
    first: bool
    at: int | None = None


class Counter:
    """Follows the passes of a model: prompts in one pass or several, then a token for each row.

    ids: of the new tokens [b, t]; valid: which of them are no padding, and not behind the end of an
    answer; shape: [b, t].
    """

    def __init__(self, model: Any, tokenizer: Any, wanted: Sequence[Counting]) -> None:
        self.ids = self.valid = torch.empty(0)
        self.shape = (0, 0)
        self._special = torch.from_numpy(Special(tokenizer).ids)
        given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = given if isinstance(given, (list, tuple)) else [given]
        ends = [e for e in (*ends, tokenizer.eos_token_id) if e is not None]
        self._ends = torch.tensor(sorted(set(ends)), dtype=torch.int64)
        self._wanted = tuple(dict.fromkeys(wanted))
        self._n: Tensor | None = None  # tokens of each row so far
        self._ended: Tensor | None = None  # rows whose answer has ended
        self._length = 0  # of the sequence so far, padding included
        self._expected: tuple[Tensor, Tensor] | None = None
        self._counts: dict[Counting, Tensor] = {}
        self._read: set[str] = set()

    def expect(self, ids: Tensor, keep: Tensor) -> None:
        """What counts of a prompt that is about to be passed, bool [b, t]."""
        self._expected = ids, keep

    def fresh(self, site: str) -> bool:
        """Whether a site is read for the first time in this pass."""
        first = site not in self._read
        self._read.add(site)
        return first

    def begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Take in a pass of the model; returns whether a new sequence begins with it."""
        self._read = set()
        ids = kwargs.get("input_ids", args[0] if args else None)
        if not isinstance(ids, torch.Tensor):
            raise ActprobeError("a watched model is called with token ids (input_ids)")
        past = _length(kwargs.get("past_key_values"))
        new = past == 0 or self._n is None or len(ids) != len(self._n)
        if not new and past < self._length:
            raise ActprobeError(
                f"the model goes back from {self._length} to {past} tokens, as assisted generation does;"
                " a stream of scores cannot"
            )
        mask = kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:
            valid = mask[:, -ids.shape[1] :].bool()
        else:
            valid = torch.ones_like(ids, dtype=torch.bool)
        if new:
            self._n = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
            self._ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
            self._length = 0
            self._special, self._ends = self._special.to(ids.device), self._ends.to(ids.device)
        assert self._n is not None and self._ended is not None
        if not new:
            ended = torch.isin(ids, self._ends)
            behind = self._ended[:, None]
            if ids.shape[1] > 1:
                behind = behind | ((ended.cumsum(dim=1) - ended.long()) > 0)
            self._ended = self._ended | ended.any(dim=1)
            valid = valid & ~behind
        self.ids, self.valid, self.shape = ids, valid, (ids.shape[0], ids.shape[1])
        self._length += ids.shape[1]
        self._count(new)
        return new

    def _count(self, new: bool) -> None:
        """Which new tokens count, for each way of counting that is wanted."""
        assert self._n is not None
        place = self._n[:, None] + _cumsum(self.valid.long()) - 1  # of each token in its row
        self._n = place[:, -1] + 1
        own = None
        if new and self._expected is not None:
            ids, keep = self._expected
            if ids.shape == self.ids.shape and torch.equal(ids.to(self.ids.device), self.ids):
                own = keep.to(self.ids.device)
        for how in self._wanted:
            counts = self.valid
            if how.at is not None:
                counts = counts & (place == how.at)
            if not how.special:
                counts = counts & (own if own is not None else ~torch.isin(self.ids, self._special))
            if not how.first and new:
                counts = counts & (place > 0)
            self._counts[how] = counts

    def counts(self, how: Counting, device: torch.device) -> Tensor:
        """Which new tokens count, bool [b, t]."""
        found = self._counts[how]
        return found if found.device == device else found.to(device)


def _cumsum(x: Tensor) -> Tensor:
    """Along the tokens; of a single one itself."""
    return x if x.shape[1] == 1 else x.cumsum(dim=1)


def _length(past: Any) -> int:
    """Tokens in a cache of keys and values."""
    if past is None:
        return 0
    if hasattr(past, "get_seq_length"):
        return int(past.get_seq_length())
    return 1  # a form of its own: not empty
