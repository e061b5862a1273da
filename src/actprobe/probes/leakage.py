"""How much of a test set stands in the train set as well."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def repeated(train: NDArray[Any], test: NDArray[Any]) -> NDArray[np.bool_]:
    """For each test row, whether its exact text is also a train text; both given as digests."""
    return np.isin(test, train)
