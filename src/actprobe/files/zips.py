"""Members of a zip file, located without unpacking anything.

PyTorch writes its files as uncompressed zip archives, NumPy its `.npz`. What comes from outside may
be crafted: overlapping members, names that lead elsewhere, sizes beyond the file, endless lists.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from actprobe.base.errors import BadInput, bad_file
from actprobe.files import limits
from actprobe.files.names import check_name

_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"
_COMMENT = 1 << 16
# What zipfile raises for a damaged archive, and for a kind of compression that is not there.
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, EOFError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


class Member(NamedTuple):
    """A member of an archive: where its bytes begin in the file, how many come out, how many lie
    there, and whether these are the same."""

    start: int
    size: int
    packed: int
    stored: bool


def members(path: str | Path, deflated: bool = False, kind: str = "zip file") -> dict[str, Member]:
    """The members of an archive by name.

    deflated: compressed members are taken too; kind: what it should be, for messages. Raises
    BadInput unless all have distinct, harmless names and lie unencrypted inside the file, without
    overlap, none packed denser than deflate can.
    """
    path = Path(path)
    found: dict[str, Member] = {}
    try:
        with open(path, "rb") as f:
            _check_count(f)
            for info in zipfile.ZipFile(f).infolist():
                name = check_name(info.orig_filename.removesuffix("/"))
                if name in found:
                    raise BadInput(f"two members are called {name!r}")
                found[name] = _member(f, info, name, deflated)
    except BadInput as e:
        raise BadInput(f"{path}: {e}") from None
    except DAMAGED as e:
        raise bad_file(path, e, f"not a {kind}, or cut short: ") from None
    _check_overlap(path, found)
    return found


def pickle_member(path: str | Path, found: dict[str, Member]) -> str:
    """Name of the pickle among the members of a `.pt` file; BadInput when it is not one."""
    names = [n for n in found if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(names) != 1:
        raise BadInput(f"{path}: not a file of torch.save")
    return names[0]


def _member(f: IO[bytes], info: zipfile.ZipInfo, name: str, deflated: bool) -> Member:
    kinds = [zipfile.ZIP_STORED] + [zipfile.ZIP_DEFLATED] * deflated
    if info.compress_type not in kinds or info.flag_bits & 1:
        raise BadInput(f"member {name!r} is compressed or encrypted")
    f.seek(info.header_offset)
    head = f.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise BadInput(f"member {name!r} does not begin where it should")
    _, n, extra = _LOCAL.unpack(head)
    if f.read(n) != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
        raise BadInput(f"member {name!r} has another name in its own header")
    start = info.header_offset + _LOCAL.size + n + extra
    stored = info.compress_type == zipfile.ZIP_STORED
    if start + info.compress_size > os.fstat(f.fileno()).st_size or (
        stored and info.file_size != info.compress_size
    ):
        raise BadInput(f"member {name!r} is larger than the file")
    if info.file_size > info.compress_size * limits.PACKED:
        raise BadInput(
            f"member {name!r} says that {info.compress_size:,} bytes unpack to "
            f"{info.file_size:,}, more than {limits.PACKED:,} times as many"
        )
    return Member(start, info.file_size, info.compress_size, stored)


def _check_overlap(path: Path, found: dict[str, Member]) -> None:
    end = 0
    for name, m in sorted(found.items(), key=lambda item: item[1]):
        if m.start < end:
            raise BadInput(f"{path}: member {name!r} overlaps another one")
        end = m.start + m.packed


def _check_count(f: IO[bytes]) -> None:
    """What the archive's end states about the list of its members, before that list is read."""
    f.seek(max(0, f.seek(0, os.SEEK_END) - _COMMENT - 100))
    tail = f.read()
    at = tail.rfind(_END)
    if at < 0 or at + 16 > len(tail):
        return  # zipfile says what is wrong
    count, length = struct.unpack_from("<HI", tail, at + 10)
    wide = tail.rfind(_END64, 0, at)
    if wide >= 0 and 0xFFFF in (count, length >> 16):
        count, length = struct.unpack_from("<QQ", tail, wide + 32)
    limits.check("members of the archive", count, limits.TENSORS)
    limits.check("bytes of the archive's list of members", length, limits.TENSORS * 300)
