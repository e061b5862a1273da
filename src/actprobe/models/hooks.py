"""TransformerLens' names of the sites, as other tools' files and SAEs say them."""

from __future__ import annotations

import re

from actprobe.models.architectures import SITES

_INSIDE = {"z": "attn.hook_z", "mlp_in": "mlp.hook_in", "mlp_post": "mlp.hook_post"}
HOOKS = {kind: _INSIDE.get(kind, f"hook_{kind}") for kind in SITES if kind != "embed"}
_DOT = r"(?:\.|--)"  # file names may say blocks--2--hook_resid_pre
_ANY = "|".join(h.replace(".", _DOT) for h in HOOKS.values())
HOOK = rf"hook_embed|blocks{_DOT}\d+{_DOT}(?:{_ANY})"  # a hook name in a longer text
_PARTS = re.compile(rf"blocks{_DOT}(\d+){_DOT}({_ANY})")


def hook_of(site: str) -> str:
    """The hook name of a site: `blocks.4.hook_resid_post` of resid_post.4."""
    kind, _, layer = site.partition(".")
    hook = HOOKS.get(kind, f"hook_{kind}")  # a dump has names of its own
    return f"blocks.{layer}.{hook}" if layer else hook


def site_of(hook: str) -> str | None:
    """The site of a hook name, None when it is not one of `HOOKS` or hook_embed."""
    if hook == "hook_embed":
        return "embed"
    if (m := _PARTS.fullmatch(hook)) is None:
        return None
    kinds = {h: kind for kind, h in HOOKS.items()}
    return f"{kinds[m[2].replace('--', '.')]}.{int(m[1])}"
