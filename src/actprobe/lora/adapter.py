"""One LoRA file described by its header: modules, ranks, shapes and scales."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from actprobe.errors import BadInput, bad_file
from actprobe.files.safetensors import FLOATS, INTEGERS, Header, Tensor, read_header
from actprobe.lora import names

_LONGEST = 200  # characters of a metadata value that are kept; captions and tag lists are longer


@dataclass(frozen=True)
class Module:
    """W = scale · B · A with A (rank x d_in) in tensor `down` and B (d_out x rank) in `up`.

    Convolutions are flattened: d_in = channels · kernel height · kernel width.
    """

    down: Tensor
    up: Tensor
    rank: int
    d_in: int
    d_out: int
    scale: float


@dataclass(frozen=True)
class Adapter:
    """A LoRA file: modules by canonical name (sorted), dialect, dtypes, training metadata, bytes."""

    dialect: str
    dtype: str
    modules: Mapping[str, Module]
    metadata: Mapping[str, str]
    bytes: int


def read_adapter(path: str | Path, config: str | Path | None, alpha: str) -> Adapter:
    """Describe the LoRA file at `path` from its header (and its alpha scalars).

    config: the `adapter_config.json` beside it, if any. alpha: "stored" takes scales from the file
    by the rules of its dialect, "one" takes 1 everywhere. Raises BadInput naming the file.
    """
    try:
        header = read_header(path)
        settings = Path(config).read_text(encoding="utf-8") if config else ""
        return _described(header, settings, alpha, _alphas(path, header.tensors))
    except BadInput as e:
        text = str(e)
        raise BadInput(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except (OSError, ValueError, TypeError, AttributeError, re.error) as e:
        raise bad_file(path, e, "adapter_config.json or metadata cannot be used: ") from None


def _alphas(path: str | Path, tensors: Mapping[str, Tensor]) -> tuple[tuple[str, float], ...]:
    """Names and values of the alpha scalars of a file."""
    found = [(n, t) for n, t in tensors.items() if n.endswith(".alpha")]
    for name, t in found:
        if math.prod(t.shape) != 1:
            raise BadInput(f"{name} has shape {t.shape}, expected one number")
    if not found:
        return ()
    with open(path, "rb") as f:
        values = []
        for name, t in found:
            f.seek(t.start)
            values.append((name, to_float(f.read(t.stop - t.start), t.dtype).item()))
    return tuple(values)


@lru_cache(maxsize=64)
def _described(
    header: Header, settings: str, alpha: str, alphas: tuple[tuple[str, float], ...]
) -> Adapter:
    """Cached: files with equal headers, configs and alphas are described once."""
    options = json.loads(settings) if settings else None
    return describe(header.tensors, header.metadata, options, alpha, dict(alphas))


def describe(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    alpha: str,
    alphas: Mapping[str, float],
) -> Adapter:
    """`read_adapter` on what was read: adapter_config.json and values of alpha tensors by name."""
    found = names.parse(tuple(tensors))
    kind = (settings or {}).get("peft_type", "LORA")
    if kind != "LORA":
        raise BadInput(f"adapter_config.json: peft_type {kind}, expected LORA")
    rules = _Scales(found.dialect, settings, metadata) if alpha == "stored" else None
    modules = {}
    for name, pair in found.modules.items():
        down, up = tensors[pair.down], tensors[pair.up]
        for key, t in ((pair.down, down), (pair.up, up)):
            if t.dtype not in FLOATS:
                raise BadInput(f"{key} has dtype {t.dtype}, expected one of {', '.join(FLOATS)}")
        rank, d_in, d_out = _sizes(down.shape, up.shape, pair)
        scale = 1.0
        if rules is not None:
            scale = alphas[pair.alpha] / rank if pair.alpha else rules.scale(pair.path, rank)
        if not math.isfinite(scale):
            raise BadInput(f"{pair.alpha or name}: scale {scale}")
        modules[name] = Module(down, up, rank, d_in, d_out, scale)
    kept = {k: str(v) for k, v in metadata.items() if len(str(v)) <= _LONGEST and k != "format"}
    kept |= {
        f"adapter_config.{k}": json.dumps(v, sort_keys=True)
        for k, v in (settings or {}).items()
        if len(json.dumps(v)) <= _LONGEST
    }
    dtypes = {t.dtype for m in modules.values() for t in (m.down, m.up)}
    size = sum(t.stop - t.start for t in tensors.values())
    return Adapter(found.dialect, "+".join(sorted(dtypes)), modules, kept, size)


def _sizes(down: tuple[int, ...], up: tuple[int, ...], pair: names.Pair) -> tuple[int, int, int]:
    """Rank, d_in and d_out of a pair of factors."""
    if len(down) < 2 or len(up) < 2 or math.prod(up[2:]) != 1 or min(down + up) < 1:
        raise BadInput(f"{pair.path}: shapes {down} and {up} are not those of a LoRA")
    if down[0] != up[1]:
        raise BadInput(f"{pair.path}: rank {down[0]} of {pair.down}, {up[1]} of {pair.up}")
    return down[0], math.prod(down[1:]), up[0]


class _Scales:
    """The scale of modules that have no alpha tensor.

    PEFT: lora_alpha / r, with rsLoRA lora_alpha / sqrt(r) (Kalajdzievski 2023, eq. 5);
    `alpha_pattern` overrides per module, r is read from the tensor. Diffusers stores the same
    settings per component in the metadata since version 0.34, and nothing before: then 1.
    """

    def __init__(
        self, dialect: str, settings: Mapping[str, Any] | None, metadata: Mapping[str, Any]
    ):
        self._by_component: dict[str, dict[str, Any]] = {}
        if settings is not None:
            self._by_component[""] = dict(settings)
        elif "lora_adapter_metadata" in metadata:
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
                component, _, option = key.partition(".")
                self._by_component.setdefault(component, {})[option] = value
        self._unknown = not self._by_component and "peft" in dialect.split("+")

    def scale(self, path: str, rank: int) -> float:
        """Scale of the module with this path. Raises BadInput where settings are needed and missing."""
        if self._unknown:
            raise BadInput(
                "a PEFT file without adapter_config.json beside it: its scale is not known "
                "(`alpha: one` takes 1)"
            )
        component, _, rest = path.partition(".")
        options = self._by_component.get("", self._by_component.get(component))
        if options is None:
            return 1.0
        if options.get("lora_alpha") is None:  # PEFT writes it; its default may change
            raise BadInput(
                "adapter_config.json or metadata without lora_alpha: the scale is not known "
                "(`alpha: one` takes 1)"
            )
        path = path.removeprefix("base_model.model.") if "" in self._by_component else rest
        alpha = options["lora_alpha"]
        for pattern, value in (options.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", path):
                alpha = value
                break
        return float(alpha) / (math.sqrt(rank) if options.get("use_rslora") else rank)


def to_float(raw: bytes | memoryview, dtype: str) -> np.ndarray:
    """Tensor bytes as a flat float32 array (float64 is rounded, half precisions are exact)."""
    values = np.frombuffer(raw, (FLOATS | INTEGERS)[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
