"""Which columns of a table are features."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Collection, Sequence

from actprobe.arrays.targets import ArraySpec
from actprobe.base.errors import BadInput
from actprobe.texts.checks import Place, require_columns
from actprobe.texts.values import listed, shown

IDS = ("id", "ids")  # columns and arrays of these names say whose the rows are


def chosen(
    names: Sequence[str], spec: ArraySpec, place: Place, index: Collection[str] = ("",)
) -> list[int]:
    """Places of the columns that may be features, in the file's order.

    The id is never one, nor is one of `index`, names of columns with the row labels of pandas, unless
    `columns` names it in full. Raises BadInput for an id or a pattern that no column fits, for a name
    that stands twice, and for ids that the config says nothing of.
    """
    if spec.id is not None:
        require_columns({"id": spec.id}, names, place)
    _check_ids(names, spec, place)
    asked = spec.columns
    wanted = {*names} - {*index} if asked is None else set()
    for pattern in asked or ():
        fits = {pattern} if pattern in names else {*fnmatch.filter(names, pattern)} - {*index}
        if not fits - {spec.id}:
            raise place.bad(
                f"no column matches {shown(pattern)} (config key `columns`) among {listed(names, 12)}"
            )
        wanted |= fits
    found = [i for i, n in enumerate(names) if n in wanted and n != spec.id]
    times = Counter(names)
    if twice := next((names[i] for i in found if times[names[i]] > 1), None):
        require_columns({"columns": twice}, names, place)
    return found


def _check_ids(names: Sequence[str], spec: ArraySpec, place: Place) -> None:
    """Refuse rows that are taken in order although a column says whose they are.

    With `columns` given, and a dataset that has no ids, there is nothing to match them by.
    """
    if spec.id is not None or (spec.columns is not None and spec.row_id is None):
        return
    for name in names:
        if name in (*IDS, spec.row_id) and name not in (spec.columns or ()):
            raise place.bad(
                f"column {shown(name)} says whose its rows are; write `id: {name}` to match them by it, "
                "or leave it out of the file where the rows are in the dataset's order"
            )


def check_meant(
    names: Sequence[str], features: Sequence[str], spec: ArraySpec, place: Place
) -> None:
    """Raise BadInput where there is no feature, or where one that no one named in full is called like
    a column of the dataset that has a meaning: a label among the features looks like a finding."""
    told = [n for n in features if n in spec.meant and n not in (spec.columns or ())]
    if told:
        raise place.bad(
            f"column {shown(told[0])} would be a feature, and the dataset has a column with a meaning "
            "(label, group, …) of that name; write `columns` with the features, this one by its full "
            "name if it is one"
        )
    if not features:
        raise place.bad(
            f"no column of numbers among {listed(names, 12)}; expected at least one feature"
        )


def left_out(names: Sequence[str], features: Sequence[str], spec: ArraySpec) -> list[str]:
    """Columns that are no features, where the config does not say which are."""
    taken = {*features, spec.id}
    return [] if spec.columns is not None else [n for n in names if n not in taken]


def is_text(name: str, cell: str, place: Place, line: str) -> BadInput:
    """The error for text in a column of features."""
    return place.bad(
        f"column {shown(name)} holds {shown(cell)} ({line}); expected numbers in a column of "
        "features; write `columns` without it where it is none"
    )
