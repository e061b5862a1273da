"""One LoRA file described by its header: modules, ranks, shapes and scales."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput, bad_file
from actprobe.files.safetensors import Header, Tensor, read_header
from actprobe.lora import names
from actprobe.lora.numbers import FLOATS, NUMBERS, to_float
from actprobe.lora.records import Rules
from actprobe.lora.settings import Settings

_LONGEST = 200  # characters of a metadata value that are kept; captions and tag lists are longer


@dataclass(frozen=True)
class Module:
    """W = scale · B · A with A (rank x d_in) in tensor `down` and B (d_out x rank) in `up`.

    Convolutions are flattened: d_in = channels · kernel height · kernel width.
    """

    down: str
    up: str
    rank: int
    d_in: int
    d_out: int
    scale: float


@dataclass(frozen=True)
class Adapter:
    """A LoRA file: modules by canonical name (sorted), dialect, dtypes, training metadata.

    extra: tensors that belong to no module, with their shapes. bytes: of the factors.
    """

    dialect: str
    dtype: str
    modules: Mapping[str, Module]
    metadata: Mapping[str, str]
    extra: tuple[str, ...]
    bytes: int


def read_adapter(path: str | Path, config: str | Path | None, rules: Rules) -> Adapter:
    """Describe the LoRA file at `path` from its header (and its alpha scalars).

    config: the `adapter_config.json` beside it, if any. Raises BadInput naming the file.
    """
    with naming(path):
        header = read_header(path)
        text = Path(config).read_text(encoding="utf-8") if config else ""
        return described(header, text, rules, _alphas(path, header.tensors))


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn what reading a file or its settings raises into BadInput that names the file."""
    try:
        yield
    except BadInput as e:
        text = str(e)
        raise BadInput(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except OSError as e:
        bad_file(path, e)  # raises what a machine fails to give
        other = e.filename and str(e.filename) != str(path)
        what = f"{os.path.basename(e.filename)}: " if other else ""
        raise BadInput(f"{path}: {what}{e.strerror or e}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, re.error) as e:
        raise BadInput(f"{path}: adapter_config.json or metadata cannot be used: {e}") from None


def _alphas(path: str | Path, tensors: Mapping[str, Tensor]) -> tuple[tuple[str, float], ...]:
    """Names and values of the alpha scalars of a file."""
    found = alpha_tensors(tensors)
    if not found:
        return ()
    with open(path, "rb") as f:
        values = []
        for name, t in found.items():
            f.seek(t.start)
            values.append((name, to_float(f.read(t.stop - t.start), t.dtype).item()))
    return tuple(values)


def alpha_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The alpha scalars among some tensors. Raises BadInput for one that is not a number."""
    found = {n: t for n, t in tensors.items() if n.endswith(".alpha")}
    for name, t in found.items():
        if math.prod(t.shape) != 1:
            raise BadInput(f"{name} has shape {t.shape}, expected one number")
        if t.dtype not in NUMBERS:
            raise BadInput(f"{name} has dtype {t.dtype}, expected one of {', '.join(NUMBERS)}")
    return found


@lru_cache(maxsize=64)
def described(
    header: Header, config: str, rules: Rules, alphas: tuple[tuple[str, float], ...]
) -> Adapter:
    """The adapter of a header. Cached: files with equal headers, configs and alphas are equal.

    config: text of the adapter_config.json, empty without one; alphas: as of `alpha_tensors`.
    """
    options = json.loads(config) if config else None
    return describe(header.tensors, header.metadata, options, rules, dict(alphas))


def describe(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    rules: Rules,
    alphas: Mapping[str, float],
) -> Adapter:
    """`read_adapter` on what was read: adapter_config.json and values of alpha tensors by name."""
    settings = Settings(config, metadata, rules.ignore_settings)  # tells other adapters by name
    found = names.parse(tuple(tensors), tuple((config or {}).get("modules_to_save") or ()))
    extra = tuple(f"{n} ({' x '.join(map(str, tensors[n].shape))})" for n in found.extra)
    if extra and rules.extra_tensors == "refuse":
        raise BadInput(
            f"{len(extra)} tensors beside the LoRA, e.g. {extra[0]}; `extra_tensors: ignore` reads "
            "the LoRA all the same"
        )
    if rules.alpha == "stored" and not settings and "peft" in found.dialect.split("+"):
        raise BadInput(
            "a PEFT file without adapter_config.json beside it: its scale is not known "
            "(`alpha: one` takes 1)"
        )
    modules = {}
    for name, pair in found.modules.items():
        down, up = tensors[pair.down], tensors[pair.up]
        for key, t in ((pair.down, down), (pair.up, up)):
            if t.dtype not in FLOATS:
                raise BadInput(f"{key} has dtype {t.dtype}, expected one of {', '.join(FLOATS)}")
        rank, d_in, d_out = _sizes(down.shape, up.shape, pair)
        settings.require_rank(pair.path, rank)
        scale = _scale(pair, rank, settings, alphas) if rules.alpha == "stored" else 1.0
        if not math.isfinite(scale):
            raise BadInput(f"{pair.alpha or name}: scale {scale}")
        modules[name] = Module(pair.down, pair.up, rank, d_in, d_out, scale)
    kept = {k: str(v) for k, v in metadata.items() if len(str(v)) <= _LONGEST and k != "format"}
    kept |= {
        f"adapter_config.{k}": json.dumps(v, sort_keys=True)
        for k, v in (config or {}).items()
        if len(json.dumps(v)) <= _LONGEST
    }
    factors = [tensors[n] for m in modules.values() for n in (m.down, m.up)]
    dtype, size = (
        "+".join(sorted({t.dtype for t in factors})),
        sum(t.stop - t.start for t in factors),
    )
    return Adapter(found.dialect, dtype, modules, kept, extra, size)


def _scale(pair: names.Pair, rank: int, settings: Settings, alphas: Mapping[str, float]) -> float:
    """The scale of one module: of its alpha, else of the settings, else 1."""
    told = settings.scale(pair.path, rank)
    if not pair.alpha:
        return 1.0 if told is None else told
    alpha = alphas[pair.alpha]
    if alpha == 0:
        raise BadInput(
            f"{pair.alpha} is 0, which some programs read as scale 1 and others as 0 (`alpha: one` "
            "takes 1)"
        )
    if told is not None and not math.isclose(told, alpha / rank, rel_tol=1e-3):
        raise BadInput(
            f"{pair.alpha} gives the scale {alpha / rank:g}, the settings give {told:g} (`alpha: one` "
            "takes 1)"
        )
    return alpha / rank


def _sizes(down: tuple[int, ...], up: tuple[int, ...], pair: names.Pair) -> tuple[int, int, int]:
    """Rank, d_in and d_out of a pair of factors."""
    if len(down) < 2 or len(up) < 2 or math.prod(up[2:]) != 1 or min(down + up) < 1:
        raise BadInput(f"{pair.path}: shapes {down} and {up} are not those of a LoRA's factors")
    if down[0] != up[1]:
        raise BadInput(f"{pair.path}: rank {down[0]} of {pair.down}, {up[1]} of {pair.up}")
    return down[0], math.prod(down[1:]), up[0]
