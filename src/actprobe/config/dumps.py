"""`dumps`: activations and latents kept at Weights & Biases."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actprobe.config.base import Needs, OneOf, Section, absent
from actprobe.config.kinds import (
    NUMBER,
    AboveZero,
    Name,
    Patterns,
    Positive,
    Text,
    Word,
    spelled,
)
from actprobe.config.values import Size

Artifact = Annotated[
    str,
    spelled(r"^[^/:]+/[^/:]+/[^/:]+(:[^/:]+)?$", "entity/project/name:alias"),
]
Run = Annotated[
    str,
    spelled(r"^[^/:]+/[^/:]+/[^/:]+$", "entity/project/run_id"),
]


class Source(Section):
    """Where the files are. Either `artifacts`, or `run` (its files), or `run` with `type` (the
    newest version of every artifact of that type that the run logged).
    """

    one_of: ClassVar[OneOf] = (("artifacts",), ("run", "type"))
    needs: ClassVar[Needs] = {"type": ("run",)}

    artifacts: Annotated[list[Artifact], Field(min_length=1)] | None = absent()
    """Artifacts as entity/project/name:alias or entity/project/name:v3."""
    run: Run | None = absent()
    """A run as entity/project/run_id."""
    type: Text | None = absent()
    """Type of the artifacts that the run logged."""


class Dump(Section):
    """One dump."""

    source: Source
    files: Patterns = ["*"]
    """Which of the files: shell patterns over their whole names, where `*` also matches `/`."""
    lock: Text
    """The lock file, JSON; keep it under version control."""
    connections: Annotated[int, Field(ge=1, le=64), NUMBER] = 8
    """Byte ranges fetched at once."""
    rate_limit: Size | None = None
    """Bytes per second over all connections (a number, or e.g. `50MB`); null for none."""
    stall_limit: AboveZero = 30.0
    """Seconds without a byte after which a connection is given up."""
    least_speed: Size = 1000
    """Bytes per second of a connection below which it is given up, and its range asked for again,
    counted over `stall_limit` seconds.
    """
    tries: Positive = 8
    """Attempts at a range without progress (less than a 64th of it, or too slow) before its file is
    given up.
    """
    content: Literal["activations", "latents"] = "activations"
    """`activations`: matrices [rows, d] or [windows, length, d], one row per example or token.
    `latents`: SAE codes kept per window and latent (`nonzero_activations`, `data_indices`,
    `neuron_indices`).
    """
    model: Name = "imported"
    """Name of the model that the activations come from, as it appears in results."""
    dataset: Name = "imported"
    """Name of what the rows are. When it is one of `datasets`, there must be as many rows as texts.
    """
    position: Word = "tokens"
    """What a row of the activations is (last, mean, …), or `tokens` (all of them)."""
    sites: dict[Name, Patterns] = {}
    """Which files hold which site: shell patterns, in the order in which they are listed. The files
    of one pattern may differ in the number of the chunk alone, and come in its order. Without
    `sites` they are read off names like `blocks--2--hook_resid_pre.pt`, which may say nothing else.
    """
    array: str | None = None
    """Name of the array in each file; needed when a file holds several."""
    tokens: str = "*all_token_ids.pt"
    """The file with the tokens of every row, or one for each chunk: lists of strings or ids, an
    array of ids [rows, length], or `input_ids` with `attention_mask`. Ids of -1 and -100, and what
    the mask leaves out, are padding: their rows are dropped.
    """
    width: Positive | None = None
    """Number of latents of the SAE (`content` latents); null for the largest seen."""


Dumps = Annotated[
    dict[Name, Dump],
    Field(
        description=(
            "Activations and latents kept at Weights & Biases, by a name of your choice. "
            "`actprobe lock NAME` asks the service once which files there are and writes the lock "
            "file; everything else works from it. The API key stands in WANDB_API_KEY or netrc "
            "and nowhere else."
        )
    ),
]
