"""An SAE on the hub: looked at in the plan by names and small files, fetched in the job."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from actprobe.base.errors import BadInput, ConfigError
from actprobe.config import nearest
from actprobe.files import hub
from actprobe.sae.formats import FORMATS, Sae, describe, detect

_RUN = "../config.json"  # of sparsify: the run that a module's SAE belongs to


@dataclass(frozen=True)
class Found:
    """An SAE of the hub as a plan sees it.

    folder: of the repository; files: below that folder, the weights first; sae: None where only its
    weights say what it is, and these are not here; lacks: a file that a job has to fetch, if any;
    bad: why it cannot be used.
    """

    folder: str
    files: tuple[str, ...]
    format: str
    sae: Sae | None
    lacks: str | None
    bad: str | None = None


@dataclass(frozen=True)
class Remote:
    """A folder of a commit of a repository, or a weights file there, as a source names it."""

    service: hub.Hub
    repo: str
    commit: str
    folder: str

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"hub:{'/'.join(filter(None, [self.repo, self.folder]))} at {self.commit[:8]}"

    @property
    def here(self) -> Path:
        """Where its files lie on this machine, once they are fetched."""
        return hub.snapshot(self.repo, self.commit) / self.folder

    def look(self, fmt: str, where: str) -> Found:
        """What it is, as far as lists and small files tell.

        Raises ConfigError for what is not there, hub.Refused, Unreachable or Damaged.
        """
        names = hub.listing(self.repo, self.commit)
        if names is None and (kept := self._kept(fmt)):
            return kept
        names = self.service.listing(self.repo, self.commit)
        at, file = self._split(names, where)
        below = [n.removeprefix(at._path("")) for n in names if n.startswith(at._path(""))]
        fmt, files = at._format(fmt, below, file, where)
        for name in files:
            hub.require_length(at.here / name, names[at._path(name)])
        missing = hub.lacking(at.repo, at.commit, map(at._path, files))
        if fmt == "sparsify" and at._path(_RUN) in names:
            at.small(_RUN)
        found = Found(at.folder, tuple(files), fmt, None, missing[0] if missing else None)
        try:
            sae = at._without_weights(fmt, files) if missing else at.describe(files[0], fmt)
        except BadInput as e:
            return replace(found, bad=str(e))
        return replace(found, sae=sae)

    def _kept(self, fmt: str) -> Found | None:
        """An SAE that is here, though its commit was never listed here."""
        try:
            fmt = detect(self.here) if fmt == "auto" else fmt
            sae = describe(self.here, fmt)
        except BadInput:
            return None
        folder = FORMATS[fmt].at(self.here)
        assert folder is not None
        there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        weights = Path(sae.weights).relative_to(folder).as_posix()
        files = FORMATS[fmt].among(there, weights) or []
        below = folder.relative_to(hub.snapshot(self.repo, self.commit)).as_posix()
        return Found("" if below == "." else below, tuple(files), fmt, sae, None)

    def _split(self, names: hub.Listing, where: str) -> tuple[Remote, str]:
        """Itself as a folder, and the weights file below it that the source names, if it does.

        Raises ConfigError for a folder that the commit does not have.
        """
        if self.folder in names:
            path = PurePosixPath(self.folder)
            for folder in path.parents:
                below = "" if str(folder) == "." else str(folder)
                file = str(path.relative_to(folder))
                prefix = f"{below}/" if below else ""
                there = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
                if any(f.among(there, file) for f in FORMATS.values()):
                    return replace(self, folder=below), file
        elif self.folder and not any(n.startswith(f"{self.folder}/") for n in names):
            folders = {str(p) for n in names for p in list(PurePosixPath(n).parents)[:-1]}
            raise ConfigError(
                f"{where}.source: hub:{self.repo} at {self.commit[:8]} has no folder {self.folder}; "
                f"{nearest(self.folder, folders)}"
            )
        return self, ""

    def _format(self, fmt: str, names: list[str], file: str, where: str) -> tuple[str, list[str]]:
        """The format by the names of the files, and its files, the weights first.

        Raises ConfigError where there is none.
        """
        for name, known in FORMATS.items():
            try:
                if fmt in ("auto", name) and (files := known.among(names, file)):
                    return name, files
            except BadInput as e:
                raise ConfigError(f"{where}.source: {self.called}: {e}") from None
        held = sorted({n.split("/")[0] for n in names})
        wanted = {f: x.files for f, x in FORMATS.items() if fmt in ("auto", f)}
        raise ConfigError(
            f"{where}.source: {self.called}: no SAE found: it holds {', '.join(held[:8])}"
            f"{', …' if len(held) > 8 else ''}; expected "
            + " or ".join(f"{' + '.join(files)} ({f})" for f, files in wanted.items())
        )

    def describe(self, weights: str, fmt: str) -> Sae:
        """What it is, by its files, which are here. Raises BadInput."""
        try:
            return describe(self.here / weights, fmt)
        except BadInput as e:
            self.require_whole()
            raise BadInput(str(e).replace(str(self.here), self.called)) from None

    def require_whole(self) -> None:
        """Raise Damaged where a file that is here is not what the hub lists: no fault of the SAE."""
        root = hub.snapshot(self.repo, self.commit)
        for path in [self.here] if self.here.is_file() else self.here.rglob("*"):
            if path.is_file():
                name = path.relative_to(root).as_posix()
                self.service.require_whole(self.repo, self.commit, name)

    def _without_weights(self, fmt: str, files: list[str]) -> Sae | None:
        """What the SAE is by its small files and the names of its folders; weights are stood in for.

        Widths that the weights alone say are 0.
        """
        with tempfile.TemporaryDirectory(prefix="actprobe-sae-") as scratch:
            # The path as in the hub cache: some formats say in folder names what they are.
            root = Path(scratch, *hub.snapshot(self.repo, self.commit).parts[-3:])
            folder = root / self.folder
            for name in files:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                small = name.endswith((".json", ".yaml", ".yml"))
                stands_in = _stand_in(path.suffix)
                path.write_bytes(self.small(name).read_bytes() if small else stands_in)
            if fmt == "sparsify" and (self.here / _RUN).exists():
                (folder / _RUN).write_bytes((self.here / _RUN).read_bytes())
            try:
                found = describe(folder / files[0], fmt)
            except BadInput as e:
                if Path(files[0]).name in str(e):  # only the weights themselves say it
                    return None
                raise BadInput(str(e).replace(str(folder), self.called)) from None
        if (found.d_in, found.d_sae) == (1, 1):
            found = replace(found, d_in=0, d_sae=0)
        return replace(found, weights=str(self.here / files[0]))

    def small(self, name: str) -> Path:
        """A small file of it, fetched if it is not here."""
        return self.service.small(self.repo, self.commit, self._path(name))

    def fetch(self, files: Iterable[str]) -> None:
        """Have these files here, whole."""
        paths = [self._path(f) for f in files]
        self.service.fetch(self.repo, self.commit, paths, self.called)

    def _path(self, name: str) -> str:
        if name == _RUN:
            return str(PurePosixPath(self.folder).parent / "config.json")
        return f"{self.folder}/{name}" if self.folder else name


def _stand_in(suffix: str) -> bytes:
    """A weights file with one matrix W_enc of shape [1, 1], which says nothing of the true ones."""
    if suffix == ".npz":
        array = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }"
        array += b" " * (63 - (10 + len(array)) % 64) + b"\n"
        npy = b"\x93NUMPY\x01\x00" + len(array).to_bytes(2, "little") + array + bytes(4)
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as z:
            z.writestr("W_enc.npy", npy)
        return made.getvalue()
    header = json.dumps({"W_enc": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(4)
