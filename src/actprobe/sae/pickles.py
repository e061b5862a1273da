"""State dicts of PyTorch files, as people save them: in a dict around them, or behind a JSON line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from actprobe.base.errors import BadInput

if TYPE_CHECKING:
    from actprobe.files import Array

_T = TypeVar("_T")

SUFFIXES = (".pt", ".pth", ".bin")  # what cannot be read in place and is converted once
_WRAPPERS = ("state_dict", "model_state_dict", "sae", "model")  # keys under which some lie


@dataclass(frozen=True)
class State:
    """Float tensors by name, and those of a single number."""

    arrays: dict[str, Array]
    numbers: dict[str, float]


def is_pickle(path: str | Path) -> bool:
    """Whether this is a file of PyTorch, by its name."""
    return Path(path).suffix in SUFFIXES


@contextmanager
def opened(path: str | Path) -> Iterator[State]:
    """The state dict of a PyTorch file, mapped where the file allows; none of its code is run.

    A JSON line before the pickle is passed over (saev). Raises BadInput naming the file for one that
    is cut short, holds other objects, or no tensors.
    """
    from actprobe.files import is_float, open_arrays

    with _without_header(Path(path)) as file, ExitStack() as stack:
        try:
            found = stack.enter_context(open_arrays(file, "pt"))
        except BadInput as e:
            said = str(e).replace(str(file), str(path))
            raise BadInput(
                f"{said}; fetch it again, or save its state_dict alone with torch.save"
            ) from None
        arrays = {n: a for n, a in found.arrays.items() if is_float(a.dtype)}
        if not arrays:
            raise BadInput(
                f"{path}: holds no float tensors by name; expected the state_dict of an SAE (found "
                f"{found.told})"
            )
        inside = _wrapper(arrays)
        yield State(_unwrapped(arrays, inside), _unwrapped(found.numbers, inside))


def _wrapper(names: Iterable[str]) -> str:
    """The key, with its dot, of the dict that the tensors lie in; "" for none."""
    wrappers = (f"{key}." for key in _WRAPPERS)
    return next((w for w in wrappers if any(n.startswith(w) for n in names)), "")


def _unwrapped(found: Mapping[str, _T], wrapper: str) -> dict[str, _T]:
    return {n.removeprefix(wrapper): v for n, v in found.items() if n.startswith(wrapper)}


def header_end(path: str | Path) -> int:
    """Bytes of the JSON line that a file begins with, 0 where it begins with a pickle."""
    with open(path, "rb") as f:
        return len(f.readline(1 << 20)) if f.read(1) == b"{" and not f.seek(0) else 0


@contextmanager
def _without_header(path: Path) -> Iterator[Path]:
    """The file, or a copy of what follows its header."""
    start = header_end(path)
    if not start:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="actprobe-sae-") as folder:
        rest = Path(folder) / path.name
        with open(path, "rb") as f, open(rest, "wb") as out:
            f.seek(start)
            shutil.copyfileobj(f, out, 1 << 24)
        yield rest
