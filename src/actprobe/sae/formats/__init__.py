"""What an SAE is, read from the small files beside its weights, for each format on disk.

Every format ends in one `Sae`. A new one needs a function that reads its config, an entry in
`FORMATS`, and its tensor names in `layouts.NAMES`.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from actprobe.base.errors import ActprobeError, BadInput, bad_file
from actprobe.sae.formats import (
    dictionaries,
    gemma,
    openmoss,
    pickled,
    saelens,
    sparsify,
    transcoders,
)
from actprobe.sae.formats.layouts import NAMES, find, has, matrix_shape
from actprobe.sae.formats.spec import Sae, require_sound

__all__ = ["FORMATS", "NAMES", "Format", "Sae", "describe", "detect", "find", "has", "matrix_shape"]


@dataclass(frozen=True)
class Format:
    """Files that identify a format, and its config reader.

    files: names below the SAE's folder, the last of the weights, which may hold a `*`: then there
    may be one SAE for each layer, and a source names its file. beside: more files that it reads
    where they are there. by_name: fields of `Sae` that names of folders decide, which no digest of
    a file covers.
    """

    files: tuple[str, ...]
    read: Callable[[Path, Path], Sae]
    beside: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()

    def at(self, path: Path) -> Path | None:
        """The SAE's folder when all files are there; `path` may be the weights file itself."""
        found = self._place(path)
        return found[0] if found else None

    def among(self, names: Collection[str], file: str = "") -> list[str] | None:
        """The files of an SAE of this format among the names below a folder (of the hub), its weights
        first; None where there is none.

        file: the weights that a source names. Raises BadInput where there are several and it names
        none.
        """
        *others, weights = self.files
        if file and not fnmatch.fnmatch(file, weights):
            return None
        found = sorted(fnmatch.filter(names, file or weights))
        if not found or not set(others) <= set(names):
            return None
        if len(found) > 1:
            raise BadInput(
                f"there are {len(found)} SAEs; name the file of one at the end of the source, such as "
                f"/{found[0]}"
            )
        return [found[0], *others, *(f for f in self.beside if f in names)]

    def weights(self, path: Path) -> Path | None:
        """The weights file. Raises BadInput where a folder holds several and `path` names none."""
        found = self._place(path)
        if found is None:
            return None
        folder, name = found
        there = sorted(fnmatch.filter(os.listdir(folder), name)) if "*" in name else [name]
        if len(there) > 1:
            raise BadInput(
                f"{path}: holds {len(there)} SAEs; name the file of one, such as "
                f"{folder / there[0]}"
            )
        return folder / there[0]

    def members(self, path: Path) -> dict[str, Path]:
        """The files that describe the SAE at `path` and so identify it, by their names below its
        folder. Raises BadInput where they are not there."""
        folder, weights = self.at(path), self.weights(path)
        if folder is None or weights is None:
            raise BadInput(f"{path}: not in this format: expected {' and '.join(self.files)}")
        named = [*self.files[:-1], str(weights.relative_to(folder)), *self.beside]
        return {name: folder / name for name in named if (folder / name).is_file()}

    def _place(self, path: Path) -> tuple[Path, str] | None:
        """The folder, and the name (or pattern) of the weights in it."""
        *others, weights = self.files
        if path.is_file():
            text, end = str(path), weights
            if "*" in weights:
                if not fnmatch.fnmatch(path.name, weights):
                    return None
                end = path.name
            if not text.endswith(end):
                return None
            path, weights = Path(text.removesuffix(end)), end
        try:
            there = os.listdir(path) if "*" in weights else []
        except OSError:
            return None
        if "*" in weights and not fnmatch.filter(there, weights):
            return None
        if "*" not in weights and not (path / weights).is_file():
            return None
        return (path, weights) if all((path / f).is_file() for f in others) else None


FORMATS = {
    "saelens": Format(("cfg.json", "sae_weights.safetensors"), saelens.read),
    "gemma_scope": Format(("params.npz",), gemma.read, by_name=("input_scale", "transcoder")),
    "gemma_scope_2": Format(
        ("config.json", "params.safetensors"), gemma.read_2, by_name=("transcoder",)
    ),
    "llama_scope": Format(
        ("hyperparams.json", "checkpoints/final.safetensors"), openmoss.read_llama_scope
    ),
    "lm_saes": Format(("config.json", "sae_weights.safetensors"), openmoss.read),
    "sparsify": Format(("cfg.json", "sae.safetensors"), sparsify.read),
    "dictionary_learning": Format(("config.json", "ae.pt"), dictionaries.read),
    "saev": Format(("sae.pt",), pickled.read_saev),
    "qwen_scope": Format(("layer*.sae.pt",), pickled.read_qwen, by_name=("k",)),
    "goodfire": Format(("*-SAE-l*.pt*",), pickled.read_goodfire),
    "circuit_tracer": Format(("layer_*.safetensors",), transcoders.read, transcoders.BESIDE),
    "circuit_tracer_clt": Format(
        ("W_enc_*.safetensors",), transcoders.read_cross_layer, transcoders.BESIDE
    ),
}


def detect(path: Path) -> str:
    """The format of a local SAE. Raises BadInput listing what was looked for."""
    for name, fmt in FORMATS.items():
        if fmt.at(path) is not None:
            return name
    looked = ", ".join(f"{' + '.join(f.files)} ({name})" for name, f in FORMATS.items())
    found = sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else []
    there = f"it holds {', '.join(found)}" if found else "there is no such folder or file"
    raise BadInput(f"{path}: no SAE found: {there}; expected one of {looked}")


def describe(path: str | Path, fmt: str = "auto") -> Sae:
    """The SAE in a local folder or file. Raises BadInput naming the file and what is wrong."""
    path = Path(path)
    name = detect(path) if fmt == "auto" else fmt
    folder = FORMATS[name].at(path)
    weights = FORMATS[name].weights(path)
    if folder is None or weights is None:
        raise BadInput(
            f"{path}: not in format {name}: expected {' and '.join(FORMATS[name].files)}"
        )
    try:
        return require_sound(FORMATS[name].read(folder, weights), folder)
    except (ActprobeError, MemoryError):
        raise
    except Exception as e:  # whatever a config or header of somebody else's makes of it
        raise bad_file(
            folder, e, f"the config of this {name} SAE cannot be used ({type(e).__name__}): "
        ) from e
