"""Errors that are meant to be read by a person.

Every message names the thing (file, config key, row), what was found and what was expected.
Scripts and the command line print these without a traceback.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

_OF_THE_MACHINE = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip


class ActprobeError(Exception):
    """Base of all errors with a message written for the user."""


class ConfigError(ActprobeError):
    """The config is wrong or asks for something that does not exist."""


class BadInput(ActprobeError):
    """One dataset, activation file or SAE cannot be used; the others may go on."""


class Unreachable(ActprobeError):
    """A service does not give something now; it may later. Never a reason to skip."""


def bad_file(path: object, error: Exception, what: str = "") -> BadInput:
    """What to raise for a file that could not be read: `{path}: {what}{error}`.

    Raises the error itself when it says nothing about the file: no descriptors or memory left, a
    disk or a server that fails. To skip the file for that would keep it out for good.
    """
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        raise error
    return BadInput(f"{path}: {what}{error}")


@contextlib.contextmanager
def blamed_on(what: str, remedy: str) -> Iterator[None]:
    """Raise whatever a library raises inside as BadInput: `{what}: {type}: {error}; {remedy}`.

    What says nothing about the input passes as it is: our own errors, no memory, what the system says
    of its disks and servers (an OSError with a number), a library that is not there.
    """
    try:
        yield
    except (ActprobeError, MemoryError, ImportError):
        raise
    except Exception as e:
        of_the_system = isinstance(e, OSError) and e.errno is not None
        if of_the_system or (
            isinstance(e, RuntimeError) and "memory" in str(e)
        ):  # torch has no type
            raise
        raise BadInput(f"{what}: {type(e).__name__}: {e}; {remedy}") from e


class Damaged(ActprobeError):
    """A cached file is truncated, altered or not what its name says."""


class NoSpace(ActprobeError):
    """The disk cannot hold what is about to be written."""
