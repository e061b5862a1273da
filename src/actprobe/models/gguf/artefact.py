"""Converted weights in the cache: one safetensors file that holds the model's small files as well.

    weights by transformers' names, then `file/NAME` (uint8) for each small file, then `header`

Any reader of safetensors opens it. Tensors are written one after the other; the artefact's header is the
last of them, where the store looks for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actprobe.cache import store
from actprobe.cache.store.files import out_of_space
from actprobe.files.safetensors import read_header

if TYPE_CHECKING:
    import torch

_FILE, _HEADER = "file/", "header"
WEIGHTS = "model.safetensors"
_DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}


def size(shapes: Iterable[Sequence[int]], dtype: str) -> int:
    """Bytes of parameters of these shapes in a dtype."""
    return sum(map(math.prod, shapes)) * _DTYPES[dtype][1]


def write(
    path: str,
    header: bytes,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    values: Iterable[torch.Tensor],
    files: Mapping[str, bytes],
) -> Path:
    """Write the artefact; returns the sealed part for `publish`.

    header: of `store.make_header`; values: of the parameters, in the order of `shapes`.
    """
    kind, width = _DTYPES[dtype]
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    small = {f"{_FILE}{n}": content for n, content in files.items()} | {_HEADER: header}
    for name, shape, each, n in [
        *((name, shape, kind, math.prod(shape) * width) for name, shape in shapes.items()),
        *((name, (len(content),), "U8", len(content)) for name, content in small.items()),
    ]:
        entries[name] = {"dtype": each, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    store.require_space(path, at)
    with store.whole(path) as (new, part):
        try:
            with out_of_space(path, at), open(new, "wb") as f:
                f.write(len(text).to_bytes(8, "little") + text)
                for value in values:
                    f.write(_bytes(value))
                for content in small.values():
                    f.write(content)
        except Exception:  # half of a model is of no use to anybody
            new.unlink(missing_ok=True)
            store.release(part)
            raise
    return part


def _bytes(value: torch.Tensor) -> Any:
    import torch

    return value.contiguous().view(torch.uint8).numpy().reshape(-1).data


def unpack(path: str, folder: Path) -> list[str]:
    """Put the small files of an artefact and a link to its weights into a folder; their names.

    Every byte is compared with the seal first (once a process).
    """
    store.checked(path)
    found = []
    with open(path, "rb") as f:
        for name, t in read_header(path).tensors.items():
            if not name.startswith(_FILE):
                continue
            f.seek(t.start)
            found.append(name.removeprefix(_FILE))
            (folder / found[-1]).write_bytes(f.read(t.stop - t.start))
    (folder / WEIGHTS).symlink_to(Path(path).absolute())
    return found
