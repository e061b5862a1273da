"""The journal of a part: how many bytes of each segment have arrived.

It is written after the data, so that a killed process loses only what it had not yet written. If
the machine itself goes down the journal may be ahead of the data; the digest of the whole file
catches that, and a file without one is not resumed.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path


def open_private(path: str | Path) -> int:
    """Descriptor of a file of ours for reading and writing; refuses to follow a symbolic link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


class Journal:
    """Bytes received per segment, kept in `{part}.journal`.

    path: the journal file; identity: what the part is to become (digest, size, segment size): a
    journal of anything else is begun anew. `received` holds one count per segment.
    """

    def __init__(self, path: str | Path, identity: str, segments: int):
        self.path = Path(path)
        self._head = identity.encode() + b"\n"
        self._format = struct.Struct(f"<{segments}Q")
        self._fd = open_private(path)
        try:
            content = os.pread(self._fd, len(self._head) + self._format.size + 1, 0)
            head, body = content[: len(self._head)], content[len(self._head) :]
            if head == self._head and len(body) == self._format.size:
                self.received = list(self._format.unpack(body))
            else:
                self.clear()
        except BaseException:
            os.close(self._fd)
            raise

    def clear(self) -> None:
        """Begin anew: nothing received."""
        self.received = [0] * (self._format.size // 8)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, self._head + self._format.pack(*self.received), 0)

    def record(self, segment: int, received: int) -> None:
        """Note that the first `received` bytes of a segment are in the part.

        `received` changes last: the thread that sees the file complete closes it.
        """
        os.pwrite(self._fd, struct.pack("<Q", received), len(self._head) + 8 * segment)
        self.received[segment] = received

    def close(self) -> None:
        os.close(self._fd)

    def remove(self) -> None:
        """Close and delete."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
