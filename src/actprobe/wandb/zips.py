"""Members of a zip file that lie in it as they are, located without unpacking anything.

PyTorch writes its files as uncompressed zip archives. What comes from outside may be crafted:
compressed or overlapping members, names that lead elsewhere, sizes beyond the file.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from actprobe.errors import ActprobeError, BadInput, bad_file
from actprobe.wandb.lockfile import check_name

_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field


def members(path: str | Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset in the file, bytes) of every member.

    Raises BadInput unless all members are stored uncompressed and unencrypted under distinct,
    harmless names, inside the file, and without overlap.
    """
    path = Path(path)
    found: dict[str, tuple[int, int]] = {}
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        try:
            for info in zipfile.ZipFile(f).infolist():
                name = info.filename
                check_name(name)
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise BadInput(f"{path}: member {name!r} is compressed or encrypted")
                if name in found:
                    raise BadInput(f"{path}: two members are called {name!r}")
                f.seek(info.header_offset)
                head = f.read(_LOCAL.size)
                if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
                    raise BadInput(f"{path}: member {name!r} does not begin where it should")
                _, n, extra = _LOCAL.unpack(head)
                if f.read(n) != name.encode():
                    raise BadInput(f"{path}: member {name!r} has another name in its own header")
                start = info.header_offset + _LOCAL.size + n + extra
                if info.file_size != info.compress_size or start + info.file_size > size:
                    raise BadInput(f"{path}: member {name!r} is larger than the file")
                found[name] = (start, info.file_size)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as e:
            raise bad_file(path, e, "not a zip file, or cut short: ") from None
        except BadInput:
            raise
        except ActprobeError as e:
            raise BadInput(f"{path}: {e}") from None
    end = 0
    for name, (start, n) in sorted(found.items(), key=lambda m: m[1]):
        if start < end:
            raise BadInput(f"{path}: member {name!r} overlaps another one")
        end = start + n
    return found
