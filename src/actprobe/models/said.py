"""Which tokens of chats say what: by role, by message, by part."""

from __future__ import annotations

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.models.records import Span
from actprobe.models.segments import NO_TURN, PART, ROLE
from actprobe.models.tokens import Tokens


def tokens(tokens: Tokens, span: Span) -> np.ndarray:
    """The tokens of what is said, bool [T].

    span: by `role`, `turn` (of this role, or of all messages) and `part`, those that are given. Raises
    BadInput for rows that are no chats.
    """
    if tokens.said is None or tokens.roles is None:
        raise BadInput(
            f"a span of {words(span)} is for chats, and these rows are texts: leave the dataset out "
            "(`datasets` of this entry of `activations`), or give the model a `chat`"
        )
    role, turn, part = tokens.said.T
    keep = role > 0
    wanted = None if span.role is None else ROLE[span.role]
    if wanted is not None:
        keep &= role == wanted
    if span.part is not None:
        keep &= part == PART[span.part]
    if span.turn is not None:
        turns = np.array([_turn(roles, wanted, span.turn) for roles in tokens.roles], np.int64)
        keep &= turn == np.repeat(turns, tokens.lengths)
    return keep


def _turn(roles: bytes, wanted: int | None, n: int) -> int:
    """The number of a message; one that no message has where there is none."""
    own = [k for k, role in enumerate(roles) if wanted in (None, role)]
    return own[n] if -len(own) <= n < len(own) else NO_TURN - 1


def words(span: Span) -> str:
    """What a span takes, in words."""
    what = "what is said in" if span.part is None else f"the {span.part} of"
    which = "all messages" if span.turn is None else f"message {span.turn}"
    return f"{what} {which}" + ("" if span.role is None else f" of role {span.role}")
