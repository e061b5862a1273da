"""What of the config names the hub: models `hub:ORG/NAME` and `hub:ORG/NAME/FOLDER`, datasets
`hub:ORG/NAME@COMMIT/FILE`.

Inside, a repository of datasets is called `datasets/ORG/NAME`, as in the hub's own addresses.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from actprobe.base.errors import ConfigError

_PART = r"[A-Za-z0-9_.-]+"
_REPO = re.compile(rf"{_PART}(?:/{_PART})?")
_PAGE = re.compile(
    rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?({_PART}/{_PART})"
    r"(?:/(?:tree|blob|resolve)/([^/]+)(?:/(.+))?)?/?"
)
_PREFIX = re.compile(r"(?:hf://|huggingface:|hf:|hub\s*:|hub://)(?:models/)?\s*(.+)", re.IGNORECASE)


DATASETS = "datasets/"
_DATASET = re.compile(rf"({_PART}/{_PART})(?:@([^/@\s]+))?(?:/(.+))?")
_DATASET_PAGE = re.compile(
    rf"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)datasets/({_PART}/{_PART})"
    r"(?:(?:/(?:tree|blob|resolve|viewer)/|@)([^/?]+)(?:/([^?]+))?)?/?(?:\?.*)?"
)


def of_client(repo: str) -> tuple[str, str]:
    """What the hub's client calls a repository, and its kind."""
    if repo.startswith(DATASETS):
        return repo.removeprefix(DATASETS), "dataset"
    return repo, "model"


def split_dataset(path: str, where: str) -> tuple[str, str | None, str]:
    """Repository, revision (None where none is given) and file of a dataset's `hub:` path.

    path: without its `hub:`; a revision may be written with %2F for a slash. Raises ConfigError.
    """
    found = _DATASET.fullmatch(path)
    if found is None or ".." in PurePosixPath(found[3] or "").parts:
        words = dataset_hint(path) or "hub:ORG/NAME@COMMIT/FILE"
        raise ConfigError(f"{where}: hub:{path} is no dataset of the hub; write {words}")
    repo, revision, file = found.groups()
    return DATASETS + repo, None if revision is None else unquote(revision), file or ""


def dataset_hint(path: str) -> str | None:
    """The words to write for an address of a dataset's page or file; None for anything else."""
    page = _DATASET_PAGE.fullmatch(path)
    if page is None:
        return None
    repo, revision, file = page.groups()
    return f"hub:{repo}@{revision or 'COMMIT'}" + (f"/{file}" if file else "/FILE")


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
