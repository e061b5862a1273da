"""What the number of a direction is compared with, as columns of its row.

A protocol asks for it by `controls`, which says how many null directions there are. Light to import.
"""

from __future__ import annotations

import pyarrow as pa

_BAND = "end of the band that holds 95 % of the AUCs of"
_RANDOM = "random directions, which are no null of any method"
_PERMUTED = (
    "the method's own fits on train labels that were exchanged at random, within pairs and between "
    "whole groups"
)

# Column -> what it is.
TEXT = {
    "test_set": "Dataset that tests; `dataset` is the one that was fitted.",
    "score_at": "Position at which the test set was read.",
    "compare_with": "Dataset whose mean difference could be what the direction really is.",
    "left_out": "That dataset and why it could not be compared with.",
    "positive": "Class that the direction points to.",
    "warning": "What speaks against taking the AUC at its face value.",
}
NUMBERS = {
    "norm": "Length of the direction before it is made 1.",
    "val_d": "Difference of the class means of held-out train rows, over their standard deviation.",
    "null_random_low": f"Lower {_BAND} {_RANDOM}.",
    "null_random_high": f"Upper {_BAND} {_RANDOM}.",
    "null_permuted_low": f"Lower {_BAND} {_PERMUTED}.",
    "null_permuted_high": f"Upper {_BAND} {_PERMUTED}.",
    "p_random": "Share of random directions that score at least as high.",
    "p_permuted": "Share of the fits on exchanged labels that score at least as high.",
    "length_corr": "Correlation of the test rows' scores with 1/length.",
    "first_token": "Share of test rows whose first token has the highest or lowest score.",
    "cos_compare": "Cosine with the mean difference of `compare_with`.",
    "auc_without_compare": "AUC of the direction with this component taken out.",
}


def columns() -> list[tuple[str, pa.DataType]]:
    """Columns of a table whose protocol has controls."""
    return [(c, pa.string()) for c in TEXT] + [(c, pa.float64()) for c in NUMBERS]
