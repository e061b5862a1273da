"""What a protocol may say: the keys of its file, checked when it is loaded.

Numbers are YAML numbers: what a protocol says is part of keys as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from actprobe.config import Needs, Strict, absent
from actprobe.config.kinds import KIND, AsMapping, AsNumber, AsText, AsWhole, Once, spelled
from actprobe.probes.grammar_methods import Count, Ks, Method, Real, Share, Two, Zero

_WORD = spelled(r"^[a-z0-9_]+$", "a name of small letters, digits and `_`")
Entry = Annotated[str, _WORD]


class Rows(Strict):
    """How much of a dataset is used."""

    most: Count
    """Rows of a dataset beyond so many are not used."""
    kept: Literal["first", "drawn"]
    """Which ones are used of a longer dataset: its first rows (`first`), or labelled rows drawn at
    random with each seed (`drawn`).
    """


class SplitOfRows(Strict):
    """Rows are drawn one by one."""

    groups: Literal["ignore"]
    n_train: Two
    """Most train rows."""
    n_test: Count
    """Rows that must stay for testing."""
    spare: Zero
    """Rows left out of the test set."""


class SplitOfGroups(Strict):
    """Equal texts and groups stay on one side; where a dataset's own split parts them, they do not
    train.
    """

    groups: Literal["disjoint"]
    n_train: Two
    """Most train rows."""
    test_fraction: Share
    """Share of each class that tests."""
    least_test: Two
    """Test rows of each class without which there is no number."""


class SplitOfDatasets(Strict):
    """All rows of a dataset train, and the datasets of `apply_to` test."""

    groups: Literal["elsewhere"]
    least_test: Two
    """Rows of each class that a dataset of `apply_to` needs."""


class SplitByShares(Strict):
    """By shares of the rows. A split of the collection's own decides where there is one."""

    kind: Literal["stratified", "random"]
    """`stratified` by class, and by whole groups where there are any, or `random`."""
    test: Share
    """Share of test rows."""
    validation: Share
    """Share of validation rows."""
    seed: Annotated[AsText[Literal["per_run"]] | AsWhole[Zero], KIND]
    """`per_run`, or one seed for the split of all runs."""


def _split(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<kind: …>" if "kind" in value else f"<groups: {value.get('groups')}>"
    return "<no mapping>"


Split = Annotated[
    Annotated[SplitOfRows, Tag("<groups: ignore>")]
    | Annotated[SplitOfGroups, Tag("<groups: disjoint>")]
    | Annotated[SplitOfDatasets, Tag("<groups: elsewhere>")]
    | Annotated[SplitByShares, Tag("<kind: …>")],
    Discriminator(_split),
]


class Holdout(Strict):
    """From there on the last rows are held out, the smaller of these two."""

    fraction: Share
    rows: Count


class Validation(Strict):
    """Which of the train rows choose hyperparameters, by their number."""

    none_up_to: Count | None = absent()
    """No search up to so many rows."""
    leave_pairs_out_up_to: int | None = absent()
    """Every pair is left out once."""
    folds: Two
    """Number of stratified folds."""
    folds_below: int | None = absent()
    """Stratified folds below so many rows."""
    holdout: Holdout | None = absent()
    one_class_fold: Real
    """AUC of a fold whose fit part has one class."""
    groups: Literal["ignore", "disjoint", "whole"]
    """With `disjoint`, rows that share a text or group with validation rows sit out; with `whole`,
    whole groups, pairs and equal texts are dealt to the folds, whatever the number of rows.
    """
    digits: Count | None = absent()
    """AUCs equal to so many digits are equal; all digits count if absent."""
    ties: Literal["accuracy"] | None = absent()
    """Of many classes, equal AUCs go to the higher accuracy on the validation rows. An AUC looks at one
    class at a time and is 1 for many penalties, of which the strongest mix the classes up.
    """

    @classmethod
    def disagreements(cls, value: Mapping[str, Any]) -> Iterator[str]:
        """Folds of whole groups do not depend on the number of rows; all else does."""
        if value.get("groups") == "whole":
            return
        for key in ("none_up_to", "leave_pairs_out_up_to", "folds_below", "holdout"):
            if key not in value:
                yield f"{key!r} is missing; only `groups: whole` does without"


class Interval(Strict):
    """The interval of the main metric over test rows."""

    level: Share


class Controls(Strict):
    """What the number of a direction is compared with: a null band of random directions, and one of
    fits of its method on train labels that are permuted at random, within pairs and between whole
    groups.
    """

    random: Annotated[int, Field(ge=200)]
    """Random directions in their band."""
    permuted: Annotated[int, Field(ge=200)]
    """Fits on permuted labels."""


class Setting(Strict):
    """Conditions of one kind; without `vary` there is one."""

    needs: ClassVar[Needs] = {
        "vary": ("values",),
        "values": ("vary",),
        "range": ("vary",),
        "test_set": ("n_train",),
    }

    vary: Literal["n_train", "ratio", "noise"] | None = absent()
    """What the conditions differ in."""
    values: (
        Annotated[list[Annotated[AsWhole[int] | AsNumber[Real], KIND]], Field(min_length=1)] | None
    ) = absent()
    """Its values."""
    range: Annotated[tuple[Share, Share], Field(strict=False)] | None = absent()
    """Smallest and largest ratio. All ratios have as many rows as these two allow, whichever are
    among the `values`.
    """
    ks: Ks | None = absent()
    methods: list[str] | None = absent()
    """Methods of this setting; all but those that read tokens if absent."""
    test_set: str | None = absent()
    """Dataset that tests `{dataset}`."""
    rows: Two | None = absent()
    """In place of `rows.most`, for the train dataset."""
    n_train: Two | None = absent()
    """Train rows with a test set of its own."""
    spare: Zero | None = absent()
    """In place of the split's `spare`."""
    max_tokens: Count | None = absent()
    """Only so many last tokens of a row are read."""

    @classmethod
    def disagreements(cls, value: Mapping[str, Any]) -> Iterator[str]:
        """Ratios need their range."""
        yield from super().disagreements(value)
        if value.get("vary") == "ratio" and "range" not in value:
            yield "'range' is missing, which `vary: ratio` needs"


class Protocol(Strict):
    """A named, frozen recipe of splits, probes, grids and metrics."""

    name: Annotated[
        str,
        spelled(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "a name of letters, digits, `.`, `_` and `-`"),
    ]
    """Name of the protocol, which is the file's name without .yaml."""
    description: str
    """What it reproduces, and where it differs."""
    bos: Literal["added", "any"]
    """What causal models must have read before the text: the token for the beginning of a sequence
    (`added`; rows without one are refused), or whatever the config says (`any`).
    """
    seeds: Annotated[Once[Annotated[int, Field(ge=0, le=4294967295)]], Field(min_length=1)]
    """One table row per seed; a seed drives splits, folds and solvers."""
    rows: Annotated[AsText[Literal["all"]] | AsMapping[Rows], KIND]
    split: Split
    """How rows are dealt to train and test."""
    select: str | None = absent()
    """Metric that chooses on validation rows, and that fits are compared by; that of the label kind
    if absent (AUC, R²).
    """
    validation: Annotated[AsText[Literal["split"]] | AsMapping[Validation], KIND]
    """Which rows choose hyperparameters: the split's own validation rows (`split`; what they choose
    is not fitted again), or some of the train rows, by their number.
    """
    interval: Interval
    controls: Controls | None = absent()
    baselines: Once[str] | None = absent()
    """Methods that run beside any others that an entry of `probes` names."""
    settings: Annotated[dict[Entry, Setting], Field(min_length=1)]
    """Named settings, each with its conditions."""
    methods: Annotated[dict[Entry, Method], Field(min_length=1)]
    """Named probes."""
