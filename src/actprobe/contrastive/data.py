"""Labelled rows as the contrastive stage reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprobe import texts
from actprobe.config import nearest
from actprobe.errors import BadInput
from actprobe.probes import components


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset: y, 0/1 labels; kind, name of each row's class; text and id; pair, or
    None; group, rows that must not be torn apart (same text, group or pair). All [n]."""

    dataset: str
    y: NDArray[np.int64]
    kind: NDArray
    id: NDArray
    text: NDArray
    pair: NDArray | None
    group: NDArray

    def __len__(self) -> int:
        return len(self.y)


LEAST_TEST = 5  # rows of each class without which an AUROC says nothing


def require_tested(rows: Rows) -> None:
    """Raise BadInput for a validation set with too few rows of a class."""
    positives = int(rows.y.sum())
    if min(positives, len(rows) - positives) < LEAST_TEST:
        raise BadInput(
            f"dataset {rows.dataset}: {positives} positive and {len(rows) - positives} other rows to "
            f"score, at least {LEAST_TEST} of each needed"
        )


def load(path: str, positive: str | None) -> Rows:
    """Read a texts artefact; class 1 is `positive`, or what the dataset itself numbers 1.

    In contrastive pairs class 1 is the positive answer, whatever `positive` calls it. Raises
    BadInput for a tombstone, for a dataset without labels, without such a class, or with rows of
    one class only.
    """
    t = texts.load(path)
    if t.label is None:
        raise BadInput(f"dataset {t.dataset}: no labels; contrastive probes need them")
    kind = np.array(t.classes, object)[t.label]
    if positive is None or t.contrastive:
        if len(t.classes) != 2:
            raise BadInput(
                f"dataset {t.dataset}: {len(t.classes)} classes ({', '.join(t.classes)}); say "
                "which is the positive one (`positive`)"
            )
        y = t.label.astype(np.int64)
    elif positive in t.classes:
        y = (kind == positive).astype(np.int64)
    else:
        raise BadInput(
            f"dataset {t.dataset}: no class {positive!r} (config key `positive`); "
            f"{nearest(positive, t.classes)}"
        )
    if not 0 < y.sum() < len(y):
        raise BadInput(f"dataset {t.dataset}: all {len(y)} rows are of one class")
    joined = components(*(names for names in (t.digest, t.group, t.pair) if names is not None))
    return Rows(t.dataset, y, kind, t.id, t.text, t.pair, joined)
