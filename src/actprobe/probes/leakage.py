"""How much of a test set is also in the train set: texts, and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def repeated(train: NDArray[Any], test: NDArray[Any]) -> NDArray[np.bool_]:
    """For each test row, whether a train row has the same name: of a text (its digest), a group."""
    return np.isin(test, train)
