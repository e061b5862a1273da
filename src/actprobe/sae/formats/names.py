"""What the name of an SAE's folder says about the place that it was trained on."""

from __future__ import annotations

import re
from pathlib import Path

_KIND = r"(?:resid_pre|resid_mid|resid_post|mlp_in|mlp_out|attn_out)"
_HOOK = re.compile(rf"blocks\.\d+\.(?:hook_{_KIND}|(?:attn\.)?hook_z|mlp\.hook_(?:in|post))")
_KIND_LAYER = re.compile(rf"({_KIND})_layer_(\d+)")
_LAYER = re.compile(r"(?<![a-z])layer_?(\d+)(?!\d)")


def said_by(folder: Path) -> tuple[str | None, int | None]:
    """The hook name, or else the layer, that the name of a folder holds.

    `blocks.8.hook_resid_pre`, `resid_post_layer_4`, `layer_20`, `v5_32k_layer_0`. Folders further up
    may speak of other things.
    """
    if m := _HOOK.search(folder.name):
        return m[0], None
    if m := _KIND_LAYER.search(folder.name):
        return f"blocks.{m[2]}.hook_{m[1]}", None
    if m := _LAYER.search(folder.name):
        return None, int(m[1])
    return None, None
