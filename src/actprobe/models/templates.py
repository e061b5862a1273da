"""Whether a model has a chat template, seen from its files while the plan is made."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError

_CONFIG = "tokenizer_config.json"


def check_chat(
    name: str, model: Mapping[str, Any], place: Mapping[str, str], chats: str = ""
) -> None:
    """Raise ConfigError for a `chat` that cannot work: no {text}, or a model without a template.

    place: where the model's files are (`load.located`); chats: what else needs a template, in words.
    What is not here yet is looked at by the job, before it loads weights.
    """
    where, chat = f"models.{name}.chat", model["chat"]
    if not chat and not chats:
        return
    if chat and chat["user"].count("{text}") != 1:
        raise ConfigError(
            f"{where}.user: {chat['user']!r} has {chat['user'].count('{text}')} places for the "
            f"row's text, expected one: write user: {chat['user'].replace('{text}', '') + '{text}'!r}"
        )
    if (lacking := _without_template(place)) is not None:
        raise ConfigError(
            f"{chats or where}: this model's tokenizer has no chat template ({lacking}): it was not "
            f"trained on conversations; leave {'the dataset' if chats else where} out, or take the "
            "model's chat version"
        )


def _without_template(place: Mapping[str, Any]) -> str | None:
    """Where a chat template would be that the model does not have; None for one that has, or may."""
    if "template" in place:
        return None if place["template"] else "its GGUF file has no tokenizer.chat_template"
    files = _files(place)
    if files is None or any(n.startswith("chat_template") or n == "tekken.json" for n in files):
        return None
    with contextlib.suppress(ValueError, KeyError):
        if not json.loads(files[_CONFIG]()).get("chat_template"):
            return f"{_CONFIG} has none, and there is no chat_template.jinja"
    return None


def _files(place: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The model's files by name, each with a function that reads it; None when not here."""
    if "folder" in place and "wheel" not in place:
        folder = Path(place["folder"])
        return {p.name: p.read_bytes for p in folder.iterdir()} if folder.is_dir() else None
    if "wheel" not in place or not Path(place["wheel"]).exists():
        return None
    try:
        with zipfile.ZipFile(place["wheel"]) as z:
            inside = [n for n in z.namelist() if n.rpartition("/")[0] == place["folder"]]
            found = {n.rpartition("/")[2]: n for n in inside}
            content = z.read(found[_CONFIG]) if _CONFIG in found else b"{"
    except (OSError, zipfile.BadZipFile):
        return None  # a damaged wheel is fetched again by the stage that owns it
    return dict.fromkeys(found, lambda: content)
