"""A kept model as bytes: a safetensors blob whose metadata say how its arrays are used.

`__metadata__` has one entry, `actprobe`, JSON with

    format    1
    scorer    name of a function of `scorers`
    steps     names of `steps`, which stand before it; the arrays of step i are called `i.…`
    link      makes scores of its decisions (`scorers.linked`)
    how       what else the scorer reads
    about     kind (of the label), classes, reads (the kind of source), family, method, params

A linear model has `coef` [d] and `intercept` (of several classes [classes, d] and [classes]) in the
source's own units. Nothing in it is code, and no pickle.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.files.safetensors import header_of
from actprobe.probes.keep import scorers, steps
from actprobe.probes.keep.steps import Step

FORMAT = 1
_BLOCK = 1 << 22  # numbers of a matrix that are scored at a time
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_TRAIN = "train"  # the array that a model of neighbours gets from whoever reads it


@dataclass(frozen=True)
class Kept:
    """What reproduces the scores of a fit: the scorer's name, its arrays, the steps before it, its link,
    and what else it reads (JSON)."""

    scorer: str
    arrays: Mapping[str, NDArray[Any]]
    before: Sequence[Step] = ()
    link: str = "none"
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """A kept model, ready to score.

    about: kind, classes, reads, family, method, params of the fit.
    """

    model: Kept
    about: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Of the label."""
        return str(self.about["kind"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class number; () of values."""
        return tuple(self.about["classes"])

    @property
    def needs_train_rows(self) -> bool:
        """Whether it scores only after `with_train_rows`."""
        return self.model.scorer == "neighbours" and _TRAIN not in self.model.arrays

    def decisions(self, rows: Any) -> NDArray[np.float64]:
        """What the model says before its link, [n] or [n, classes]; of a linear one x·coef + intercept.

        rows: numbers of the source, as `probes.data.matrix` gives them: [n, d], sparse codes
        (`sae.Latents` or a dense [n, width]), tokens (`tokens.Ragged`), texts, or features of LoRA
        weights. Raises BadInput where the width is another one, a number is not finite or a row has no
        token.
        """
        if self.needs_train_rows:
            raise BadInput(
                "this probe compares with its train rows, which are not in it; give them "
                "(`with_train_rows`)"
            )
        self._check(rows)
        decide = scorers.scoring(self.model.scorer)
        found = [
            decide(self.model.arrays, self.model.how, steps.through(self.model.before, part))
            for part in _parts(rows)
        ]
        return np.concatenate(found)

    def scores(self, rows: Any) -> NDArray[np.float64]:
        """Scores as in the results: of two classes in (0, 1) with ½ at the boundary [n], of several one
        for each class [n, classes], of values the prediction [n]. rows: as of `decisions`."""
        return scorers.linked(self.decisions(rows), self.model.link)

    def _check(self, rows: Any) -> None:
        width = self.about.get("width")
        if width is None:
            return
        shape = rows.shape if hasattr(rows, "shape") else np.shape(rows)
        if len(shape) != 2 or shape[1] != width:
            found = f"shape {tuple(shape)}" if len(shape) != 2 else f"{shape[1]} columns"
            raise BadInput(f"rows of {found}; this probe reads {width} columns")
        if isinstance(rows, np.ndarray) and not (fine := np.isfinite(rows).all(axis=1)).all():
            raise BadInput(f"row {int(np.argmin(fine))} is not finite")
        lengths = getattr(rows, "lengths", None)
        if self.model.scorer == "attention" and lengths is not None and not lengths.all():
            raise BadInput(f"row {int(np.argmin(lengths))} has no token")


def _parts(rows: Any) -> list[Any]:
    """A matrix in blocks of rows; anything else as a whole."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not len(rows):
        return [rows]
    most = max(1, _BLOCK // max(rows.shape[1], 1))
    return [rows[i : i + most] for i in range(0, len(rows), most)]


def write(kept: Kept, about: Mapping[str, Any]) -> bytes:
    """The bytes of a model; equal input gives equal bytes. about: what `Scorer` tells, as JSON."""
    from safetensors.numpy import save

    arrays = dict(kept.arrays) | steps.arrays_of(kept.before)
    told = {
        "format": FORMAT,
        "scorer": kept.scorer,
        "steps": [step.name for step in kept.before],
        "link": kept.link,
        "how": dict(kept.how),
        "about": dict(about),
    }
    metadata = {"actprobe": json.dumps(told, sort_keys=True, ensure_ascii=False)}
    return save({k: np.array(v, order="C") for k, v in arrays.items()}, metadata)


def read(content: bytes) -> Scorer:
    """The scorer in these bytes; no code of theirs is run.

    Raises BadInput where they are no kept model, or one of a form that is not known here.
    """
    header = header_of(io.BytesIO(content), len(content))
    try:
        told = json.loads(header.metadata["actprobe"])
        if told["format"] != FORMAT:
            raise BadInput(f"a kept model of format {told['format']!r}, expected {FORMAT}")
        arrays = {
            name: np.frombuffer(content[t.start : t.stop], _DTYPES[t.dtype]).reshape(t.shape)
            for name, t in header.tensors.items()
        }
        before = steps.made(told["steps"], arrays)
        own = {k: v for k, v in arrays.items() if not k.partition(".")[2]}
        scorers.scoring(told["scorer"])
        kept = Kept(told["scorer"], own, before, told["link"], told["how"])
        return Scorer(kept, told["about"])
    except (KeyError, TypeError, ValueError) as e:
        raise BadInput(f"no kept model of a probe, or one of another version: {e!r}") from None


def with_train_rows(found: Scorer, rows: Any) -> Scorer:
    """A model of neighbours with the rows that it was fitted on, in the order of the fit; rows: as of
    `Scorer.decisions`."""
    if not found.needs_train_rows:
        return found
    model = found.model
    train = np.asarray(steps.through(model.before, rows), np.float64)
    if len(train) != len(model.arrays["y"]):
        raise BadInput(f"{len(train)} train rows, expected {len(model.arrays['y'])}")
    return replace(found, model=replace(model, arrays={**model.arrays, _TRAIN: train}))
