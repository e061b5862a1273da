"""Keys: the hash of everything that determines a file's content.

A *spec* is a plain JSON value (dicts, lists, strings, ints, floats, booleans, None). Its key is
the SHA-256 of its canonical JSON: keys sorted, no white space, UTF-8, shortest round-trip floats,
no NaN.
The first 12 hex digits of the key stand in the file name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError

SHORT = 12
_CHUNK = 1 << 22
_COARSEST = 2 * 10**9  # ns; FAT's 2 s


def canonical_json(value: Any) -> str:
    """Canonical JSON text of a spec.

    Raises TypeError for anything that has no single JSON form (sets, arrays, paths, non-string
    keys) and ValueError for NaN or infinity, so that a key can never depend on a repr.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a spec cannot hold {value!r}")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        for k in value:
            if not isinstance(k, str):
                raise TypeError(f"a spec key must be a string, not {k!r}")
        return {k: _plain(v) for k, v in value.items()}
    raise TypeError(f"a spec cannot hold a {type(value).__name__}: {value!r}")


def spec_key(spec: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a spec, 64 hex digits."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def short(key: str) -> str:
    """The part of a key that stands in a file name."""
    return key[:SHORT]


def file_sha256(path: str | Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes in hex."""
    return file_digest(path, hashlib.sha256(), progress)


def file_digest(path: str | Path, h: Any, progress: Callable[[int], None] | None = None) -> str:
    """Digest of a file in hex by the fresh hash object h.

    Read in 4 MiB pieces; `progress` gets the bytes of each piece.
    """
    with open(path, "rb") as f:
        while piece := f.read(_CHUNK):
            h.update(piece)
            if progress is not None:
                progress(len(piece))
    return h.hexdigest()


def require_unchanged(found: Any, planned: Any, what: str) -> None:
    """Raise ActprobeError unless a job finds of outside input what stands in the spec."""
    if found != planned:
        raise ActprobeError(f"{what} was changed after the plan was made; run again")


def _stamp(path: str) -> list[int]:
    st = os.stat(path)
    return [st.st_size, st.st_mtime_ns, st.st_ctime_ns]


def _crc(known: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(known).encode()):08x}"


class DigestMemo:
    """Digests of large outside files, remembered by path, size and times of change.

    A digest is taken once and kept in `{cache_dir}/digests.json`, under a checksum, so that planning
    stays fast.
    Two processes may write the file at once: each replaces it whole, and the loser's entries are
    merely taken again.

    Size and modification time alone would pass over a file put there by `cp -p`, `rsync -t` or
    from an archive with fixed times; the time of the last change of the inode (ctime) does not.
    File systems stamp coarsely (4 ms to 2 s): a file changed so lately could change once more
    under the same stamp, so its digest is not remembered.
    """

    def __init__(self, cache_dir: str | Path):
        self.file = Path(cache_dir) / "digests.json"
        self._dirty = False
        self._known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content["crc"] == _crc(content["files"]):
                self._known = content["files"]  # what was altered is taken anew

    def sha256(self, path: str | Path, progress: Callable[[int], None] | None = None) -> str:
        """Digest of the file at `path`, from memory when its size and times are unchanged."""
        real = os.path.realpath(path)
        stamp = _stamp(real)
        known = self._known.get(real)
        if known and known[:-1] == stamp:
            return known[-1]
        digest = file_sha256(real, progress)
        if _stamp(real) == stamp and time.time_ns() - max(stamp[1:]) > _COARSEST:
            self._known[real] = [*stamp, digest]
            self._dirty = True
        return digest

    def save(self) -> None:
        """Write new digests back; a cache that cannot be written costs only time."""
        if not self._dirty:
            return
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new = self.file.with_name(f".digests-{socket.gethostname()}-{os.getpid()}")
            content = {"crc": _crc(self._known), "files": self._known}
            new.write_text(json.dumps(content), encoding="utf-8")
            os.replace(new, self.file)
            self._dirty = False
