"""Finding the files of a LoRA collection, and what is wrong with one before it is read."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase

from actprobe.base.errors import ActprobeError, bad_file


def expand(item: str, endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Folder that ids count from, and path, of everything an item of the config names.

    item: a folder (searched with all below it), a glob pattern or a path. Links that lead nowhere,
    folders called like files and folders that cannot be listed are among the paths: `trouble`
    names what is wrong with them.
    """
    if os.path.isdir(item):
        for path in _below(item, endings):
            yield item, path
    elif glob.has_magic(item):
        base = os.path.dirname(re.split(r"[*?[]", item)[0])
        if "**" in item:
            yield from ((base, path) for path in _recursive(base, item, endings))
            return
        for hit in glob.iglob(item):
            found = _below(hit, endings) if os.path.isdir(hit) else iter([hit])
            for path in found:
                if path.endswith(endings):
                    yield base, path
    elif os.path.lexists(item):
        yield os.path.dirname(item), item


def _recursive(base: str, item: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Paths that fit a pattern with `**`, or below a folder that does; glob goes round with links."""
    pattern, root = item[len(base) :].strip("/").split("/"), base or "."
    if not os.path.isdir(root):
        return
    for path in _below(root, endings):
        parts = os.path.relpath(path, root).split("/")
        if any(_fits(parts[:n], pattern) for n in range(len(parts) + 1)):
            yield os.path.join(base, *parts)


def _below(
    folder: str, endings: tuple[str, ...], above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Paths below a folder that end so. Links to folders are followed, but not round and round."""
    try:
        st = os.stat(folder)
        if (st.st_dev, st.st_ino) in above:
            return
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as e:
        because(folder, e)  # raises what the machine fails to give
        yield folder
        return
    for entry in found:
        some = False
        if _is_folder(entry):
            for path in _below(entry.path, endings, (*above, (st.st_dev, st.st_ino))):
                some = True
                yield path
        if not some and entry.name.endswith(endings):
            yield entry.path


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """True when a path fits a glob pattern with `**`, part by part; hidden names must be named."""
    if not pattern:
        return not parts
    hidden = bool(parts) and parts[0].startswith(".")
    if pattern[0] == "**":
        further = bool(parts) and not hidden and _fits(parts[1:], pattern)
        return further or _fits(parts, pattern[1:])
    if not parts or (hidden and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def trouble(path: str) -> str:
    """Why a path is not a file that can be read, in words without the path; empty when it is.

    Raises ActprobeError naming the path for what the machine fails to give (no descriptor left, a
    disk that fails): no fault of the file.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)
            return "a folder, not a file"
        if not stat.S_ISREG(mode):
            return "not a regular file"
        return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)
    except OSError as e:
        return because(path, e)


def because(path: str, e: OSError) -> str:
    """What an error of a file says, as `trouble` does."""
    try:
        bad_file(path, e)
    except OSError:
        raise ActprobeError(f"{path} cannot be read now: {e.strerror}") from None
    if isinstance(e, FileNotFoundError) and os.path.islink(path):
        return "a link to a file that is not there"
    return e.strerror or str(e)
