"""Parts, publishing and setting aside: what makes writes atomic and resumable.

Work goes to `{path}.part`, which is never a declared output of a rule, so that Snakemake does not
delete it when a job fails or is killed. A finished part is sealed; `publish` renames sealed parts
into place at the end of the job. A run that was killed leaves whole artefacts and parts only, and
the next run takes over whatever is sealed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError, Damaged, NoSpace
from actprobe.cache.store.header import is_sealed, quick_check, read_header, seal, verify

log = logging.getLogger(__name__)

_claims: dict[str, int] = {}  # part -> open lock descriptor
_private: dict[str, Path] = {}  # shared part -> the one that this process writes instead
_scratch: list[Path] = []  # at most one folder
_trusted: dict[str, tuple[int, ...]] = {}  # path -> how the file was when it was verified
_sources: dict[str, tuple[str, ...]] = {}  # artefact to be made -> what it is made from


def part_path(path: str | Path) -> Path:
    """Where the unfinished content of the artefact at `path` lives."""
    return Path(f"{path}.part")


def claim(path: str | Path) -> Path:
    """Take the part of `path` for this process and return where to write.

    A part is locked with flock on `{path}.part.lock` until it is finished (`release`) or the
    process ends: a job of a thousand targets holds few open files. If another live process holds
    it (someone else's run on a shared cache), this process works in a private part instead, until
    it is released: both write the same bytes and the last rename wins. Where the file system knows
    no locks, the part is used without one.
    """
    shared = part_path(path)
    part = _private.get(str(shared), shared)
    if str(part) in _claims:
        return part
    part.parent.mkdir(parents=True, exist_ok=True)
    fd = _lock(part)
    if fd is None:
        host = socket.gethostname().replace(".", "-")
        part = Path(f"{path}.{host}-{uuid.uuid4().hex[:8]}.part")
        log.warning("%s is being written by another process; working in %s", path, part.name)
        _private[str(shared)] = part
        fd = _lock(part)
        assert fd is not None, "no other process knows this name"
    _claims[str(part)] = fd
    return part


def _lock(part: Path) -> int | None:
    """The descriptor of a part's lock file, locked; None when another process has it."""
    while True:
        try:
            fd = os.open(f"{part}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as e:
            raise ActprobeError(f"cannot write in {part.parent}: {e.strerror}") from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError as e:
            if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        if _same_file(fd, f"{part}.lock"):
            return fd
        os.close(fd)  # its last holder removed it just before we locked it


def adopt(part: str | Path, path: str | Path, key: str) -> bool:
    """Put a sealed private part of a process that is gone in place, or remove what it left."""
    private = Path(part)
    fd = _lock(private)
    if fd is None:
        return False
    _claims[str(private)] = fd
    try:
        quick_check(private, key)
        os.replace(private, path)
        return True
    except Damaged:
        private.unlink()
        return False
    except FileNotFoundError:  # its process was alive, and has published it
        return False
    finally:
        for left in (".new", ".journal"):
            Path(f"{private}{left}").unlink(missing_ok=True)
        release(private)


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[tuple[Path, Path]]:
    """For an artefact that is written in one go: (the file to write, the part it becomes).

    Leaving the block seals the file and renames it to the part. A sealed part is never written
    into: another process that shares the cache may be about to publish it.
    """
    part = claim(path)
    new = Path(f"{part}.new")
    yield new, part
    seal(new)
    os.replace(new, part)
    release(part)


def use_scratch(folder: str | Path | None) -> None:
    """From now on, begin HDF5 parts in a folder of this machine and bring them back once sealed.

    A run on the same machine goes on with what lies there; on another one the file is begun anew.
    """
    _scratch[:] = [Path(folder)] if folder else []


def workplace(part: Path) -> Path:
    """Where to fill a claimed part: itself when it was begun, else its place in scratch, if any."""
    if not _scratch or part.exists():
        return part
    _scratch[0].mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(part.absolute()).encode()).hexdigest()
    return _scratch[0] / f"actprobe-{digest[:16]}.part"


def bring_back(work: Path, part: Path) -> None:
    """Move a sealed part from scratch beside its target: copied whole, then renamed."""
    if work == part:
        return
    copy = Path(f"{part}.copy")
    size = os.path.getsize(work)
    require_space(part, size)
    with out_of_space(part, size):
        shutil.copyfile(work, copy)
        with open(copy, "r+b") as f:
            os.fsync(f.fileno())
    os.replace(copy, part)
    work.unlink()


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def release(part: str | Path) -> None:
    """Give back a claimed part and remove its lock file."""
    fd = _claims.pop(str(part), None)
    for shared in [s for s, p in _private.items() if p == Path(part)]:
        del _private[shared]
    if fd is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{part}.lock")
        os.close(fd)


@contextlib.contextmanager
def out_of_space(path: str | Path, needed: int) -> Iterator[None]:
    """Turn a full disk inside the block into NoSpace with what was needed and what is free."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_space(path, needed) from e


def _no_space(path: str | Path, needed: int) -> NoSpace:
    free = shutil.disk_usage(_existing(path)).free
    return NoSpace(
        f"disk full: {path} needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; "
        "free some space (`actprobe gc` lists what no config wants) and run again: "
        "it goes on where it stopped"
    )


def require_space(path: str | Path, needed: int) -> None:
    """Raise NoSpace unless the file system of `path` has `needed` bytes free."""
    if shutil.disk_usage(_existing(path)).free < needed:
        raise _no_space(path, needed)


def _existing(path: str | Path) -> Path:
    p = Path(path).absolute()
    while not p.exists():
        p = p.parent
    return p


def reserve(path: str | Path) -> None:
    """Make the file system really allocate the file's whole length, so that writing cannot fail."""
    with open(path, "r+b") as f:
        size = f.seek(0, os.SEEK_END)
        with out_of_space(path, size):
            os.posix_fallocate(f.fileno(), 0, size)


def finished_part(path: str | Path, key: str) -> bool:
    """True when `{path}.part` is sealed, whole and has the wanted key: a rename completes it."""
    try:
        quick_check(part_path(path), key)
    except (Damaged, OSError):
        return False
    return True


def publish(paths: Iterable[str | Path], parts: Iterable[str | Path] | None = None) -> None:
    """Rename the finished parts of these artefacts into place.

    `parts` names the work files when `claim` gave private ones. An artefact that another process
    put in place first is replaced by equal bytes, or left when that process took this very part.
    Raises Damaged for a part that is not sealed.
    """
    targets = [Path(p) for p in paths]
    for path, part in zip(targets, parts or map(part_path, targets), strict=True):
        try:
            if not is_sealed(read_header(part)):
                raise Damaged(f"{part}: not finished, refusing to publish it")
            os.replace(part, path)
        except FileNotFoundError:
            quick_check(path)
        Path(f"{part}.journal").unlink(missing_ok=True)
        release(part)
        _fsync_dir(path.parent)


def _fsync_dir(folder: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def link(there: str | Path, path: str | Path) -> bool:
    """Give a whole artefact a second name: a hard link, or a rename where there are none."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(there, path)
    except FileExistsError:
        return False
    except FileNotFoundError:  # gone since the plan
        return False
    except OSError:
        os.replace(there, path)
    log.info("%s is there as %s: nothing to compute", Path(path).name, there)
    return True


def set_aside(path: str | Path, reason: str) -> Path:
    """Rename a damaged artefact to `{path}.bad` and say so in the log; returns the new path."""
    bad = Path(f"{path}.bad")
    if bad.is_dir():
        bad = Path(f"{path}.{uuid.uuid4().hex[:8]}.bad")
    with contextlib.suppress(FileNotFoundError):  # another process did so first
        os.replace(path, bad)
    log.warning("set aside as %s, it will be computed again: %s", bad.name, reason)
    return bad


def checked(path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Header of an artefact that is about to be read, after every byte was compared with its seal.

    A process reads a file for this once (0.7 CPU s per GB), and again when its size, times or inode
    are others. A damaged file is set aside and Damaged raised: the next run finds the target
    missing and computes it again.
    """
    try:
        header = quick_check(path, key)
        once(path, verify)
        return header
    except Damaged as e:
        set_aside(path, str(e))
        raise Damaged(f"{e}. It was set aside as .bad; run again to compute it anew") from e


def once(path: str | Path, verify: Callable[[str | Path], object]) -> None:
    """Have a file verified, unless this process has done so since its last change."""
    stamp = _stamp(path)
    if _trusted.get(str(path)) != stamp:
        verify(path)
        _trusted[str(path)] = stamp


def _stamp(path: str | Path) -> tuple[int, ...]:
    st = os.stat(path)
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def sources(made: Mapping[str, Iterable[str]]) -> None:
    """Say which artefacts this process makes from which: their headers will hold the seals."""
    _sources.update({path: tuple(inputs) for path, inputs in made.items()})


def made_from(path: str | Path) -> dict[str, str]:
    """Key -> seal of the artefacts from which the one at `path` is made.

    Raw files are not among them: their own digest is their key.
    """
    found = {}
    for source in _sources.get(str(path), ()):
        with contextlib.suppress(Damaged, OSError):
            header = read_header(source)
            found[header["key"]] = header["seal"]["sha256"]
    return found


def cannot_open(path: str | Path, error: Exception) -> ActprobeError:
    """What to raise for an artefact that a library could not open or read.

    It is set aside when its bytes are not those that were sealed; a file that is whole stays, for
    the fault lies elsewhere (too many open files, no memory, a file system that is gone).
    """
    try:
        verify(path)
    except Damaged as e:
        set_aside(path, str(e))
        return Damaged(f"{e}. It was set aside as .bad; run again to compute it anew")
    return ActprobeError(f"{path}: {error}; the file itself is whole")
