"""What decides the activations of a job, and what else it needs: the specs and args of the room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actprobe.cache.plan import Record, Target


@dataclass(frozen=True, kw_only=True)
class Span(Record):
    """Part of a row: by characters, by a marker, by what somebody says, or what its label is of.

    chars: first character and the one after the last, from the text's end where negative; occurrence: of
    the marker, first or last; turn: the how manyth message of the role, from the end below 0; reduce:
    what becomes of its tokens, mean, max, last, first or after.
    """

    reduce: str
    occurrence: str
    chars: tuple[int, int | None] | None = None
    marker: str | None = None
    labelled: bool | None = None
    role: str | None = None
    turn: int | None = None
    part: str | None = None

    @property
    def said(self) -> bool:
        """Whether it is what somebody says in a chat."""
        return (self.role, self.turn, self.part) != (None, None, None)


Position = str | Span


@dataclass(frozen=True, kw_only=True)
class Reads(Record):
    """Settings of a model that decide which tokens it reads, and, of positions that leave tokens out,
    which.

    max_length: tokens of a row; chat: how texts become conversations, as in the config.
    """

    max_length: int | None = None
    truncation_side: str
    add_special_tokens: bool
    prepend_bos: bool | str
    special_tokens_in_text: str
    chat: Mapping[str, Any] | None = None
    exclude_special: bool | None = None
    exclude_first: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ActivationSpec(Record):
    """What decides an activation artefact.

    texts: key of the rows in their order; parts: key of the parts that labels are of, for positions that
    take them; model: what identifies the weights (`sources.Source.identity`); max_tokens_per_batch: None
    where the device decides.
    """

    texts: str
    parts: str | None = None
    model: Mapping[str, Any]
    layer_list: str | None = None
    dtype: str
    attn_implementation: str | None = None
    max_tokens_per_batch: int | None = None
    share_prefix: bool
    tokens: Reads
    site: str
    position: Position


@dataclass(frozen=True, kw_only=True)
class ActivationArgs(Record):
    """What an activations job needs besides: names of the config, the file of texts, where the model is
    (`sources.Source.place`), and whether rows of older files are taken."""

    source: str
    model: str
    site: str
    position: str
    texts: str
    place: Mapping[str, Any]
    reuse_rows: bool


ActivationTarget = Target[ActivationSpec, ActivationArgs]


@dataclass(frozen=True, kw_only=True)
class DifferenceSpec(Record):
    """What decides a difference: the keys of the two activations, and their position."""

    of: str
    minus: str
    position: Position


@dataclass(frozen=True, kw_only=True)
class DifferenceArgs(Record):
    """What a difference needs besides: names as of activations, and the files of both."""

    source: str
    model: str
    site: str
    position: str
    texts: str
    of: str
    minus: str


DifferenceTarget = Target[DifferenceSpec, DifferenceArgs]
