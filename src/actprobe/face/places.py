"""The module of a probe's site in a model that somebody else has loaded, and which model that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan
from actprobe.face.origin import MARK, Difference, Origin, called, word
from actprobe.face.reader import own_config
from actprobe.models import families, special_cases
from actprobe.models.load import check_sites
from actprobe.models.sites import Point, find_layers, hook_point, language_parts, share_layers
from actprobe.models.sources import locate


def point_of(model: Any, site: str, settings: Mapping[str, Any]) -> tuple[Point, str | None]:
    """Where a site is in a loaded model, and the form of its batches (`special_cases.FORMS`).

    Raises BadInput for a site that the model does not have.
    """
    config = model.config
    described = config.to_dict()
    try:
        check_sites(config, [site], type(model).__name__)
        part = language_parts(model)[-1]
        known = special_cases.LAYER_LISTS.get(families.model_type(described))
        n: Any = families.n_layers(described) or settings.get("n_layers")
        _, layers = find_layers(part, n, settings.get("layer_list") or known)
        if families.is_one_of(described, special_cases.SHARED_LAYERS):
            layers = share_layers(layers, n)
        point = hook_point(part, layers, families.family(described), site)
    except ActprobeError as e:
        raise BadInput(f"{type(model).__name__} has no site {site}: {e}") from None
    return point, special_cases.FORMS.get(families.model_type(described))


def by_token(h: torch.Tensor, shape: tuple[int, int], form: str | None) -> torch.Tensor:
    """An activation as [rows, tokens, d]; some modules see a batch flattened, or padded further."""
    rows, length = shape
    if form == special_cases.TOKENS_FIRST:
        h = h.transpose(0, 1)
    elif form == special_cases.PADDED_INSIDE:
        h = h[:, :length]
    return h.reshape(rows, length, h.shape[-1])


def which(origin: Origin, model: Any, tokenizer: Any) -> list[str]:
    """How a loaded model differs from the one that a probe was fitted on, in words; [] if it does not.

    A model of the hub is known by repository and commit, one of a folder by its files' digests, one that
    was loaded here by its mark. A model that tells nothing of itself differs.
    """
    if not origin.identity:
        return []
    named = str(getattr(model.config, "_name_or_path", "") or "")
    identity = getattr(model, MARK, None) or _identity(origin, model, named)
    ours, found = plan.plain(origin.identity), []
    if identity is None:
        theirs = f"{named or type(model).__name__} (it does not say which files or commit it is)"
        found.append(Difference("model", called(origin), theirs))
    elif plan.plain(identity) != ours:
        found.append(Difference("model", called(origin), f"{named} ({word(identity)})"))
    of_tokenizer = str(getattr(tokenizer, "name_or_path", "") or "")
    if not getattr(model, MARK, None) and named and of_tokenizer != named:
        found.append(Difference("tokenizer", named, of_tokenizer or "does not say whose it is"))
    return [str(d) for d in found]


def _identity(origin: Origin, model: Any, named: str) -> Mapping[str, Any] | None:
    """What identifies a model, as a config would say it; None where it does not tell."""
    ours = plan.plain(origin.identity)
    if "hub" in ours:
        commit = getattr(model.config, "_commit_hash", None)
        more = {k: v for k, v in ours.items() if k not in ("hub", "revision")}
        return {"hub": named, "revision": commit, **more} if commit else None
    if not named or not Path(named).is_dir():
        return None
    config = own_config(replace(origin, settings={**origin.settings, "source": named}))
    memo = DigestMemo(config["cache_dir"])
    found = locate(config, origin.model, {}, memo)
    memo.save()
    return found.identity
