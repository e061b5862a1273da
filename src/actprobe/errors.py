"""Errors that are meant to be read by a person.

Every message names the thing (file, config key, row), what was found and what was expected.
Scripts and the command line print these without a traceback.
"""

from __future__ import annotations


class ActprobeError(Exception):
    """Base of all errors with a message written for the user."""


class ConfigError(ActprobeError):
    """The config is wrong or asks for something that does not exist."""


class BadInput(ActprobeError):
    """One dataset, activation file or SAE cannot be used; the others may go on."""


class Unreachable(ActprobeError):
    """A service does not give something now; it may later. Never a reason to skip."""


class Damaged(ActprobeError):
    """A cached file is truncated, altered or not what its name says."""


class NoSpace(ActprobeError):
    """The disk cannot hold what is about to be written."""
