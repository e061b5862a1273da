"""What a model of the config says of itself, as far as it is on this machine."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError
from actprobe.base.keys import short
from actprobe.config import Config
from actprobe.config.models import Model
from actprobe.files import hub
from actprobe.models import gguf


def described(config: Config, settings: Model) -> dict[str, Any]:
    """The `config.json` of a model, empty where it cannot be read now. Nothing is fetched.

    settings: its entry in the config.
    """
    try:
        found = _read(config, settings)
    except (ActprobeError, OSError, ValueError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(config: Config, settings: Model) -> Any:
    source, below = settings.source, settings.subfolder or ""
    if not isinstance(source, str) or gguf.named(source) is not None:
        return {**gguf.anywhere(config, settings), "dtype": settings.dtype}
    kind, _, rest = source.partition(":")
    if kind == "wheel":
        return _in_wheel(config, *rest.partition("/")[::2])
    path: Path | None = Path(source, below, "config.json").expanduser()
    if kind == "hub":
        repo, folder = hub.split(rest, below, "models")
        path = hub.anywhere(repo, str(Path(folder, "config.json")))
    return json.loads(path.read_text(encoding="utf-8")) if path else None


def _in_wheel(config: Config, name: str, folder: str) -> Any:
    wheel = config.wheels[name]
    file = f"{wheel.package}-{wheel.version}.{short(wheel.sha256)}.whl"
    try:
        with zipfile.ZipFile(f"{config.cache_dir}/wheels/{file}") as z:
            return json.loads(z.read(f"{folder}/config.json"))
    except zipfile.BadZipFile as e:
        raise ValueError(str(e)) from e
