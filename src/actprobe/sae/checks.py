"""Does an SAE belong to the activations it is asked to encode? Asked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actprobe.base.errors import BadInput, ConfigError
from actprobe.config import Config
from actprobe.config.models import Model
from actprobe.config.saes import SAE
from actprobe.files import hub
from actprobe.models import families, hooks, planned_bos, rows_begin_with_bos
from actprobe.models.described import described
from actprobe.sae.formats import Sae

KINDS = ("site", "model", "width", "bos", "context", "positions", "head", "processing")

_LAYER = r"(?:[\w.]+\.)?(?:layers|h)[._](\d+)"  # a module path: model.layers.4, transformer.h.4

_HOOKS = {
    r"blocks\.hook_embed": "embed",
    r"blocks\.(\d+)\.hook_z": r"z.\1",
    r"blocks\.(\d+)\.(?:hook_mlp_in|ln2\.hook_normalized)": r"mlp_in.\1",
    _LAYER: r"resid_post.\1",
    rf"{_LAYER}\.(?:attn|self_attn|attention)": r"attn_out.\1",
    rf"{_LAYER}\.mlp": r"mlp_out.\1",
    rf"{_LAYER}\.output": r"resid_post.\1",
    rf"{_LAYER}\.input": r"resid_pre.\1",
    rf"{_LAYER}\.mlp\.output": r"mlp_out.\1",
    rf"{_LAYER}\.(?:mlp\.input|pre_feedforward_layernorm\.output)": r"mlp_in.\1",
    rf"{_LAYER}\.post_feedforward_layernorm\.output": r"mlp_out.\1",
    rf"{_LAYER}\.(?:attn|self_attn|attention)\.output": r"attn_out.\1",
    rf"{_LAYER}\.self_attn\.o_proj\.input": r"z.\1",
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
    sae: Sae,
    site: str,
    names: list[str],
    d_model: int | None,
    extracted: bool = False,
    bos: bool | None = None,
) -> dict[str, str]:
    """In words, what the SAE's files say that differs from the activations it would encode, by kind
    (`KINDS`).

    names: what the model is called; d_model: width of the residual stream, None when not known;
    extracted: the activations are our own, whose sites have one meaning; bos: whether the model
    read texts with a BOS, None when not known. What the SAE's files do not say is no mismatch.
    """
    found: dict[str, str] = {}
    if said := list(_of_site(sae, site, extracted)):
        found["site"] = "; ".join(dict.fromkeys(said))
    if sae.model is not None and _short(sae.model) not in map(_short, names):
        found["model"] = f"it was made for the model {sae.model}, not {names[0]}"
    width = d_model if site.partition(".")[0] not in ("z", "mlp_post", "mlp_in") else None
    if width is not None and sae.d_in not in (0, width):  # 0: only the weights say it
        found["width"] = f"it encodes width {sae.d_in}, the model's d_model is {width}"
    if None not in (bos, sae.prepend_bos) and bos != sae.prepend_bos:
        how = {True: "with a BOS", False: "without a BOS"}
        found["bos"] = (
            f"it was trained on texts {how[bool(sae.prepend_bos)]}, and {names[-1]} reads them "
            f"{how[bool(bos)]}: write models.{names[-1]}.prepend_bos: {str(sae.prepend_bos).lower()}"
        )
    if sae.positions not in (None, (1,), (1, None), (1, None, None)):
        found["positions"] = (
            f"it was trained on the positions {list(sae.positions or ())} (seqpos_slice), and all "
            "are encoded here"
        )
    if sae.head is not None:
        found["head"] = (
            f"it was made for head {sae.head} alone, and heads are read side by side here"
        )
    if sae.unlike:
        found["processing"] = "; ".join(sae.unlike) + ", and these activations are not like that"
    return found


def _of_site(sae: Sae, site: str, extracted: bool) -> Iterator[str]:
    """What it says of the place that it was made for, and that is not this site."""
    for said in (sae.hook, *sae.also):
        if said in (None, "", site, hooks.hook_of(site)):
            continue
        hook = site_of(str(said))
        if hook is None:
            yield f"it was made for {said}, which names no known site"
        elif _same_stream(hook) != _same_stream(site):
            yield f"it was made for {said} ({hook}), not {site}"
        elif extracted and re.search(_BEFORE_GAIN, str(said)):
            yield (
                f"it was made for {said}, which is read before the norm's gain, and {site} after it"
            )
    if sae.layer is None:
        return
    if number := re.search(r"(?:blocks|layers|h)[._](\d+)", sae.hook or ""):
        if int(number[1]) != sae.layer:
            yield f"it names both layer {sae.layer} and {sae.hook}"
    elif sae.layer not in _layers(site):
        yield f"it was made for layer {sae.layer}, not {site}"


def _layers(site: str) -> set[int]:
    """The layers that may be said of a site: of the residual stream, both that it lies between."""
    kind, _, layer = site.partition(".")
    if not layer.isdigit():
        return {0} if kind == "embed" else set()
    near = {"resid_post": 1, "resid_pre": -1}.get(kind, 0)
    return {int(layer), int(layer) + near}


def _same_stream(site: str) -> str:
    """The residual stream after layer L is the one before layer L + 1."""
    kind, _, layer = site.partition(".")
    return f"resid_pre.{int(layer) + 1}" if kind == "resid_post" else site


def _short(model: str) -> str:
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return _TRANSFORMER_LENS.get(name, name)


def model_names(name: str, source: str | Sequence[str]) -> list[str]:
    """What the model `name` of the config, read from `source`, may be called in an SAE's config."""
    source = source if isinstance(source, str) else source[0]  # pieces of one file
    if source.startswith("hub:"):
        return [hub.split(source.removeprefix("hub:"), None, f"models.{name}.source")[0], name]
    return [source.partition(":")[2] or source, name]


def ignored(settings: SAE) -> set[str]:
    """The kinds of mismatch that a config entry passes over."""
    told = settings.overrides.ignore_mismatch
    return set(KINDS if told is True else told or ())


def require_match(name: str, sae: Sae, config: Config, extracted: bool) -> None:
    """Raise ConfigError when the SAE does not belong to the activations of its config entry.

    extracted: these are read from a model here.
    """
    settings = config.saes[name]
    model = config.models.get(settings.model)  # imported activations have none
    names = model_names(settings.model, model.source if model else settings.model)
    said = described(config, model) if model else {}
    width = (model and model.d_model) or families.d_model(said)
    bos = _planned_bos(model, said) if model and extracted else None
    found = mismatches(sae, settings.site, names, width, extracted, bos)
    _refuse(name, settings, found)


def _refuse(name: str, settings: SAE, found: Mapping[str, str]) -> None:
    left = [kind for kind in found if kind not in ignored(settings)]
    if left:
        raise ConfigError(
            f"saes.{name}: {'; '.join(found[k] for k in left)} (overrides: {{ignore_mismatch: "
            f"[{', '.join(left)}]}} encodes anyway)"
        )


def _planned_bos(model: Model, said: Mapping[str, Any]) -> bool | None:
    """Whether texts will begin with a BOS, None where the tokenizer or the texts themselves decide."""
    if model.chat or not model.add_special_tokens:
        return None
    return planned_bos(model, said or None)


def require_texts(
    name: str,
    sae: Sae,
    settings: SAE,
    facts: Mapping[str, Any],
    n_tokens: Any,
    path: str,
) -> None:
    """Compare the SAE with the texts that a model has read.

    facts: of the header of the activations at `path`; n_tokens: of each text [N]. Raises ConfigError
    for texts that begin otherwise than those it was trained on, BadInput for longer ones.
    """
    bos = rows_begin_with_bos(facts)
    if None not in (bos, sae.prepend_bos):
        found = mismatches(sae, settings.site, [settings.model], None, bos=bos)
        _refuse(name, settings, {k: v for k, v in found.items() if k == "bos"})
    if sae.context_size is None or "context" in ignored(settings) or not len(n_tokens):
        return
    longest = int(n_tokens.argmax())
    if n_tokens[longest] > sae.context_size:
        raise BadInput(
            f"{path}: row {longest} has {n_tokens[longest]} tokens; saes.{name} was trained on texts "
            f"of {sae.context_size} (its context_size): write models.{settings.model}.max_length: "
            f"{sae.context_size}, or overrides: {{ignore_mismatch: [context]}} to encode anyway"
        )
