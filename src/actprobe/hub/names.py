"""Sources of the config that name the hub: `hub:ORG/NAME` and `hub:ORG/NAME/FOLDER`."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from actprobe.errors import ConfigError

_PART = r"[A-Za-z0-9_.-]+"
_REPO = re.compile(rf"{_PART}(?:/{_PART})?")
_PAGE = re.compile(
    rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?({_PART}/{_PART})"
    r"(?:/(?:tree|blob|resolve)/([^/]+)(?:/(.+))?)?/?"
)
_PREFIX = re.compile(r"(?:hf://|huggingface:|hf:|hub\s*:|hub://)(?:models/)?\s*(.+)", re.IGNORECASE)


def split(source: str, subfolder: str | None, where: str) -> tuple[str, str]:
    """Repository and folder of a source without its `hub:`; the folder is "" for the top.

    subfolder: as the config gives it apart. Raises ConfigError giving the words to write.
    """
    if words := hint(source):
        raise ConfigError(f"{where}: hub:{source} is no repository of the hub; write {words}")
    name, _, revision = source.partition("@")
    if revision:
        raise ConfigError(
            f"{where}: hub:{source} is no repository of the hub; write source: hub:{name} and "
            f"revision: {revision}"
        )
    parts = source.strip("/").split("/")
    repo, folder = "/".join(parts[:2]), "/".join([*parts[2:], *(subfolder or "").split("/")])
    folder = "/".join(p for p in folder.split("/") if p)
    if not _REPO.fullmatch(repo) or ".." in parts or ".." in PurePosixPath(folder).parts:
        raise ConfigError(
            f"{where}: hub:{source} is no repository of the hub; expected hub:ORG/NAME or "
            "hub:ORG/NAME/FOLDER"
        )
    return repo, folder


def hint(source: str) -> str | None:
    """The words to write for what looks like a place on the hub but does not begin with `hub:`.

    None for anything else. A path such as Org/Name looks like one as well: ask for it only where no
    such path is there.
    """
    if page := _PAGE.fullmatch(source):
        repo, revision, folder = page.groups()
        words = f"source: hub:{repo}" + (f"/{folder}" if folder else "")
        return words + (f" and revision: {revision}" if revision else "")
    if prefixed := _PREFIX.fullmatch(source):
        return hint(prefixed[1]) or f"source: hub:{prefixed[1]}"
    return None


def looks_like_repo(source: str) -> bool:
    """Whether a source that is no path here may be meant as ORG/NAME or ORG/NAME/FOLDER."""
    return re.fullmatch(rf"[A-Za-z0-9]{_PART}(?:/{_PART})+", source) is not None
