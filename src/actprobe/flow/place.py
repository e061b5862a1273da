"""Where the Snakefile lies, and the folder from which Python imports this package."""

from __future__ import annotations

import contextlib
import os
from importlib import metadata
from pathlib import Path

from actprobe.base.errors import ActprobeError

_PACKAGE = Path(__file__).resolve().parents[1]


def snakefile() -> Path:
    """The Snakefile that belongs to this package: of the checkout, or installed with it.

    Raises ActprobeError where the package was installed without its data files.
    """
    checkout = _PACKAGE.parents[1] / "Snakefile"
    if _PACKAGE.parent.name == "src" and checkout.is_file():
        return checkout
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("actprobe") or ():
            if file.parts[-3:] == ("share", "actprobe", "Snakefile"):
                return Path(str(file.locate())).resolve()
    raise ActprobeError(
        f"no Snakefile belongs to the package at {_PACKAGE}; install it with pip, or from a checkout"
    )


def import_folder(state: Path) -> Path:
    """A folder that holds this package and nothing else, for Python in another environment.

    Of a checkout that is `src`. An installed package lies among all others, which must not be found by
    the Python of a conda environment: then it is a link, made below `state`.
    """
    if _PACKAGE.parent.name == "src":
        return _PACKAGE.parent
    folder = state.absolute() / "python"
    link = folder / _PACKAGE.name
    with contextlib.suppress(OSError):  # a dry run in a folder of somebody else's
        folder.mkdir(parents=True, exist_ok=True)
        if not (link.is_symlink() and link.resolve() == _PACKAGE):
            made = folder / f".{os.getpid()}"
            made.symlink_to(_PACKAGE)
            made.replace(link)
    return folder
