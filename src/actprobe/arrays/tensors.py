"""Features in `.npy`, `.npz` and safetensors files: one array, and its ids beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actprobe.arrays.columns import IDS
from actprobe.arrays.features import SLICE, Features, Piece
from actprobe.arrays.targets import ArraySpec
from actprobe.base.errors import BadInput
from actprobe.files import Array, Opened, is_integer, open_arrays, read_strings
from actprobe.texts.checks import Place, check_ids


@contextmanager
def opened(path: Path, spec: ArraySpec, dataset: str) -> Iterator[Features]:
    """The features in a file. Raises BadInput for a file without the array or ids asked for."""
    with open_arrays(path, spec.format) as found:
        name, array = _chosen(found, spec)
        n, d = array.shape[0], array.shape[1] if len(array.shape) == 2 else 1
        if len(array.shape) > 2 or 0 in array.shape:
            raise BadInput(
                f"{path}: array {name!r} has the shape {array.shape}; expected [rows, features], or "
                "[rows] for one feature"
            )
        ids = None if spec.id is None else _ids(found, path, spec, spec.id, n, dataset)
        step = max(1, SLICE // (8 * d))

        def blocks() -> Iterator[list[Piece]]:
            for i in range(0, n, step):
                values = array.rows(i, min(i + step, n))
                yield [Piece(values.reshape(-1, d), array.dtype)]

        yield Features(n, d, ids, blocks)


def _chosen(found: Opened, spec: ArraySpec) -> tuple[str, Array]:
    """The array asked for, or the only one with features."""
    there = set(found.arrays) | set(found.ignored) | set(found.metadata)
    if spec.id is None and (named := sorted(there & set(IDS))):
        raise BadInput(
            f"{found.file}: {named[0]!r} says whose its rows are; write `id: {named[0]}` to match them "
            "by it, or leave it out of the file where the rows are in the dataset's order"
        )
    if spec.array is not None:
        if spec.array not in found.arrays:
            raise BadInput(
                f"{found.file}: no array {spec['array']!r} (config key `array`); it has {found.told}"
            )
        return spec.array, found.arrays[spec.array]
    others = {n: a for n, a in found.arrays.items() if n != spec.id}
    matrices = {n: a for n, a in others.items() if len(a.shape) == 2} or others
    if len(matrices) != 1:
        raise BadInput(
            f"{found.file}: holds {found.told}; expected one array [rows, features], or its name as "
            "`array`"
        )
    return next(iter(matrices.items()))


def _ids(found: Opened, path: Path, spec: ArraySpec, name: str, n: int, dataset: str) -> list[str]:
    """Ids of the rows: an array of whole numbers, text in an archive, or JSON in the metadata."""
    array = found.arrays.get(name)
    ids: list[Any] | None = None
    if array is not None and len(array.shape) == 1 and is_integer(array.dtype):
        ids = array.rows(0, array.shape[0]).tolist()
    elif array is None and spec.format == "npz":
        ids = read_strings(path, name)
    elif array is None and spec.format == "safetensors":
        ids = _listed(found.metadata.get(name))
    if ids is None:
        kinds = "whole numbers" + (
            " or text (np.array(ids, dtype=str))" if spec.format == "npz" else
            ", or in the metadata a JSON list of strings"
        )  # fmt: skip
        raise BadInput(
            f"{path}: no ids {name!r} (config key `id`); expected one dimension of {kinds}; it has "
            f"{found.told}"
        )
    if len(ids) != n:
        raise BadInput(f"{path}: {len(ids)} ids {name!r} for {n} rows; expected as many")
    return check_ids([str(i) or None for i in ids], Place(dataset, str(path), range(n)))


def _listed(text: Any) -> list[Any] | None:
    """A JSON list of strings or whole numbers."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    plain = isinstance(found, list) and all(type(v) in (str, int) for v in found)
    return found if plain else None
