"""The header of an artefact: one JSON text that stands verbatim somewhere in the file.

    {"actprobe":2,"seal":{"sha256":"<64 hex>","size":"<16 digits>","rest":"<64 hex>"},
     "bad":<null or a reason>,"facts":{...},"from":{...},"key":"<64 hex>","spec":{...}}

It sits in the first or last part of the file (a dataset `header` in HDF5, key-value metadata in
Parquet), so that it can be found and read without opening the container: planning thousands of
targets never imports h5py or pyarrow. `seal.sha256` is the SHA-256 of the whole file with these 64
digits set to zero; it is written into place last. An unsealed file has 64 zeros. `seal.rest` is the
SHA-256 of what follows the seal in the header, so that a header can be trusted without reading the
data. `from` says which files this one was made from: key -> seal of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import Damaged

UNSEALED = "0" * 64
_MAGIC = b'{"actprobe":2,"seal":{"sha256":"'
_SIZE = b'","size":"'
_REST = b'","rest":"'
_END = b'"},'
_SEAL = re.escape(_MAGIC) + b"[0-9a-f]{64}" + _SIZE + b"[0-9]{16}" + _REST + b"%s" + _END
_HEAD = len(_MAGIC) + 64 + len(_SIZE) + 16 + len(_REST) + 64 + len(_END)  # where the rest begins
_WINDOW = 1 << 20  # how far into either end of the file the header may begin
_CHUNK = 1 << 22


def make_header(
    spec: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    bad: str | None = None,
    made_from: Mapping[str, str] | None = None,
) -> bytes:
    """Header bytes of an unsealed artefact.

    `facts` are deterministic things worth keeping that do not decide the content (library
    versions, counts); `bad` is the reason why this artefact stands for an input that cannot be
    used (a tombstone: it holds no data); `made_from` maps the key of each artefact that was read to
    its seal.
    """
    rest = {
        "key": keys.spec_key(spec), "bad": bad, "spec": spec, "facts": dict(facts or {}),
        "from": dict(made_from or {}),
    }  # fmt: skip
    body = keys.canonical_json(rest)[1:].encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    return _MAGIC + UNSEALED.encode() + _SIZE + b"0" * 16 + _REST + digest + _END + body


def _find(path: str | Path) -> tuple[int, dict[str, Any]]:
    """Offset of the header in the file, and its parsed content."""
    with open(path, "rb") as f:
        end = f.seek(0, os.SEEK_END)
        for start in dict.fromkeys((0, max(0, end - _WINDOW))):
            f.seek(start)
            # Most headers begin in the first page; read the full window only when needed.
            window = f.read(8192 if start == 0 else _WINDOW)
            at = window.find(_MAGIC)
            if at < 0 and start == 0 and end > 8192:
                window += f.read(_WINDOW)
                at = window.find(_MAGIC)
            if at < 0:
                continue
            return start + at, _parse(f, start + at, window[at:])
    raise Damaged(f"{path}: no actprobe header found: not an artefact, or cut short")


def _parse(f: Any, offset: int, text: bytes) -> dict[str, Any]:
    decoder = json.JSONDecoder()
    while True:
        try:
            decoded = text.decode("utf-8", errors="surrogateescape")
            found, end = decoder.raw_decode(decoded)
        except RecursionError:
            raise Damaged(f"{f.name}: the actprobe header is not readable") from None
        except ValueError:
            f.seek(offset + len(text))
            more = f.read(max(len(text), 1 << 16))
            if not more:
                raise Damaged(f"{f.name}: the actprobe header is cut short") from None
            text += more
            continue
        rest = decoded[_HEAD:end].encode("utf-8", errors="surrogateescape")
        digest = hashlib.sha256(rest).hexdigest().encode()
        if not re.match(_SEAL % re.escape(digest), text):
            raise Damaged(f"{f.name}: the actprobe header is not the one that was written")
        return found


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of an artefact or part: keys `seal`, `key`, `bad`, `spec`, `facts`, `from`.

    Its own digest is checked, the data are not read. Raises Damaged when there is no header or not
    the one that was written, FileNotFoundError when there is no file.
    """
    return _find(path)[1]


def is_sealed(header: Mapping[str, Any]) -> bool:
    """True when the artefact was finished and digested."""
    return header["seal"]["sha256"] != UNSEALED


def quick_check(path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Header of a whole artefact, checked without reading its data.

    Checks that the file is sealed, has the length it was sealed with, and (when given) the
    expected key or its first digits. Raises Damaged with what was found and what was expected.
    """
    header = read_header(path)
    if not is_sealed(header):
        raise Damaged(f"{path}: written but never finished (no seal)")
    size, expected = os.path.getsize(path), header["seal"]["size"]
    if f"{size:016d}" != expected:
        raise Damaged(f"{path}: {size} bytes, expected {expected.lstrip('0')}")
    if key is not None and not header["key"].startswith(key):
        raise Damaged(f"{path}: holds key {keys.short(header['key'])}, expected {keys.short(key)}")
    return header


def _digest(path: str | Path, offset: int, progress: Callable[[int], None] | None) -> str:
    """SHA-256 of the file with the 64 seal digits read as zeros."""
    at = offset + len(_MAGIC)
    h = hashlib.sha256()
    position = 0
    with open(path, "rb") as f:
        while piece := f.read(_CHUNK):
            low, high = max(at - position, 0), min(at + 64 - position, len(piece))
            if low < high:
                piece = piece[:low] + b"0" * (high - low) + piece[high:]
            h.update(piece)
            position += len(piece)
            if progress is not None:
                progress(len(piece))
    return h.hexdigest()


def seal(path: str | Path) -> str:
    """Write the file's length and digest into its header, fsync, and return the digest."""
    offset, _ = _find(path)
    with open(path, "r+b") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(offset + len(_MAGIC) + 64 + len(_SIZE))
        f.write(b"%016d" % size)
        f.flush()
        digest = _digest(path, offset, None)
        f.seek(offset + len(_MAGIC))
        f.write(digest.encode())
        f.flush()
        os.fsync(f.fileno())
    return digest


def verify(path: str | Path, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Header of an artefact whose every byte was read and matched its seal; else Damaged."""
    name_key = file_key(path)
    header = quick_check(path, name_key)
    offset, _ = _find(path)
    found, expected = _digest(path, offset, progress), header["seal"]["sha256"]
    if found != expected:
        raise Damaged(f"{path}: digest {found[:16]}…, expected {expected[:16]}…")
    if keys.spec_key(header["spec"]) != header["key"]:
        raise Damaged(f"{path}: the spec inside does not hash to the key inside")
    return header


def file_key(path: str | Path) -> str | None:
    """The key digits in an artefact's file name `{name}.{key}.{ext}`, or None."""
    parts = Path(path).name.rsplit(".", 2)
    if len(parts) == 3 and len(parts[1]) == keys.SHORT and set(parts[1]) <= set("0123456789abcdef"):
        return parts[1]
    return None
