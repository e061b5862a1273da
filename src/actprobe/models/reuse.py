"""Activations that were computed already: of equal tokens, or of some equal rows.

The key of an artefact holds the settings of its model. Some change nothing on these texts
(`max_length: 512` where no row is longer): the artefact of the old settings then holds the very
numbers, and is copied. With `reuse_rows` so are equal rows of an artefact that has others too; they
may differ from computed ones in the last bits, which depend on the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actprobe.base.errors import Damaged
from actprobe.cache import store
from actprobe.models import artefact
from actprobe.models.prepared import Prepared, position_of
from actprobe.models.records import ActivationTarget

log = logging.getLogger(__name__)

_BLOCK = 1 << 26  # bytes copied at a time


@dataclass(frozen=True)
class Older:
    """An artefact that has rows of a target.

    row: int64 [N], the place in it of each row of the target, -1 where it has none.
    """

    path: str
    key: str
    row: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        """What the header of the target tells of it."""
        return {"reused": {"rows": int((self.row >= 0).sum()), "from": self.key}}


def _candidates(t: ActivationTarget) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Whole artefacts of this site and position that only texts or token settings tell apart.

    Not the target itself, which another run may have made since the plan, or which is to be made anew.
    """
    root, name = Path(t.path.removesuffix(f"/{t.name}{_tail(t)}")), t.name.rpartition("/")[2]
    wanted = _without_tokens(t.record)
    for path in sorted(root.glob(f"*/*/{name}.*.h5")):
        try:
            header = store.quick_check(path)
        except (Damaged, OSError):
            continue
        if header["key"] == t.key:
            continue
        if not header["bad"] and _without_tokens(header["spec"]) == wanted:
            yield str(path), header


def _tail(t: ActivationTarget) -> str:
    return f".{store.file_key(t.path)}.h5"


def _without_tokens(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in spec.items() if k not in ("texts", "tokens")}


def copy_equal(t: ActivationTarget, prepared: Prepared) -> Path | None:
    """The sealed part of a target, copied from an artefact of equal tokens; None without one."""
    own = prepared.facts(t)
    for path, header in _candidates(t):
        if header["facts"].get("tokens_sha256") == own["tokens_sha256"]:
            log.info("%s: its tokens are those of %s, which is copied", t.name, path)
            return _copy(t, path, {**header["facts"], **own, "copied_from": header["key"]})
    return None


def _copy(t: ActivationTarget, path: str, facts: Mapping[str, Any]) -> Path:
    store.sources({t.path: (*t.inputs, path)})
    with store.open_h5(path) as f:
        names = [n for n in f if n != "header"]
        shapes = {n: (f[n].shape, f[n].dtype) for n in names}
        attrs = {n: dict(f[n].attrs) for n in names}
        with store.Part(t.path, t.record, shapes, 1, facts, attrs) as part:
            for n in names if part.pending else ():
                width = max(1, f[n].dtype.itemsize * int(np.prod(f[n].shape[1:])))
                step = max(1, _BLOCK // width)
                for at in range(0, f[n].shape[0], step):
                    part[n][at : at + step] = f[n][at : at + step]
            if part.pending:
                part.mark(0)
            return part.finish()


def older(t: ActivationTarget, prepared: Prepared) -> Older | None:
    """The artefact with most rows of a target, if any has some and they may be taken."""
    if not t.args.reuse_rows:
        return None
    wanted = [d.tobytes() for d in prepared.digests(t)]
    best: Older | None = None
    for path, header in _candidates(t):
        with store.open_h5(path) as f:
            place = {d.tobytes(): i for i, d in enumerate(f["row_digests"][:])}
        found = Older(path, header["key"], np.array([place.get(d, -1) for d in wanted], np.int64))
        if (found.row >= 0).sum() > (0 if best is None else (best.row >= 0).sum()):
            best = found
    return best


@dataclass(frozen=True)
class Group:
    """Targets of a dataset that lack the same rows.

    lack: int64 [m], the rows to compute, ascending; older: by path, what has the others.
    """

    targets: list[ActivationTarget]
    lack: np.ndarray
    older: dict[str, Older]


def groups(targets: Sequence[ActivationTarget], prepared: Prepared) -> list[Group]:
    """The targets by the rows that they lack; all rows, unless `reuse_rows` is set."""
    found: dict[bytes, Group] = {}
    for t in targets:
        have = older(t, prepared)
        lack = np.arange(len(prepared.ids)) if have is None else np.flatnonzero(have.row < 0)
        group = found.setdefault(lack.tobytes(), Group([], lack, {}))
        group.targets.append(t)
        if have is not None:
            group.older[t.path] = have
    return list(found.values())


def copy_all_rows(t: ActivationTarget, prepared: Prepared, have: Older) -> Path:
    """The sealed part of a target whose every row an older artefact has, in whatever order."""
    store.sources({t.path: (*t.inputs, have.path)})
    reduction = prepared.reductions[position_of(t)]
    keep = reduction.keep if reduction.kind == "tokens" else None
    before = store.read_header(have.path)["facts"]
    facts = {k: v for k, v in before.items() if k not in ("batch_plan", "budget", "copied_from")}
    with store.open_h5(have.path) as f:
        width, dtype = f["x"].shape[1], f["x"].attrs["dtype"]
    facts |= {**prepared.facts(t), **have.facts}
    digests = prepared.digests(t)
    with artefact.begin(
        t.path, t.record, prepared.tokens, keep, width, dtype, 1, facts, digests
    ) as part:
        if part.pending:
            kept = None if keep is None else artefact.kept_offsets(prepared.tokens, keep)
            copy_rows(part, have, kept)
            part.mark(0)
        return part.finish()


def copy_rows(part: store.Part, have: Older, kept: np.ndarray | None) -> None:
    """Write the rows that an older artefact has.

    kept: int64 [N + 1], where each row begins when all its tokens are stored; None for one vector a
    row.
    """
    rows = np.flatnonzero(have.row >= 0)
    with store.open_h5(have.path) as f:
        if kept is None:
            for i in rows.tolist():
                part["x"][i : i + 1] = f["x"][int(have.row[i])][None]
            return
        offsets = f["offsets"][:]
        for i in rows.tolist():
            low, high = offsets[have.row[i]], offsets[have.row[i] + 1]
            part["x"][int(kept[i]) : int(kept[i + 1])] = f["x"][low:high]
