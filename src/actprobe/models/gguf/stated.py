"""What a GGUF file states about its architecture, and what of it was asked for.

llama.cpp's defaults stand in for what a file leaves out, not those of transformers' configs, which
are the values of one checkpoint. What nobody asked for is refused in the end: a scaling that is passed
over changes every activation a little.
"""

from __future__ import annotations

import struct
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Array, Header

INSTEAD = "take the weights that it was made from (hub:ORG/NAME)"  # what to do about a file
# They say how a file was made, or what the other values say as well.
_HARMLESS = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type")


class Stated:
    """The values of a header below its architecture's name."""

    def __init__(self, header: Header, what: str):
        self.header, self.what = header, what
        self.name = str(header.get("general.architecture", ""))
        self._asked = set(_HARMLESS)

    def __call__(self, key: str, default: Any = None) -> Any:
        """A value; numbers in single precision as the shortest decimal that gives them.

        A list of equal values, one per layer, is that value. Raises BadInput where there is none and
        no default.
        """
        self._asked.add(key)
        found = self.header.values.get(f"{self.name}.{key}")
        if isinstance(found, Array):
            found = found.values
            if found and all(v == found[0] for v in found):
                found = found[0]
        if found is None:
            if default is None:
                raise BadInput(f"{self.what}: the header has no {self.name}.{key}")
            return default
        return _shortest(found) if isinstance(found, float) else found

    def number(self, key: str, default: int | None = None) -> int:
        """A positive whole number, the same for all layers."""
        found = self(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise BadInput(
                f"{self.what}: {self.name}.{key} is {found!r}; expected a whole number above 0"
            )
        return found

    def expect(self, key: str, value: Any, why: str) -> None:
        """Refuse the file unless a value is absent or this one."""
        if (found := self(key, value)) != value:
            raise BadInput(
                f"{self.what}: {self.name}.{key} is {found!r}; expected {value!r}: {why}"
            )

    def has(self, tensor: str) -> bool:
        """Whether there is a tensor of this name."""
        return tensor in self.header.tensors

    def refuse_the_rest(self) -> None:
        """Raise BadInput for values that nobody asked for."""
        own = f"{self.name}."
        left = {
            k: v
            for k, v in self.header.values.items()
            if k.startswith(own) and k.removeprefix(own) not in self._asked
        }
        if left:
            key, value = next(iter(left.items()))
            shown = value.values if isinstance(value, Array) else value
            raise BadInput(
                f"{self.what}: its header sets {key} to {str(shown)[:60]} ({len(left)} such values), "
                "which is not understood for this architecture, and may change what the model computes; "
                f"{INSTEAD}"
            )


def _shortest(value: float) -> float:
    """The decimal that somebody wrote, of a number that was stored in single precision."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value
