"""`datasets.generate`: rows that a model answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from actprobe.config.base import Section, absent
from actprobe.config.kinds import NUMBER, Natural, NotNegative, Positive, Text


class AnswerLabel(Section):
    """Where the label of an answer comes from. Null is the column `label`; rows where nothing is
    found have no label.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @classmethod
    def disagreements(cls, value: Mapping[str, Any]) -> Iterator[str]:
        """Without any key there is no label."""
        if not value:
            yield f"expected one of: {', '.join(cls.keys_known())}"

    matches: str | None = absent()
    """A regular expression that is searched for in the answer. With a group the label is what the
    group holds, without one whether it is found (False, True).
    """
    equals: str | None = None
    """Column with the right value: the label is whether the group of `matches` (else the whole
    answer) is equal to it, white space and case aside.
    """
    function: str | None = absent()
    """A Python file of yours with a function `label(row)`, which gets id, messages, answer and the
    `columns` as a dict and gives a string, a whole number, a boolean or None. The file is run in
    the job; its digest is in the key.
    """
    columns: list[str] = []
    """Columns of the prompts' file that the function gets."""


class Generate(Section):
    """Let a model answer: each row's text, template or chat is a prompt, and the dataset's rows are
    the chats that end with its answer. Answers are computed once (stage `answers`) and kept; one
    more prompt computes its own answer alone. Null takes the rows as they are.
    """

    model: str
    """A name of `models`; it needs a chat template. Its `chat` settings hold."""
    max_new_tokens: Positive
    """Most tokens of an answer. A prompt with which the model could not hold so many is refused
    with its row.
    """
    min_new_tokens: Natural = 1
    """Tokens before which the model may not end its answer."""
    temperature: NotNegative = 0.0
    """0 takes the most likely token always (greedy); above, tokens are sampled."""
    top_k: Positive | None = None
    """Sample among so many most likely tokens; null among all."""
    top_p: Annotated[float, Field(gt=0, le=1), NUMBER] = 1.0
    """Sample among the most likely tokens that have this probability together."""
    seed: Natural = 0
    """Of the sampling. Each row has random numbers of its own, which depend on the seed and the
    prompt, so that an answer does not depend on the other rows.
    """
    stop: list[Text] = []
    """Strings that end an answer; they are no part of it."""
    unfinished: Literal["keep", "refuse"] = "keep"
    """What becomes of answers that reach max_new_tokens: keep them as they are (their number stands
    in the header and the log), or refuse them.
    """
    label: AnswerLabel | None = None
    """Where the label of an answer comes from. Null is the column `label`; rows where nothing is
    found have no label.
    """
