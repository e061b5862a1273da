"""One dataset as a model will read it: all that can be made, and refused, before weights are loaded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from actprobe import texts
from actprobe.base import keys
from actprobe.base.errors import BadInput
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan.records import plain
from actprobe.models.grammar import is_labelled, is_masked
from actprobe.models.positions import Mask, Reduction, plan_reduction
from actprobe.models.reading import Reading
from actprobe.models.records import ActivationTarget, Span
from actprobe.models.tokens import Tokens, row_digests, tokens_sha256
from actprobe.texts import Texts

log = logging.getLogger(__name__)

# Facts of a header about what the model read (`Prepared.facts`), the same for all sites of a position.
READ_FACTS = (
    "n_rows", "n_tokens", "n_truncated", "n_special_in_text", "n_bos", "has_bos", "prepend_bos",
    "causal", "tokens_sha256", "first_position", "n_span_edges_in_tokens",
)  # fmt: skip


class Prepared:
    """The tokens of one dataset, and what the positions of its targets take of them.

    targets: those that can be made; ids: row ids; reductions: by `position_of`. Raises BadInput for
    a dataset that cannot be used; a position that cannot be is reported to the outcome.
    """

    def __init__(
        self, reading: Reading, rows: Texts, targets: Sequence[ActivationTarget], out: Outcome
    ):
        self.reading, self.name = reading, targets[0].item
        self.ids: list[str] = []
        self._bos = False
        self.reductions: dict[str, Reduction] = {}
        self._tokens: Tokens | None = None
        self._digests: dict[str, np.ndarray] = {}
        self.targets: list[ActivationTarget] = []
        self._tokenise(rows, targets)
        for t in targets:
            with out.guard(t):
                self._plan(t, rows)
                self.targets.append(t)
        self._tell()

    @property
    def tokens(self) -> Tokens:
        """The tokens of the dataset."""
        assert self._tokens is not None
        return self._tokens

    def held(self) -> Prepared:
        """Itself, with what was let go made anew."""
        if self._tokens is None:
            rows = texts.load(self.targets[0].args.texts)
            self._tokenise(rows, self.targets)
            for t in self.targets:
                self._plan(t, rows)
        return self

    @property
    def nbytes(self) -> int:
        """Memory that is held, in bytes."""
        arrays = [r.read for r in self.reductions.values()]
        if self._tokens is not None:
            t = self._tokens
            more = (t.chars, t.types, t.said)
            arrays += [t.ids, t.content, *(a for a in more if a is not None)]
        return sum(a.nbytes for a in arrays)

    def let_go(self) -> None:
        """Give the memory back, until `held`."""
        self._tokens = None
        self.reductions.clear()

    def digests(self, t: ActivationTarget) -> np.ndarray:
        """`row_digests` of a target, uint8 [N, 16]."""
        p = position_of(t)
        if p not in self._digests:
            reduction = self.reductions[p]
            self._digests[p] = row_digests(self.tokens, reduction.kind, reduction.read)
        return self._digests[p]

    def facts(self, t: ActivationTarget) -> dict[str, Any]:
        """What the header of a target tells about its tokens."""
        tokens, p = self.tokens, position_of(t)
        reduction = self.reductions[p]
        facts = {
            "n_rows": len(tokens.lengths),
            "n_tokens": len(tokens.ids),
            "n_truncated": tokens.n_truncated,
            "n_special_in_text": tokens.n_special,
            "n_bos": tokens.n_bos,
            "has_bos": self.reading.tokenizer.bos_token_id is not None,
            "prepend_bos": self._bos,
            "causal": self.reading.causal,
            "tokens_sha256": tokens_sha256(self.digests(t)),
        }
        if is_masked(t.spec.position):
            facts["first_position"] = "left out" if self.reading.leaves_first_out else "kept"
        if isinstance(t.spec.position, Span):
            facts["n_span_edges_in_tokens"] = reduction.edges
        return facts

    def _tokenise(self, rows: Texts, targets: Sequence[ActivationTarget]) -> None:
        self.ids, self._bos = rows.id.tolist(), self.reading.prepends_bos(rows.chats is not None)
        positions = [t.spec.position for t in targets]
        chars = any(isinstance(p, Span) for p in positions)
        if not chars and "tokens" in positions:  # which keeps them where there are any
            chars = self.reading.has_offsets
        with self._named():
            self._tokens = self.reading.encode(rows.rows, self.ids, chars)

    def _plan(self, t: ActivationTarget, rows: Texts) -> None:
        p = position_of(t)
        if p in self.reductions:
            return
        mask = Mask(self.reading.settings["exclude_special"], self.reading.leaves_first_out)
        with self._named():
            self.reductions[p] = plan_reduction(
                self.tokens, t.spec.position, mask, rows.text.tolist(), self.ids, rows.parts
            )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Put the model's and the dataset's name before what is wrong with a row."""
        try:
            yield
        except BadInput as e:
            raise BadInput(f"{self.reading.name} on {self.name}: {e}") from e

    def _tell(self) -> None:
        t, n = self.tokens, len(self.ids)
        if t.n_truncated:
            most = self.reading.most
            log.warning("%s: %d of %d rows cut to %d tokens", self.name, t.n_truncated, n, most)
        if t.n_special:
            how = {"keep": "kept as tokens", "plain": "read as characters"}
            log.warning(
                "%s: %d of %d rows spell out special tokens, %s (special_tokens_in_text)",
                self.name, t.n_special, n, how[self.reading.settings["special_tokens_in_text"]],
            )  # fmt: skip
        for target in self.targets:
            if edges := self.reductions[position_of(target)].edges:
                log.warning(
                    "%s: %s: in %d of %d rows an edge of the span lies inside a token; tokens that "
                    "%s are taken",
                    self.name, target.args.source, edges, n,
                    "lie in it in part" if is_labelled(target.spec.position) else "begin in the span",
                )  # fmt: skip


def position_of(t: ActivationTarget) -> str:
    """What tells positions apart: two entries of the config may call different spans the same."""
    meaning = t.spec.position
    return meaning if isinstance(meaning, str) else keys.canonical_json(plain(meaning))
