"""What a loader is shown of a model: a folder of links to the files that identify it.

transformers reads what it finds: an adapter where peft is installed, whichever of several weights
files it likes best, code. In a folder that holds the chosen files alone the environment decides
nothing, and an index can name only the weights that are needed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from actprobe.base.errors import ActprobeError
from actprobe.models import families
from actprobe.models.files import INDEX, Files

Keep = Callable[[str], bool]  # parameter -> whether it is needed

_FINAL_NORM = re.compile(
    r"(?:(?:model|transformer|gpt_neox|decoder|backbone)\.)*"
    r"(?:norm|ln_f|final_layer_norm|final_layernorm|final_norm)\.(?:weight|bias)"
)


class View:
    """A folder that shows some files of a model.

    folder: empty, for this view alone; origin: where the files are; files: those of the model;
    fetch: has files (by name) in `origin`, for models that are not here yet; trusted: whether the
    model's own code may be run; called: what the hub calls it; code: what `remote_code` has to say
    for that.
    """

    def __init__(
        self,
        folder: Path,
        origin: Path,
        files: Files,
        *,
        fetch: Callable[[Iterable[str]], None] | None = None,
        trusted: bool = False,
        called: str | None = None,
        code: str = "",
    ):
        self.folder, self.origin, self.files = folder, origin, files
        self.trusted, self.called, self.code = trusted, called, code
        self.config: Any = None  # of transformers, once it was read
        self._fetch = fetch
        self._shown: dict[Path, tuple[int, int, int]] = {}
        self._show(files.small)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`: nothing is fetched, asked, or run without being trusted."""
        return {
            "pretrained_model_name_or_path": str(self.folder),
            "local_files_only": True,
            "trust_remote_code": self.trusted,
        }

    def show_weights(self, keep: Keep) -> list[str]:
        """Put the weights in the folder; returns the parameters that were left out.

        Of an index only the parameters to keep are shown, and of its files those that hold them.
        """
        files = self.files
        if files.parameters is None or not files.main.endswith(INDEX):
            self._show(dict.fromkeys((files.main, *files.shards)))
            return []
        kept = {p: shard for p, shard in files.parameters.items() if keep(p)}
        self._show(sorted(set(kept.values())))
        folder = PurePosixPath(files.main).parent
        weight_map = {p: os.path.relpath(shard, folder) for p, shard in kept.items()}
        index = {"metadata": {}, "weight_map": weight_map}
        (self.folder / files.main).write_text(json.dumps(index), encoding="utf-8")
        return sorted(files.parameters.keys() - kept.keys())

    def _show(self, names: Iterable[str]) -> None:
        names = list(names)
        if self._fetch is not None:
            self._fetch(names)
        for name in names:
            real, link = (self.origin / name).resolve(), self.folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            self._shown[real] = _stamp(real)
            link.symlink_to(real)

    def require_unchanged(self) -> None:
        """Raise ActprobeError when a file was changed since it was shown."""
        for path, stamp in self._shown.items():
            if _stamp(path) != stamp:
                raise ActprobeError(f"{path} was changed while it was read; run again")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        st = path.stat()
    except OSError as e:
        raise ActprobeError(f"{path} cannot be read: {e.strerror}") from None
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns


def first_layers(parameters: Iterable[str], n: int) -> Keep:
    """Which parameters the first n layers of a mapped family need.

    The layer is the first number in a parameter's name. Head and final norm come after the last
    site that can be read.
    """
    tied = not any(re.search(r"embed|wte|word_embeddings", p) for p in parameters)

    def keep(parameter: str) -> bool:
        number = re.search(r"(?:^|\.)(\d+)\.", parameter)
        if number:
            return int(number[1]) < n
        head = re.match(r"(?:lm_head|embed_out|score|cls)\.", parameter)
        return not (head and not tied) and not _FINAL_NORM.fullmatch(parameter)

    return keep


def keep_for(described: Mapping[str, Any], parameters: Iterable[str], layers: int) -> Keep:
    """Which parameters of a model are needed to read sites of its first layers.

    described: its `config.json`.
    """
    may_cut = families.may_cut(described, layers)
    return first_layers(parameters, layers) if may_cut else everything


def everything(parameter: str) -> bool:
    """Keep every parameter."""
    return True
