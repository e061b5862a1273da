"""What a file of somebody else may hold. More is refused, with the number in the message.

Every number is far beyond what real files hold (a checkpoint of a 1-trillion-parameter model has
about 100,000 tensors) and small enough that reading what it allows takes seconds.
"""

from __future__ import annotations

from actprobe.base.errors import BadInput

HEADER = 16 << 20  # bytes of a safetensors header
NPY_HEADER = 10_000  # bytes of the header of a .npy array; NumPy's own limit
TENSORS = 100_000  # tensors of a file, members of an archive
DIMENSIONS = 64  # of a tensor
EXTENT = 1 << 63  # of a dimension, an offset or a stride
DEPTH = 100  # containers inside each other
NAME = 1_000  # characters of a tensor's name
PICKLE = 64 << 20  # bytes of the pickle of a .pt file: everything in it but the tensors' numbers
OBJECTS = 4_000_000  # objects that a pickle makes
IN_MEMORY = 1 << 30  # bytes of a file that can only be read as a whole
REPEATED = 1 << 30  # bytes that a tensor may have more than the file holds of it
PACKED = 1_100  # bytes out of one compressed byte; deflate makes no more
UNPACKED = 1 << 28  # bytes of a compressed HDF5 chunk, which is unpacked as a whole
GGUF_HEADER = 256 << 20  # bytes of a GGUF header, whose largest part is a vocabulary
GGUF_VALUES = 10_000  # key-value pairs of it
GGUF_KEY = 65_535  # characters of a key, as the format has it
GGUF_STRING = 16 << 20  # bytes of a value, such as a chat template
GGUF_ARRAY = 8_000_000  # values of an array
GGUF_PADDING = 1 << 20  # bytes between tensors, and behind the last one
TOLD = 100  # ignored entries and plain values that are named


def check(what: str, found: int, most: int) -> None:
    """Raise BadInput when a file holds more of something than is read.

    what: the file and the thing, as in "a.pt: tensors".
    """
    if found > most:
        raise BadInput(f"{what}: {found:,}, more than the {most:,} that are read")


def is_shape(shape: tuple[int, ...]) -> bool:
    """False for what cannot be a shape: too many, negative or endless dimensions."""
    return len(shape) <= DIMENSIONS and all(0 <= n < EXTENT for n in shape)


def check_shape(what: str, shape: tuple[int, ...]) -> None:
    """Raise BadInput for what cannot be a shape."""
    if not is_shape(shape):
        shown = str(shape[:4])[:60]
        raise BadInput(f"{what}: an impossible shape of {len(shape)} dimensions ({shown} …)")
