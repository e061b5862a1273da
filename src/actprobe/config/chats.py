"""`datasets`: how chats stand in a file."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from actprobe.config.base import Needs, OneOf, Section, absent
from actprobe.config.kinds import KIND, AsList, AsText, Role


class Message(Section):
    """Messages of a column, or one put together."""

    one_of: ClassVar[OneOf] = (("column",), ("role", "content"))
    needs: ClassVar[Needs] = {"role": ("content",), "content": ("role",)}

    column: str | None = absent()
    """Column with messages."""
    role: Role | None = absent()
    """Role of a message."""
    content: str | None = absent()
    """Its content, with {column} for what stands in a column."""


Messages = Annotated[AsText[str] | AsList[Annotated[list[Message], Field(min_length=1)]], KIND]


class Alpaca(Section):
    """For chats in the form of Alpaca: their columns. The input follows the instruction after an
    empty line. Null for anything else.
    """

    instruction: str = "instruction"
    """Column with the user's message."""
    input: str | None = "input"
    """Column with what follows it; null where there is none."""
    output: str | None = "output"
    """Column with the answer; null where there is none."""
    system: str | None = None
    """Column with the system message."""
    history: str | None = None
    """Column with earlier turns, a list of [user, assistant]."""


class Turns(Section):
    """For chats with a label for each turn, or rows for each turn. The labels become spans that
    cover what each turn says (see `spans`; what else there is counts as unknown), or with `rows`
    the labels of rows.
    """

    label: str | None = None
    """Key of the label in a message."""
    labels: str | None = None
    """Column with a list of labels, one for each message of the role."""
    role: Role = "assistant"
    """Which messages have a label."""
    rows: bool = False
    """Make a row of each such turn: the chat up to its end. Turns without a label are no rows; the rows
    of a chat are one group unless `group` names a column. A position with `labelled` (see `activations`)
    takes the tokens of the turn.
    """
