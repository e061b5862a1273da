"""`probes`: what is probed, by which recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from actprobe.config.base import Section
from actprobe.config.kinds import KIND, NUMBER, AsList, AsText, Once, Patterns, TwoOrMore, said


def _not_each(pattern: str) -> str:
    if pattern == "each":
        raise said("expected a pattern of module names; each stands in `each_column_group: module`")
    return pattern


Columns = Annotated[
    str, AfterValidator(_not_each), Field(json_schema_extra={"not": {"const": "each"}})
]


class Threshold(Section):
    """Which score makes a row one of class 1."""

    rule: Literal["boundary", "youden", "fpr"]
    """How it is chosen."""
    fpr: Annotated[float, Field(ge=0, lt=1), NUMBER] = 0.01
    """Of rule fpr, the largest share of class 0 that may be over it."""


class Probe(Section):
    """The methods of one protocol on some sources and datasets."""

    protocol: str
    """The recipe of splits, probes, grids and metrics: `saeprobes-0.4.2`, `saeprobes-0.4.2-fast`,
    `saeprobes-paper` or `actprobe-1`; `contrastive-1` for directions; `lora-1` or `weightspace` for
    features of LoRA weights; or a YAML file of your own (its path, ending in .yaml).
    """
    settings: Annotated[Once[str], Field(min_length=1)] = ["normal"]
    """Settings of the protocol: `normal`, `scarcity` (train sizes), `imbalance` (class ratios),
    `label_noise` (flipped train labels), `ood` (tested on the dataset `{dataset}_OOD`),
    `multi_token` (probes of all tokens, of sources whose position is `tokens`: saeprobes-paper of
    activations and SAE latents, actprobe-1 of SAE latents). One that would run nothing is refused.
    """
    sources: Patterns = ["*"]
    """Which activations, as `{model}/{site}.{position}`, and which SAEs and `arrays`, by name;
    which features, as `{collection}/{representation}`, beside which the controls recipe_only
    (ranks, scales, modules and file metadata) and norm_only (the norm of each W) are always probed.
    `*`, `?` and `[…]` match as in a shell (`*` also matches `/`).
    """
    datasets: Patterns = ["*"]
    """Which datasets, by name or pattern."""
    methods: Annotated[Once[str], Field(min_length=1)] | None = None
    """Methods of the protocol; null stands for those that it runs by default. Some read
    activations, others SAE latents: each source gets those that fit it. One that no setting and
    source here runs is refused.
    """
    keep: Once[str] | None = None
    """Settings whose fits keep their model, their rows and the score of every row, by name or pattern:
    `["*"]` keeps all, `[]` none. Null keeps those with one condition for each dataset and seed (normal,
    ood, multi_token).
    """
    threshold: Threshold = Threshold(rule="boundary")
    """Which score makes a row one of class 1: `boundary`, that of the method; `youden`, the one with the
    largest difference of true and false positives; or `fpr`, the lowest one with at most this share of
    false positives. Read from rows that were not fitted, when results are read: another rule fits
    nothing again.
    """
    apply_to: list[str] = []
    """Datasets that the fits of this entry are tried on, by name or pattern; nothing is chosen on them.
    Each fit is tried on those that have its source, and on the test rows of its own dataset. Classes
    are matched by name; two classes also where both datasets say which one is meant (`positive`). Rows
    that share a text or a group with rows that were fitted are scored, and left out of the numbers.
    Where the protocol fits all rows of `datasets` (contrastive-1) these datasets must have labels, and
    are its test sets.
    """
    score_at: str | None = None
    """Position at which the datasets of `apply_to` are scored; `tokens` gives mean, max, min and
    standard deviation over each row's tokens. Null is the position of the source.
    """
    compare_with: str | None = None
    """With contrastive-1: a dataset whose own mean difference could be what a direction really found,
    such as pairs of Yes and No. Its cosine with each direction is told, and the AUC without it.
    """
    one_vs_rest: bool = False
    """Of a dataset with several classes one task for each class: it against all others. Its rows
    have the class in the column `label`.
    """
    groups: Literal["ignore"] | None = None
    """`ignore` lets a protocol that draws rows one by one (those of sae-probes) part the rows of a
    dataset that belong together: its `group`, its pairs. What of them is on both sides is told in
    the column group_fraction. Such a dataset is refused without it.
    """
    split: str | None = None
    """`ignore` lets such a protocol draw its own train and test rows from a dataset with a `split`,
    which is refused without it. Of features: the column that says train, validation or test, where
    it is not that of the collection.
    """
    label: str | None = None
    """Of features: the column with the class, where it is not that of the collection."""
    group: str | None = None
    """Of features: the column with groups, where it is not that of the collection."""
    min_per_class: TwoOrMore | None = None
    """Of features: classes with fewer LoRAs are left out; null leaves out none, and a class of one
    LoRA, which no split can train and test, ends the run before anything is computed.
    """
    columns: list[Annotated[AsText[Columns] | AsList[Patterns], KIND]] = ["*"]
    """Of features: subsets of columns, each a pattern of module names or a list of patterns that
    are taken together ("*.attn1.*"; "." and "_" are the same). Each subset is probed.
    """
    each_column_group: Literal["module"] | None = None
    """Of features: with `module` every module is probed by itself, too (layer importance)."""


Probes = Annotated[
    list[Probe],
    Field(
        description=(
            "What to probe, and by which recipe. Entries that ask for the same result share it."
        )
    ),
]
