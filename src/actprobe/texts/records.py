"""What decides the table of a dataset, and what a job needs to make it; the same for its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actprobe.cache.plan import Nothing, Record, Target

NAMED = ("id", "label", "group", "split", "pair")


@dataclass(frozen=True, kw_only=True)
class FileSource(Record):
    """A file by its SHA-256, or a member of the wheel with this SHA-256."""

    sha256: str
    member: str | None = None


@dataclass(frozen=True, kw_only=True)
class HubSource(Record):
    """Files of a commit of a dataset on the hub (ORG/NAME)."""

    hub: str
    commit: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Messages(Record):
    """All messages of a column."""

    column: str


@dataclass(frozen=True, kw_only=True)
class Message(Record):
    """One message, its text put together by a template."""

    role: str
    template: str


@dataclass(frozen=True, kw_only=True)
class Alpaca(Record):
    """The columns of a chat in the form of Alpaca; None where there is none."""

    instruction: str
    input: str | None = None
    output: str | None = None
    system: str | None = None
    history: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Those that there are, by what they hold."""
        return {k: column for k, column in vars(self).items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class ChatSpec(Record):
    """How chats are put together.

    items: what follows each other; roles: the file's own names of roles; tools: column of their
    definitions.
    """

    items: tuple[Messages | Message | Alpaca, ...]
    roles: Mapping[str, str] = field(default_factory=dict)
    tools: str | None = None


@dataclass(frozen=True, kw_only=True)
class SampleSpec(Record):
    """n rows of each dataset; `by` as the config has it, and the column that it means."""

    n: int
    seed: int = 0
    by: str | None = None
    equal: bool = False
    column: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpanSpec(Record):
    """Labels of parts of a text: their column, and the keys of its objects.

    counted: what characters are counted in (`in` of the config); positive, ignore: labels; outside:
    "negative" or "ignore"; rows: a row of each span.
    """

    column: str
    counted: str | None = None
    start: str = "start"
    end: str = "end"
    label: str = "label"
    message: str = "message"
    text: str = "text"
    positive: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    outside: str = "negative"
    rows: bool = False


@dataclass(frozen=True, kw_only=True)
class TurnSpec(Record):
    """Labels of turns: the key in a message or the column of lists; rows: a row of each turn."""

    label: str | None
    labels: str | None
    role: str
    rows: bool

    @property
    def named(self) -> str | None:
        """Where the labels stand; None where turns have none."""
        return self.label or self.labels


@dataclass(frozen=True, kw_only=True)
class TextSpec(Record):
    """What decides the table of a dataset.

    text, id, label, group, split, pair: columns; positive: the class that becomes 1, in contrastive
    pairs the column of `answers`, their two columns. label_kind: None where the values decide. keep:
    column -> cell texts; where: column -> conditions. separator, quotes: of csv and tsv. template:
    None where the text is the column's. prompts: chats that wait for an answer; extra: columns that
    the labels of answers need.
    """

    source: FileSource | HubSource
    format: str
    text: str
    id: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    pair: str | None = None
    positive: str | None = None
    label_kind: str | None = None
    keep: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    separator: str | None = None
    quotes: bool | None = None
    answers: tuple[str, ...] = ()
    template: str | None = None
    chat: ChatSpec | None = None
    sample: SampleSpec | None = None
    spans: SpanSpec | None = None
    turns: TurnSpec | None = None
    prompts: bool = False
    extra: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """Config key -> column of `NAMED`, as far as the dataset has them."""
        return {k: column for k in NAMED if (column := getattr(self, k)) is not None}


@dataclass(frozen=True, kw_only=True)
class TextArgs(Record):
    """How a job reads a dataset, and what is known of it.

    file, bytes: the file (of the hub the first) and the size of all, 1 where it is not known; raws:
    fetched files of the hub; place: on the hub, with the reason why it cannot be looked at. columns:
    config key -> column that has a meaning. rows: digest of all rows in their order; facts: of the
    header; bad: why the dataset cannot be used; the target's key and None where it was not read yet.
    """

    file: str
    bytes: int
    provenance: Mapping[str, Any]
    columns: Mapping[str, str]
    raws: tuple[str, ...] = ()
    place: Mapping[str, Any] | None = None
    rows: str = ""
    facts: Mapping[str, Any] | None = None
    bad: str | None = None


@dataclass(frozen=True, kw_only=True)
class HubArgs(Record):
    """A file of a commit of a repository; size in bytes."""

    repo: str
    revision: str
    file: str
    size: int


@dataclass(frozen=True, kw_only=True)
class WheelArgs(Record):
    """What pip calls a wheel."""

    package: str
    version: str


TextTarget = Target[TextSpec, TextArgs]
HubTarget = Target[Nothing, HubArgs]
WheelTarget = Target[Nothing, WheelArgs]
