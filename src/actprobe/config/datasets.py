"""`datasets`: labelled texts and chats."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actprobe.config.base import OneOf, Section, absent
from actprobe.config.chats import Alpaca, Messages, Turns
from actprobe.config.generate import Generate
from actprobe.config.kinds import (
    KIND,
    AsBool,
    AsList,
    AsMapping,
    AsNumber,
    AsText,
    AsWhole,
    Label,
    Natural,
    Number,
    Positive,
    Text,
    TextOrList,
    spelled,
)

Format = Literal[
    "csv", "tsv", "json", "jsonl", "csv.zst", "tsv.zst", "json.zst", "jsonl.zst", "parquet"
]
Separator = Annotated[
    str,
    spelled(r'^[^"\r\n]$', "one character, no double quote and no line break"),
]
Cell = Annotated[AsText[str] | AsWhole[int] | AsNumber[Number] | AsBool[bool], KIND]
Cells = Annotated[
    AsText[str] | AsWhole[int] | AsNumber[Number] | AsBool[bool] | AsList[list[Cell | None]],
    KIND,
]


Labels = Annotated[AsText[str] | AsWhole[int] | AsBool[bool] | AsList[list[Label]], KIND]
Where = Literal["message", "last_assistant", "last_user", "last_system", "last_tool", "text"]


class Member(Section):
    """A name, and what stands for it in the path."""

    name: str
    """Name of the dataset."""
    member: str
    """What replaces `{name}` in the path."""


NameOrMember = Annotated[AsText[str] | AsMapping[Member], KIND]


class Hub(Section):
    """Which files of a dataset on the hub, where `path` names none: those of a config and a split,
    as the repository's README says, else by their names.
    """

    config: str | None = None
    """Name of the config (subset); null where there is one, or one called default."""
    split: str
    """Name of the split, such as train."""


class Contrastive(Section):
    """For rows that are a question (in the column `text`) with two answers: each becomes two rows,
    labelled 1 with the positive and 0 with the negative answer and joined as a pair. `label`,
    `positive` and `pair` are then not read. Null for ordinary rows.
    """

    positive: str = "positive"
    """Column with the answer of class 1."""
    negative: str = "negative"
    """Column with the answer of class 0."""


class Sample(Section):
    """Take some of the rows that `keep` and `where` leave, the same ones in every run: each row's
    rank depends on the seed and on what it says, not on its place. How many of how many stands in
    the tables. Null takes all.
    """

    n: Positive
    """How many rows of the file."""
    seed: Natural = 0
    """Another seed is another sample."""
    by: str | None = None
    """label, group, split or a column: its values keep their shares (stratified), and each has a
    row at least. Null takes rows whatever they are.
    """
    equal: bool = False
    """As many rows of each value of `by`, instead of its share."""


class SpanLabels(Section):
    """Labels of parts of a text: a column that holds for each row a list of [start, end, label] or
    of objects, characters counted from 0, the end left out. Tokens get their labels from them.
    """

    column: str
    """The column."""
    in_: Where | None = Field(default=None, alias="in")
    """Where chats count characters: in the content of the message whose number each entry gives
    (message), of the last message of a role (last_assistant, last_user, last_system, last_tool), or
    in the text of the whole chat (text). Null is message where an entry names one, else
    last_assistant. In texts always {text}.
    """
    start: str = "start"
    """Key of the first character in an object."""
    end: str = "end"
    """Key of the character after the last one; where it is missing the quoted text tells."""
    label: str = "label"
    """Key of the label."""
    message: str = "message"
    """Key of the number of the message, from 0."""
    text: str = "text"
    """Key of the quoted text. Where the characters do not hold it, it is searched for after the
    span before.
    """
    positive: (
        Annotated[AsText[str] | AsWhole[int] | AsBool[bool] | AsList[list[Label]], KIND] | None
    ) = None
    """The label or labels that become class 1; all others become 0."""
    ignore: list[Label] = []
    """Labels of spans that are left out of training and numbers."""
    outside: Literal["negative", "ignore"] = "negative"
    """What lies in no span: negative (of class 0) or ignore (nothing is known of it)."""
    rows: bool = False
    """Make a row of each span that has a label: the text, or the chat up to the end of the message that
    holds the span. The rows of a text are one group unless `group` names a column. What becomes of the
    span's tokens says a position with `labelled` (see `activations`). Where no span has a label, rows
    have that of their text.
    """


class Dataset(Section):
    """One dataset, or several that differ only in the `{name}` in their path."""

    one_of: ClassVar[OneOf] = (("name",), ("names",))

    name: str | None = absent()
    """Name of the dataset in file names and tables: letters, digits, `.`, `_` and `-`. Each name
    stands for one dataset only.
    """
    names: Annotated[list[NameOrMember], Field(min_length=1)] | None = absent()
    """Names of several datasets; each replaces `{name}` in `path`. Where the file is called
    something that cannot be a name, write `{name: living_room, member: "living room"}`: the
    `member` then stands in the path.
    """
    path: str
    """The file: a path (from the folder where snakemake is started, or absolute),
    `wheel:NAME/member/path` for a file in one of the `wheels`, or `hub:ORG/NAME@COMMIT/FILE` for
    one of a dataset on the Hugging Face hub (FILE may be a pattern such as `data/train-*.parquet`;
    without it see `hub`). Files of the hub are fetched once, checked against the digests that it
    lists, and kept in the cache. `{name}` stands for the name.
    """
    hub: Hub | None = None
    format: Format | None = None
    """Format of the file, in UTF-8; null reads it off the end of the path. csv is RFC 4180 with a
    header row: a cell with a comma, a double quote or a line break stands in double quotes, and
    quotes inside are doubled. tsv is the same with tabs where all quotes of the file keep these
    rules; in any other tsv file quotes are text and every line is a row (see `quotes`). json is a
    list of objects or an object of equally long lists, jsonl one object per line. Cells are taken
    as they are written, with their spaces; lines end with LF or CRLF; empty lines are no rows. Rows
    with too few or too many cells, a column or key that stands twice, and what breaks the format
    are refused with the line. Messages count rows from 0, the first below the header, and lines of
    the file from 1.
    """
    separator: Separator | None = None
    """The character between the cells of a csv file, such as ";"; null is the comma."""
    quotes: bool | None = None
    """For csv and tsv: true reads double quotes by RFC 4180, false takes them as text and every
    line as a row. Null is true for csv; for tsv the file decides, and one that can be read both
    ways with different rows is refused.
    """
    text: str = "text"
    """Column with the text. Every row must have one that is more than white space. In csv and tsv
    it is taken literally: "NA" and "null" are texts.
    """
    messages: Messages | None = None
    """For chats: the column with the messages, a list of objects (or the JSON text of one) with
    `role` and `content`, and where there are any `reasoning_content`, `tool_calls`, `tool_call_id`
    and `name`; or with `from` and `value` (ShareGPT). Or a list that puts chats together: `{column:
    NAME}` for the messages of a column, `{role: user, content: "{question}"}` for a message with
    columns put in (see `template`; a system message that stays empty is left out). A chat is read
    through the model's own template. Messages without content, unknown roles and chats without
    messages are refused with their rows.
    """
    alpaca: Alpaca | None = None
    tools: str | None = None
    """For chats: the column with the tools that the model is offered, a list of definitions or the
    JSON text of one.
    """
    roles: dict[str, str] = {}
    """For chats: what the file calls roles, such as `{narrator: system}`. human, gpt, function,
    observation, ipython and their likes are known.
    """
    label: str | None = "label"
    """Column with the class: booleans, whole numbers or strings. Classes are sorted and numbered 0,
    1, …: numbers by value, strings by code point. In csv and tsv their names stay as they are
    written; labels that are all numbers or all booleans are sorted as such, "NA" and "null" are
    names among words, empty cells and "nan" are missing. Two spellings of one label (1 and 01, True
    and true) are refused. Numbers with fractions, or of which more than 20 are different, are
    values of a continuous label. Null for texts without labels.
    """
    label_kind: Literal["binary", "multiclass", "continuous"] | None = None
    """What the labels are, where their values do not tell it: `binary`, `multiclass` or
    `continuous`.
    """
    positive: Label | None = None
    """The class that becomes 1, by its name or its value: true, True and "true" name the same
    class. Of two classes the other becomes 0; of more, all others together. Null numbers the sorted
    classes.
    """
    id: str | None = None
    """Column with a unique name for each row; null counts the rows of the file from 0, as messages
    do.
    """
    group: str | None = None
    """Column with what rows have in common (an author, a template), for splits that keep a group
    together.
    """
    split: str | None = None
    """Column that says which split a row belongs to, for protocols that use given splits."""
    pair: str | None = None
    """Column that joins the two rows of a contrastive pair."""
    contrastive: Contrastive | None = None
    template: Text | None = None
    """How a row's text is put together: {NAME} stands for the column NAME, {text} for the column
    that `text` names and, in contrastive pairs, {answer} for the answer; {{ and }} stand for
    braces. What stands in a column is not read again; an empty cell puts nothing in, a missing
    value is refused. Null takes the text as it is, and pairs as the question, an empty line and the
    answer. For a chat model let the answer follow a marker, such as "{text}<answer>{answer}", and
    name it in the model's `chat.answer_after`.
    """
    keep: dict[str, Cells | None] = {}
    """Which rows to use: a column and the value, or list of values, that it must have (null means
    an empty cell). A value means the cells of the same boolean, number or word, such as true in the
    file for True here; where the file spells it in several ways, each must be listed. With several
    columns all must hold.
    """
    where: dict[str, TextOrList] = {}
    """Which rows to use, by comparison: a column and a condition, or a list of conditions that must
    all hold. A condition is < <= > >= == != with a value (numbers are compared as numbers, anything
    else by code point, as ISO dates are), or ~ and !~ with a regular expression that is, or is not,
    found in the cell. A cell without a value fulfils no condition.
    """
    sample: Sample | None = None
    spans: Annotated[AsText[str] | AsMapping[SpanLabels], KIND] | None = None
    """Labels of parts of a text: a column that holds for each row a list of [start, end, label] or
    of objects, characters counted from 0, the end left out. Tokens get their labels from them.
    """
    turns: Turns | None = None
    generate: Generate | None = None


Datasets = Annotated[
    list[Dataset],
    Field(
        description=(
            "Labelled texts and chats. An entry describes one dataset with `name`, or several "
            "files of one shape with `names`. docs/data.md shows every form with an example."
        )
    ),
]
