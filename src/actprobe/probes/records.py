"""Specs and args of fits: what decides them, and what a job needs besides. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actprobe.cache.plan import Record, Target


@dataclass(frozen=True, kw_only=True)
class Fitted(Record):
    """What decides a fit, whatever it reads.

    protocol: its name; recipe: digest of what of it decides this fit; keep: whether models and scores
    are kept; extensions: digests of files of the user's own, by name; labels: `one_vs_rest`, where each
    class is a task.
    """

    protocol: str
    recipe: str
    setting: str
    method: str
    keep: bool
    extensions: Mapping[str, str] | None = None
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Roles(Record):
    """What a fit on texts is made from: its texts and the numbers that are read, likewise of a test set
    of its own and of the dataset that a direction is compared with."""

    texts: str
    matrix: str
    test_texts: str | None = None
    test_matrix: str | None = None
    compare_texts: str | None = None
    compare_matrix: str | None = None


@dataclass(frozen=True, kw_only=True)
class FitSpec(Fitted, _Roles):
    """A fit on a dataset of texts: the keys of what it is made from."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec(Fitted):
    """A fit on features of LoRA weights.

    features: keys by representation; table: what identifies the labels; min_per_class: classes with
    fewer LoRAs are left out; columns: patterns of modules, or `each`; ignored, usable: of the control
    recipe_only, metadata that are not read, and the key of a representation of the LoRAs with weights.
    """

    features: Mapping[str, str]
    table: str | Mapping[str, Any]
    columns: str | tuple[str, ...]
    min_per_class: int | None = None
    ignored: tuple[str, ...] | None = None
    usable: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Place(Record):
    """Names in the results, all "" where there is none; protocol: its name or file; threshold: the
    rule."""

    source: str
    dataset: str
    model: str = ""
    site: str = ""
    position: str = ""
    protocol: str
    threshold: Mapping[str, Any]
    applied: bool = False


@dataclass(frozen=True, kw_only=True)
class FitArgs(_Place, _Roles):
    """The paths of what a fit is made from.

    applied: whether the protocol tests elsewhere. test_set, score_at: its name and the position at which
    it is read; condition: both as one name. compare_with: name of that dataset; skips: whether it may be
    left out. unfit: why no fit of the dataset can have a number; spared: what is not read then.
    """

    test_set: str | None = None
    score_at: str | None = None
    condition: str = ""
    compare_with: str | None = None
    skips: bool = False
    unfit: str | None = None
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FeatureArgs(_Place):
    """Paths of the features, of the index of their collection and, of recipe_only, of `usable`.

    columns_named: `columns` in the results; patterns: of modules that are read; kept_bytes: estimate of
    what is kept; columns: of the labels, by kind; least: LoRAs of a class at least; table: where the
    labels are; ignored: see `FeatureSpec`.
    """

    collection: str
    representation: str
    columns_named: str
    patterns: tuple[str, ...]
    features: tuple[str, ...]
    index: str
    kept_bytes: float
    columns: Mapping[str, str | None]
    least: int | None = None
    table: Mapping[str, Any]
    ignored: tuple[str, ...] = ()
    usable: str | None = None


FitTarget = Target[FitSpec, FitArgs]
FeatureTarget = Target[FeatureSpec, FeatureArgs]
AnyFit = FitTarget | FeatureTarget
