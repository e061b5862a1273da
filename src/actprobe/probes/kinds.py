"""Label kinds: what the numbers of a label mean, and with it which methods and metrics fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BINARY, MULTICLASS, CONTINUOUS = "binary", "multiclass", "continuous"
KINDS = (BINARY, MULTICLASS, CONTINUOUS)
CLASSES = (BINARY, MULTICLASS)
ONE_VS_REST = "one_vs_rest"  # in place of the labels: a task for each class


def kind_of(facts: Mapping[str, Any]) -> str:
    """The label kind of a dataset, by the facts of its texts: `kind` where they say it, else the
    number of its classes."""
    return facts.get("kind") or kind_of_classes(facts.get("classes") or ())


def kind_of_classes(classes: Sequence[str]) -> str:
    """Binary of up to two classes, else multiclass."""
    return BINARY if len(classes) <= 2 else MULTICLASS
