"""Which rows may share a batch, where a model reads a row otherwise beside longer ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from actprobe.base.errors import BadInput
from actprobe.models import families
from actprobe.models.batches import batch_plan
from actprobe.models.load import Model
from actprobe.models.sharing import Group


class Lot(NamedTuple):
    """Rows that go through the model together: their group, and how many tokens of them are shared."""

    group: int
    shared: int
    rows: list[int]


def lots(model: Model, lengths: np.ndarray, groups: Sequence[Group], budget: int) -> list[Lot]:
    """The batches of rows in groups, the longest rows first within each; lengths: of all rows."""
    return [
        Lot(n, g.length, g.rows[batch].tolist())
        for n, g in enumerate(groups)
        for batch in plan(model, lengths[g.rows], g.length, budget)
    ]


def plan(model: Model, lengths: np.ndarray, shared: int, budget: int) -> list[list[int]]:
    """The batch plan of rows of these lengths, whose first `shared` tokens are computed already.

    Rows of one batch are of one length where padding changes a row, and on one side of the border
    where rotary positions depend on the longest row (`families.longest_alike`).
    """
    kind = lengths if not model.pads else lengths > _border(model)
    batches: list[list[int]] = []
    for value in np.unique(kind)[::-1]:  # the longest first
        rows = np.flatnonzero(kind == value)
        own = batch_plan(lengths[rows] - shared, budget)
        batches += [rows[batch].tolist() for batch in own]
    return batches


def alike(model: Model, lengths: np.ndarray) -> np.ndarray:
    """Rows of the kind of the median row, which may be compared in one batch: indices."""
    kind = lengths if not model.pads else lengths > _border(model)
    median = np.argsort(lengths, kind="stable")[len(lengths) // 2]
    return np.flatnonzero(kind == kind[median])


def may_share_prefix(model: Model, lengths: np.ndarray) -> bool:
    """Whether the first tokens of these rows may be computed once, apart from the rest."""
    return bool((lengths <= _border(model)).all())


def require_alike(model: Model, lengths: np.ndarray, names: Sequence[str]) -> None:
    """Raise BadInput for rows whose positions would depend on the rows before them."""
    most, _ = families.longest_alike(model.config.to_dict())
    if most is not None and lengths.max() > most:
        row = int((lengths > most).argmax())
        raise BadInput(
            f"row {names[row]!r} has {lengths[row]} tokens ({int((lengths > most).sum())} such rows "
            f"beyond {most}): with dynamic rotary positions a longer row depends on those before it; "
            f"set max_length: {most}"
        )


def _border(model: Model) -> int:
    _, border = families.longest_alike(model.config.to_dict())
    return border or 1 << 62
