"""HDF5 artefacts: preallocated, filled in units, resumed, sealed.

Layout rules, each one measured to survive SIGKILL (docs/design.md): every dataset is contiguous,
allocated when the file is made, default `libver`; for each unit of work the data are flushed before
the journal says that it is done. Nothing is allocated after creation, so a resumed file ends
bit-identical to one that was written in one go.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from actprobe.base.errors import BadInput, Damaged
from actprobe.cache.store import files
from actprobe.cache.store.header import is_sealed, make_header, read_header, seal
from actprobe.cache.store.journal import Journal, Writer

# What HDF5 says of a file that it reads; of one that is written beside it, it says other things.
_OF_READING = re.compile(
    "(?i)^['\"]?(unable to|can't) synchronously (open (object|attribute)|read )"
)


class Part:
    """The unfinished content of one HDF5 artefact.

    with Part(path, spec, {"x": ((n, d), "f4")}, units=n_batches) as part:
        for u in part.pending:
            part["x"][rows] = values
            part.mark(u)
        part.finish()

    arrays: name -> (shape, dtype); a name with "/" makes groups.
    attrs: name -> attributes of that array ("" for the root); the key does not depend on them.
    units: how many pieces the work has; `pending` lists the ones not done, in order.
    facts: deterministic extra header content; an unfinished part whose spec, facts, sources, arrays
    or units differ from what is asked for is thrown away and begun anew.

    What was written is remembered with its checksum in a journal beside the part, and read again
    when the part is resumed: a unit whose bytes are others is pending once more.
    """

    def __init__(
        self,
        path: str | Path,
        spec: Mapping[str, Any],
        arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        units: int = 1,
        facts: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.path = Path(path)
        self.part = files.claim(path)
        self.work = files.workplace(self.part)
        self._header = make_header(spec, facts, made_from=files.made_from(path))
        self._file: h5py.File | None = None
        self._arrays: dict[str, Writer] = {}  # looking one up takes as long as a small write
        self._journal = Journal(self.work)
        self._pending = set(range(units))
        self.sealed = False
        if not self._usable(arrays):
            self._create(arrays, attrs or {})
        if not self.sealed:
            self._file = h5py.File(self.work, "r+", locking=False)
            self._pending -= self._journal.resume(self._file)

    def _usable(self, arrays: Mapping[str, Any]) -> bool:
        try:
            header = read_header(self.work)
            want = json.loads(self._header)
            if any(header[k] != want[k] for k in ("key", "spec", "bad")):
                return False
            if is_sealed(header):  # whatever the facts: another process may be about to publish it
                self.sealed = True
                self._pending.clear()
                return True
            if any(header[k] != want[k] for k in ("facts", "from")):
                return False
            with h5py.File(self.work, "r+", locking=False) as f:
                return all(
                    n in f and f[n].shape == tuple(s) and f[n].dtype == np.dtype(t)
                    for n, (s, t) in arrays.items()
                )
        except (Damaged, OSError, KeyError, ValueError):
            return False

    def _create(self, arrays: Mapping[str, Any], attrs: Mapping[str, Mapping[str, Any]]) -> None:
        new = Path(f"{self.work}.new")
        size = sum(
            int(np.prod(s, dtype=np.int64)) * np.dtype(t).itemsize for s, t in arrays.values()
        )
        files.require_space(self.work, size)
        with files.out_of_space(self.path, size), h5py.File(new, "w", locking=False) as f:
            _allocate(f, "header", (), f"S{len(self._header)}")[()] = self._header
            for k, v in attrs.get("", {}).items():
                f.attrs[k] = v
            for name, (shape, dtype) in arrays.items():
                d = _allocate(f, name, shape, dtype)
                for k, v in attrs.get(name, {}).items():
                    d.attrs[k] = v
        files.reserve(new)
        self._journal.remove()
        os.replace(new, self.work)

    @property
    def pending(self) -> list[int]:
        """Units whose content is not yet safely in the file."""
        return sorted(self._pending)

    def __getitem__(self, name: str) -> Writer:
        assert self._file is not None, "a sealed part is not written again"
        if name not in self._arrays:
            self._arrays[name] = Writer(self._file[name], self._journal)
        return self._arrays[name]

    def mark(self, *units: int) -> None:
        """Record units as done: data first, then the journal's line, each flushed."""
        if not units:
            return
        assert self._file is not None
        with files.out_of_space(self.path, os.path.getsize(self.work)):
            self._file.flush()
            self._journal.mark(units)
        self._pending.difference_update(units)

    def finish(self) -> Path:
        """Seal the part (all units must be done) and return the work file for `publish`."""
        if not self.sealed:
            assert not self.pending, f"{self.path}: {len(self.pending)} units are not done"
            self.close()
            seal(self.work)
            self.sealed = True
        self._journal.remove()
        files.bring_back(self.work, self.part)
        files.release(self.part)
        return self.part

    def close(self) -> None:
        """Close without finishing; what is marked stays and is resumed by the next run."""
        if self._file is not None:
            self._arrays.clear()
            self._file.close()
            self._file = None

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _allocate(f: h5py.File, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> h5py.Dataset:
    """A contiguous dataset whose space exists from the start."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    group = f.require_group(os.path.dirname(name) or "/")
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(group.id, os.path.basename(name).encode(), kind, space, plist)
    return f[name]


def write_h5(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    spec: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a small HDF5 artefact in one go; returns the sealed part for `publish`."""
    shapes = {n: (a.shape, a.dtype) for n, a in arrays.items()}
    with Part(path, spec, shapes, 1, facts, attrs) as part:
        if part.pending:
            for name, a in arrays.items():
                part[name][...] = a
            part.mark(0)
        return part.finish()


def write_bad(path: str | Path, spec: Mapping[str, Any], reason: str) -> Path:
    """Write a tombstone: an HDF5 artefact that holds the reason why there are no data."""
    header = make_header(spec, bad=reason, made_from=files.made_from(path))
    with files.whole(path) as (new, part), h5py.File(new, "w", locking=False) as f:
        _allocate(f, "header", (), f"S{len(header)}")[()] = header
    return part


@contextlib.contextmanager
def open_h5(path: str | Path, key: str | None = None) -> Iterator[h5py.File]:
    """A published HDF5 artefact, opened to read and checked (`files.checked`) first.

    Raises BadInput with the stored reason when it is a tombstone, Damaged when its bytes are not
    those that were sealed (it is set aside), ActprobeError when it cannot be read for another
    reason; both also for what HDF5 meets inside the block.
    """
    header = files.checked(path, key)
    if header["bad"]:
        raise BadInput(header["bad"])
    try:
        f = h5py.File(path, "r", locking=False)
    except OSError as e:
        raise files.cannot_open(path, e) from e
    try:
        with f:
            yield f
    except (OSError, KeyError, RuntimeError) as e:
        if not _OF_READING.search(str(e)):
            raise
        raise files.cannot_open(path, e) from e
