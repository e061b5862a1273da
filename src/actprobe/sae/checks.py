"""Does an SAE belong to the activations it is asked to encode? Asked before anything is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe import hub
from actprobe.errors import ConfigError
from actprobe.models import hooks
from actprobe.sae.formats import Sae

_LAYER = r"(?:[\w.]+\.)?(?:layers|h)[._](\d+)"  # a module path: model.layers.4, transformer.h.4

_HOOKS = {
    r"blocks\.hook_embed": "embed",
    r"blocks\.(\d+)\.hook_z": r"z.\1",
    r"blocks\.(\d+)\.(?:hook_mlp_in|ln2\.hook_normalized)": r"mlp_in.\1",
    _LAYER: r"resid_post.\1",
    rf"{_LAYER}\.(?:attn|self_attn|attention)": r"attn_out.\1",
    rf"{_LAYER}\.mlp": r"mlp_out.\1",
    rf"{_LAYER}\.mlp\.input": r"mlp_in.\1",
    r"(?:[\w.]+\.)?(?:embed_tokens|embed_in|wte)": "embed",
}

# TransformerLens' normalised stream without the gain, and by the tool the stream before the norm.
_BEFORE_GAIN = r"\.(?:hook_mlp_in|ln2\.hook_normalized)$"
_TRANSFORMER_LENS = {"gpt2-small": "gpt2", "mistral-7b": "mistral-7b-v0.1"}  # its names for models


def site_of(hook: str) -> str | None:
    """The site that a hook name or module path stands for ("model.layers.4" is resid_post.4)."""
    if site := hooks.site_of(hook):
        return site
    for pattern, site in _HOOKS.items():
        if match := re.fullmatch(pattern, hook):
            return match.expand(site)
    return None


def mismatches(
    sae: Sae, site: str, names: list[str], d_model: int | None, extracted: bool = False
) -> list[str]:
    """In words, what the SAE's config says that differs from the activations it would encode.

    names: what the model is called; d_model: width of the residual stream, None when not known;
    extracted: the activations are our own, whose sites have one meaning. What the SAE's config does
    not say is no mismatch.
    """
    found = []
    hook = site if sae.hook in (None, "", site, hooks.hook_of(site)) else site_of(sae.hook)
    if hook is None:
        found.append(f"it was made for {sae.hook}, which names no known site")
    elif _same_stream(hook) != _same_stream(site):
        found.append(f"it was made for {sae.hook} ({hook}), not {site}")
    elif extracted and re.search(_BEFORE_GAIN, sae.hook or ""):
        found.append(
            f"it was made for {sae.hook}, which is read before the norm's gain, and {site} after it"
        )
    if sae.model is not None and _short(sae.model) not in map(_short, names):
        found.append(f"it was made for the model {sae.model}, not {names[0]}")
    width = d_model if site.partition(".")[0] not in ("z", "mlp_post", "mlp_in") else None
    if width is not None and sae.d_in not in (0, width):  # 0: only the weights say it
        found.append(f"it encodes width {sae.d_in}, the model's d_model is {width}")
    return found


def _same_stream(site: str) -> str:
    """The residual stream after layer L is the one before layer L + 1."""
    kind, _, layer = site.partition(".")
    return f"resid_pre.{int(layer) + 1}" if kind == "resid_post" else site


def _short(model: str) -> str:
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return _TRANSFORMER_LENS.get(name, name)


def model_names(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What a model of the config may be called in an SAE's config."""
    source = settings.get("source", name)
    if source.startswith("hub:"):
        return [hub.split(source.removeprefix("hub:"), None, f"models.{name}.source")[0], name]
    return [source.partition(":")[2] or source, name]


def d_model(settings: Mapping[str, Any]) -> int | None:
    """Width of a model's residual stream, from the config, a local folder or the local hub cache;
    None if not known."""
    if settings.get("d_model"):
        return int(settings["d_model"])
    source, below = settings.get("source", ""), settings.get("subfolder") or ""
    path: Path | None = Path(source, below, "config.json").expanduser()
    if source.startswith("hub:"):
        repo, folder = hub.split(source.removeprefix("hub:"), below, "models")
        path = hub.anywhere(repo, str(Path(folder, "config.json")))
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return None
    width = config.get("text_config", config).get("hidden_size", config.get("n_embd"))
    return int(width) if width else None


def require_match(
    name: str, sae: Sae, settings: Mapping[str, Any], models: Mapping[str, Any], extracted: bool
) -> None:
    """Raise ConfigError when the SAE does not belong to the activations of its config entry."""
    model = models.get(settings["model"], {})  # imported activations have none
    names = model_names(settings["model"], model)
    if found := mismatches(sae, settings["site"], names, d_model(model), extracted):
        raise ConfigError(
            f"saes.{name}: {'; '.join(found)} (overrides: {{ignore_mismatch: true}} encodes anyway)"
        )
