"""State dicts of PyTorch files: tensors by name, mapped rather than loaded where the file allows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actprobe.errors import BadInput, bad_file

if TYPE_CHECKING:
    import torch

SUFFIXES = (".pt", ".pth", ".bin")  # what cannot be read in place and is converted once
_WRAPPERS = ("state_dict", "model_state_dict", "sae", "model")  # keys under which some lie


def is_pickle(path: str | Path) -> bool:
    """Whether this is a file of PyTorch, by its name."""
    return Path(path).suffix in SUFFIXES


def load(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file by name; only tensors and plain values are unpickled.

    A JSON line before the pickle is passed over (saev). Raises BadInput naming the file for one that
    is cut short, holds other objects, or no tensors.
    """
    import torch

    try:
        start = header_end(path)
        options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
        if start:
            with open(path, "rb") as f:
                state = torch.load(_Rest(f, start), **options)  # type: ignore[arg-type]
        else:
            state = _load_mapped(path, options)
    except MemoryError:
        raise
    except Exception as e:  # whatever a damaged pickle makes of it
        raise bad_file(
            path, e, "not a PyTorch state dict of tensors, or cut short (fetch it again, or save its "
            "state_dict alone): ",
        ) from None  # fmt: skip
    found = dict(_tensors(state))
    if not found:
        raise BadInput(f"{path}: holds no tensors by name; expected the state_dict of an SAE")
    return found


def _load_mapped(path: str | Path, options: Mapping[str, Any]) -> Any:
    import torch
    from torch.serialization import _is_zipfile

    with open(path, "rb") as f:
        mapped = _is_zipfile(f)  # what older versions of torch wrote can only be loaded
    return torch.load(path, mmap=mapped, **options)


def _tensors(state: Any) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if not isinstance(state, Mapping):
        return
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            yield str(name), value.detach()


def header_end(path: str | Path) -> int:
    """Bytes of the JSON line that a file begins with, 0 where it begins with a pickle."""
    with open(path, "rb") as f:
        first = f.read(1)
        if first != b"{":
            return 0
        return 1 + len(f.readline(1 << 20))


class _Rest(io.RawIOBase):
    """What follows a header, as a file of its own."""

    def __init__(self, f: io.BufferedReader, start: int):
        self._f, self._start = f, start
        f.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._f.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = self._start if whence == io.SEEK_SET else 0
        return self._f.seek(base + offset, whence) - self._start

    def tell(self) -> int:
        return self._f.tell() - self._start
