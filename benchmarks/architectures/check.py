"""One architecture through actprobe's own plan and job, compared with transformers alone."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import transformers
from identities import identities, same_everywhere

from actprobe import config as configuration
from actprobe import models
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.experiment import costs
from actprobe.experiment import targets as experiment
from actprobe.models import families
from actprobe.models.architectures import SITES
from actprobe.models.run import run as run_models
from actprobe.models.sites import language_parts, takes
from actprobe.texts.run import run as run_texts

# Rows of 11 to 35 tokens that begin alike, two of one length, the longest not first; longer than the
# windows and chunks of `tiny`.
_ENDS = ("b", "Abc def", "To be, or not to be: that", "xyz", "a fox jumped", "over one dog", "!?")
TEXTS = ["Text no. " + end for end in _ENDS]
EQUAL, REFUSED, NOT_BUILDABLE = "equal", "refused", "not buildable"
WRONG, CRASHED = "WRONG", "CRASHED"  # faults of actprobe
TOLERANCE = 1e-3  # relative L2 of a token; float32

Sites = dict[str, list[np.ndarray]]  # site -> [tokens, d] of each row


@dataclass
class Result:
    """What became of one model type.

    where: of a refusal, "plan" or "job"; own_states: whether transformers' own hidden states are the
    same, and where they are not, how; sums: what holds between the sites; ways: how it was read;
    worst: largest relative L2 difference of a token between the batch and single rows.
    """

    model_type: str
    outcome: str
    where: str = ""
    reason: str = ""
    class_name: str = ""
    layers: int | None = None
    sites: str = ""
    own_states: str = ""
    sums: str = ""
    ways: str = ""
    worst: str = ""
    refused_ways: list[str] = field(default_factory=list)


def check(model_type: str, folder: Path) -> Result:
    """Build the architecture tiny, run it, compare."""
    result = Result(model_type, NOT_BUILDABLE)
    try:
        config = tiny.configuration(model_type)
        kind = tiny.model_class(config)
        result.class_name = kind.__name__
        if not _may_read_text(config, kind):
            result.reason = "no text: the model takes no token ids"
            return result
        tiny.save(model_type, folder / "model", config)
    except Exception as e:
        said = re.sub(r"'/[^']*/site-packages/", "'", str(e))
        result.reason = f"{type(e).__name__}: {said}"
        return result
    described = json.loads((folder / "model" / "config.json").read_text())
    kinds = [k for k in SITES if families.refusal(described, k) is None] or ["resid_post"]
    result.layers, result.sites = families.n_layers(described), " ".join(kinds)
    try:
        found = _runs(result, folder, kinds, described)
    except ActprobeError as e:
        result.outcome, result.reason = REFUSED, str(e)
        result.where = "plan" if isinstance(e, ConfigError) else "job"
        return result
    except Exception as e:
        result.outcome, result.reason = CRASHED, f"{type(e).__name__}: {e}"
        return result
    result.outcome = EQUAL
    try:
        _compare(result, found, described, folder)
    except Exception as e:
        result.outcome, result.reason = CRASHED, f"the comparison: {type(e).__name__}: {e}"
    return result


def _runs(
    result: Result, folder: Path, kinds: list[str], described: Mapping[str, Any]
) -> dict[str, Sites]:
    """The model read in several ways that must all give the same."""
    sites = [k if k == "embed" else f"{k}.*" for k in kinds]
    known = families.family(described)
    found = {
        "batched": read(folder, "batched", sites, described),
        "single": read(folder, "single", sites, described, max_tokens_per_batch=1),
    }
    ends = [f"{k}.{tiny.LAYERS - 1}" for k in kinds if k != "embed"]
    others: dict[str, tuple[list[str], dict[str, Any]]] = {
        "half": (["resid_post.*"], {"dtype": "bfloat16"})
    }
    if known is not None:  # further layers stay on disk
        others["cut"] = (["resid_pre.0", "resid_post.1"], {})
    if families.may_share_prefix(described):
        others["prefix"] = (ends, {"share_prefix": True})
    for way, (asked, settings) in others.items():
        try:
            found[way] = read(folder, way, asked, described, **settings)
        except ActprobeError as e:
            result.refused_ways.append(f"{way}: {e}")
    return found


def _may_read_text(config: Any, kind: type) -> bool:
    """Whether the model, or the part of it that reads text, takes token ids."""
    described = config.to_dict()
    takes_ids = "input_ids" in inspect.signature(kind.forward).parameters
    return takes_ids or families.text_config(described) is not described


def read(
    folder: Path, name: str, sites: list[str], described: Mapping[str, Any], **settings: Any
) -> Sites:
    """All tokens of these sites, as actprobe makes them. settings: of the model."""
    rows = folder / "rows.jsonl"
    lines = (json.dumps({"id": f"r{i}", "text": t, "label": i % 2}) for i, t in enumerate(TEXTS))
    rows.write_text("\n".join(lines) + "\n")
    depth = {} if families.n_layers(described) else {"n_layers": tiny.LAYERS}
    config = configuration.resolve(
        {
            "experiment": "architectures",
            "cache_dir": str(folder / name),
            "datasets": [{"name": "rows", "path": str(rows), "text": "text", "label": "label"}],
            "models": {
                "tiny": {
                    "source": str(folder / "model"), "device": "cpu", "exclude_special": False,
                    "exclude_first": False, "max_tokens_per_batch": 4096, **depth, **settings,
                }
            },
            "activations": [{"model": "tiny", "positions": ["tokens"], "sites": sites}],
        }
    )  # fmt: skip
    for _ in range(2):  # texts, then activations
        plan = experiment.plan(config, ("texts", "activations"))
        costs.estimates(plan)
        for batch in plan.batches:
            if batch.stage == "texts":
                run_texts(batch, config, 1)
            elif not plan.of("texts"):
                run_models(batch, config, 1)
    found: Sites = {}
    for path in plan.paths("activations"):
        with models.open_activations(path) as a:
            x, offsets = a[:], a.offsets
        rows_of = [x[low:high] for low, high in pairwise(offsets)]
        found[plan.targets[path].args["site"]] = rows_of
    return found


def _compare(
    result: Result, found: dict[str, Sites], described: Mapping[str, Any], folder: Path
) -> None:
    """Fill in what was found; anything unequal makes the outcome WRONG."""
    x, faults = found["batched"], []
    for way, other in found.items():
        if way == "half":
            faults += [f"{site}: in bfloat16 of another size" for site in _resized(x, other)]
            continue
        for site, worst in _unequal(x, other, TOLERANCE):
            faults.append(f"{site}: batched and {way} differ by {worst:.0e}")
    result.sums, broken = identities(x, families.family(described))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer(TEXTS)["input_ids"]
    if "embed" in x and not same_everywhere(x["embed"], ids):
        broken.append("embed depends on the position")
    result.own_states, differing = _own_states(x, folder, ids)
    faults += broken + differing
    result.ways = " ".join(found)
    result.worst = f"{max(d for _, d in _unequal(x, found['single'], -1.0)):.0e}"
    faults += [w for w in result.refused_ways if not w.startswith("half")]
    result.reason = "; ".join(result.refused_ways)
    if faults:
        result.outcome, result.reason = WRONG, "; ".join(faults[:6])


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest relative L2 difference of a token."""
    if a.shape != b.shape:
        return np.inf
    norm = np.linalg.norm
    return float((norm(a - b, axis=-1) / np.maximum(norm(b, axis=-1), 1e-20)).max())


def _unequal(x: Sites, other: Sites, tolerance: float) -> Iterator[tuple[str, float]]:
    for site in other:
        worst = max(difference(a, b) for a, b in zip(x[site], other[site], strict=True))
        if not worst <= tolerance:
            yield site, worst


def _resized(x: Sites, half: Sites) -> Iterator[str]:
    """Sites whose median norm differs from that in float32; single values may be all rounding."""
    for site in half:
        a, b = (np.linalg.norm(np.concatenate(of[site]), axis=-1) for of in (x, half))
        if not np.median(a) / 2 < np.median(b) < np.median(a) * 2:
            yield site


def _own_states(x: Sites, folder: Path, ids: list[list[int]]) -> tuple[str, list[str]]:
    """The residual stream against the hidden states of a plain pass over one row at a time."""
    auto = transformers.AutoModel
    model = auto.from_pretrained(folder / "model").eval()
    part = language_parts(model)[-1]
    n = len({s for s in x if s.startswith("resid_post.")})
    faults: dict[int, list[str]] = {0: [], 1: []}  # for hidden states before, and behind, a layer
    for i, row_ids in enumerate(ids):
        try:
            with torch.inference_mode():
                states = _hidden_states(model, part, torch.tensor([row_ids]))
        except Exception as e:
            return f"a pass of transformers alone raised {type(e).__name__}: {e}", []
        if states is None:
            return "the model gives none", []
        if len(states) != n + 1:
            return f"{len(states)} for {n} layers", []
        for behind, found in faults.items():
            for site, row in ((s, x[s][i]) for s in x if s.startswith("resid_p")):
                at = int(site.partition(".")[2]) + site.startswith("resid_post") - behind
                if 0 <= at < n and difference(row, states[at][0].numpy()) > TOLERANCE:
                    found.append(f"{site} is not hidden state {at} of {list(states[at].shape)}")
    last = difference(x[f"resid_post.{n - 1}"][-1], states[-1][0].numpy()) < TOLERANCE
    end = "last: behind the last layer" if last else "last: behind the final norm"
    if faults[0] and not faults[1]:
        return f"equal (each is behind its layer; {end})", []
    return f"equal ({end})", list(dict.fromkeys(faults[0]))


def _hidden_states(model: Any, part: Any, ids: torch.Tensor) -> Any:
    """Of the whole model where it runs on text alone and is not an encoder-decoder, else of its part."""
    options = {"output_hidden_states": True, "return_dict": True}
    if takes(part, "use_cache"):
        options["use_cache"] = False
    if not model.config.is_encoder_decoder:
        try:
            return model(input_ids=ids, **options).hidden_states
        except (TypeError, ValueError, AttributeError, RuntimeError):
            pass
    return part(input_ids=ids, **options).hidden_states
