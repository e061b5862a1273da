"""`imports`: activations that other tools cached."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import Name, Patterns, Text, Word

Hook = Literal[
    "resid_pre", "z", "attn_out", "resid_mid", "mlp_in", "mlp_post", "mlp_out", "resid_post"
]


class Import(Section):
    """One folder of activations."""

    layout: Literal["v1", "v2", "saeprobes", "safetensors"]
    """v1: layer_{L}/{test,deploy}_activations.pt or layer_{L}/activations.pt, with metadata.json
    and layer_info.json (evaluation-awareness scripts). v2: the same with one file per example.
    saeprobes: {dataset}_{hook}.pt in the package's folder model_activations_{model}, datasets by
    its names (blanks and all), its OOD data from the folder beside it. safetensors: one file per
    dataset, site and position; with `files` also .npy, .h5 and .pt.
    """
    folder: Text
    """The folder."""
    model: Name
    """Name of the model that the activations come from, as it appears in results."""
    hook: Hook | None = None
    """Where the activations were read. Layouts v1 and v2 do not say it, and resid_post of a layer
    is resid_pre of the next one. Null where the file names tell it.
    """
    datasets: Patterns
    """Names or patterns of `datasets` whose rows these are, in the same order; one dataset for v1
    and v2.
    """
    position: Word | None = None
    """What a row is. v2 holds all tokens: `tokens` keeps them, `last` and `mean` take one vector of
    them. Null is `tokens` for v2 and `last` for the others.
    """
    files: str | None = None
    """Names of the files below the folder, where they differ from the layout's (saeprobes and
    safetensors only): {dataset} and {site} (resid_post.4), {hook} (blocks.4.hook_resid_post) or
    {kind} (resid_post) and {layer}, and {position} stand for what they say. Null is
    {dataset}_{hook}.pt for saeprobes and {dataset}/{site}.{position}.safetensors for safetensors.
    """
    array: str | None = None
    """Name of the array in each file; needed when a file holds several and none is `x`."""


Imports = Annotated[
    dict[Name, Import],
    Field(
        description=(
            "Activations that other tools cached, by a name of your choice. They are checked, "
            "copied among the cached ones and read like those. Files are opened without running "
            "anything in them."
        )
    ),
]
