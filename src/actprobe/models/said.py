"""Which tokens of chats say what: by role, by message, by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actprobe.errors import BadInput
from actprobe.models.segments import NO_TURN, PART, ROLE
from actprobe.models.tokens import Tokens


def tokens(tokens: Tokens, span: Mapping[str, Any]) -> np.ndarray:
    """The tokens of what is said, bool [T].

    span: `role`, `turn` (the how manyth message of this role, or of all; from the end below 0) and
    `part`, those that are given. Raises BadInput for rows that are no chats.
    """
    if tokens.said is None or tokens.roles is None:
        raise BadInput(
            f"a span of {words(span)} is for chats, and these rows are texts: leave the dataset out "
            "(`datasets` of this entry of `activations`), or give the model a `chat`"
        )
    role, turn, part = tokens.said.T
    keep = role > 0
    if "role" in span:
        keep &= role == ROLE[span["role"]]
    if "part" in span:
        keep &= part == PART[span["part"]]
    if "turn" in span:
        wanted = ROLE[span["role"]] if "role" in span else None
        turns = np.array([_turn(roles, wanted, span["turn"]) for roles in tokens.roles], np.int64)
        keep &= turn == np.repeat(turns, tokens.lengths)
    return keep


def _turn(roles: bytes, wanted: int | None, n: int) -> int:
    """The number of a message; one that no message has where there is none."""
    own = [k for k, role in enumerate(roles) if wanted in (None, role)]
    return own[n] if -len(own) <= n < len(own) else NO_TURN - 1


def words(span: Mapping[str, Any]) -> str:
    """What a span takes, in words."""
    what = f"the {span['part']} of" if "part" in span else "what is said in"
    which = f"message {span['turn']}" if "turn" in span else "all messages"
    return f"{what} {which}" + (f" of role {span['role']}" if "role" in span else "")
