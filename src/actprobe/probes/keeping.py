"""What a fit keeps (`door`): its rows, their labels and scores, and its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actprobe.probes.keep import Kept, Scorer, form
from actprobe.probes.keep.steps import Chosen, Fired, LastTokens, Step
from actprobe.probes.methods import family

if TYPE_CHECKING:
    from actprobe.probes.fits import Fits
    from actprobe.probes.search import Fitted, Task

EXACT = 1e-6  # how far scores of the kept model may be from those of the fit
_TRIED = 64  # test rows on which that is tried


def cells(fits: Fits, task: Task, fitted: Fitted, k: int | None) -> dict[str, Any]:
    """The cells of `door.FIT` of one fit on the first k latents, or on all columns."""
    split, own, there = fits.split, fits.source.labels, fits.other.labels
    validation = np.empty(0, np.int64) if split.validation is None else split.validation
    y_validation = own.y[validation]
    model, why = _model(fits, task, fitted, k)
    scored = [_answer(fitted, task.X_train, len(fits.train), fitted.scores)]
    if len(validation):
        scored.append(_answer(fitted, task.X_validation, len(validation), fitted.scores))
    held_out = fitted.held_out
    return {
        "train": own.row[fits.train].astype(np.int32),
        "validation": own.row[validation].astype(np.int32),
        "test": there.row[fits.test].astype(np.int32),
        "label": np.concatenate([fits.y_train, y_validation, fits.y_test]).astype(np.float64),
        "scores": np.concatenate([*scored, fitted.scores]),
        "held_out": held_out,
        "model": model,
        "why": why,
    }


def _answer(fitted: Fitted, rows: Any, n: int, like: NDArray[np.float64]) -> NDArray[np.float64]:
    if fitted.answer is None:
        return np.full((n, *like.shape[1:]), np.nan)
    return fitted.answer(rows)


def _model(fits: Fits, task: Task, fitted: Fitted, k: int | None) -> tuple[bytes | None, str]:
    """The bytes of the model, and why there are none.

    They are tried on some of the test rows: a model that does not score them as the fit does is none.
    """
    name = fits.method["family"]
    keep = family(name).keep
    if fitted.model is None:
        return None, "the test rows train it, fold by fold"
    if keep is None:
        return None, f"family {name} does not say what of a fit must be kept"
    kept: Kept = keep(fitted, task)
    if difference := _differs(kept, task, fitted):
        return None, f"the scores of the kept model are up to {difference:.1e} away"
    before = [*_reading(fits, k), *kept.before]
    if fits.positions is not None:
        if kept.scorer != "linear":
            return None, f"family {name} is not linear in principal components of each position"
        kept = fits.positions.folded(kept)
    return form.write(replace(kept, before=before), _about(fits, fitted)), ""


def _differs(kept: Kept, task: Task, fitted: Fitted) -> float:
    """How far the kept model is from the fit, where that is too far; else 0.

    Both score test rows as the method reads them, relative to 1 or to the score.
    """
    scorer = form.with_train_rows(Scorer(kept, {"kind": task.kind, "classes": ()}), task.X_train)
    said, found = fitted.scores[:_TRIED], scorer.scores(_first(task.X_test))
    worst = float(np.max(np.abs(said - found) / np.maximum(1.0, np.abs(said)), initial=0.0))
    return worst if not worst <= EXACT else 0.0


def _first(rows: Any) -> Any:
    if hasattr(rows, "lengths"):
        n = rows.shape[0]
        return rows.rows(np.arange(min(n, _TRIED)), int(rows.lengths.max(initial=0)))
    return rows[:_TRIED]


def _reading(fits: Fits, k: int | None) -> Sequence[Step]:
    """The steps from the numbers of the source to what the method reads."""
    if fits.latents is not None:
        found: list[Step] = [Chosen(np.asarray(fits.latents[:k], np.int64))]
        if "binarise" in fits.method:
            found.append(Fired(np.array(float(fits.method["binarise"]))))
        return found
    if fits.method["reads"] == "tokens":
        return [LastTokens(np.array(fits.max_tokens))]
    return fits.units


def _about(fits: Fits, fitted: Fitted) -> dict[str, Any]:
    from actprobe.probes.methods.prepare import json_params

    matrix, told = fits.source.matrix, fits.source.labels
    about = {
        "kind": fits.kind,
        "classes": list(told.classes),
        "reads": fits.method["reads"],
        "family": fits.method["family"],
        "params": json_params(fitted.params),
    }
    if fits.method["reads"] != "texts":
        about["width"] = int(matrix.shape[1])
    if "pool" in fits.method:
        about |= {"pool": fits.method["pool"], "max_tokens": fits.max_tokens}
    return about
