"""Formats of one PyTorch file: Goodfire, Qwen Scope, saev. Shapes come from the pickle's own header."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from actprobe.base.errors import BadInput, bad_file
from actprobe.sae import pickles
from actprobe.sae.formats.layouts import matrix_shape
from actprobe.sae.formats.settings import Settings
from actprobe.sae.formats.spec import Sae
from actprobe.sae.tensors import Tensor


def shapes(path: Path) -> dict[str, Tensor]:
    """The float tensors of a PyTorch file, none of which can be read in place."""
    st = path.stat()
    return dict(_shapes(str(path), st.st_size, st.st_mtime_ns))


@lru_cache(maxsize=64)
def _shapes(path: str, *stamp: int) -> dict[str, Tensor]:
    with pickles.opened(path) as state:
        return {name: Tensor(path, -1, a.shape, a.dtype) for name, a in state.arrays.items()}


def read_goodfire(folder: Path, weights: Path) -> Sae:
    """Goodfire's, and others of the same plan: named like `Llama-3.1-8B-Instruct-SAE-l19.pth`.

    `encoder_linear.weight [F, d]` and so on (Goodfire), or `encoder.weight` (qresearch).
    """
    d_in, d_sae = matrix_shape(shapes(weights), "W_enc", weights)
    named = re.fullmatch(r"(.+)-SAE-l(\d+)", weights.stem)
    return Sae(
        str(weights), "standard", d_in, d_sae,
        model=named[1] if named else None,
        hook=f"blocks.{named[2]}.hook_resid_post" if named else None,
    )  # fmt: skip


def read_qwen(folder: Path, weights: Path) -> Sae:
    """Qwen Scope: `layerN.sae.pt`; model, width and k stand in the repository's name alone."""
    layer = re.fullmatch(r"layer(\d+)\.sae\.pt", weights.name)
    named = re.findall(r"SAE-Res-([^/]+?)-W(\d+)K-L0_(\d+)", str(weights))
    if layer is None or not named:
        raise BadInput(
            f"{weights}: how many latents fire stands in the name of the repository alone; put the "
            "file into a folder of that name (SAE-Res-Qwen3-1.7B-Base-W32K-L0_50)"
        )
    model, thousands, k = named[-1]
    d_in, d_sae = matrix_shape(shapes(weights), "W_enc", weights, "torch_linear")
    if d_sae != int(thousands) * 1024:
        raise BadInput(
            f"{weights}: it has {d_sae:,} latents, its folder is called W{thousands}K; expected "
            f"{int(thousands) * 1024:,} (put it into the folder it was published in)"
        )
    return Sae(
        str(weights), "topk", d_in, d_sae,
        k=int(k),
        layout="torch_linear",
        model=f"Qwen/{model}",
        hook=f"blocks.{layer[1]}.hook_resid_post",
        layer=int(layer[1]),
    )  # fmt: skip


def read_saev(folder: Path, weights: Path) -> Sae:
    """saev: a JSON line, then the state dict. It names no model and no layer."""
    header = Settings(weights, _header(weights))
    if "schema" not in header:
        raise BadInput(
            f"{weights}: not supported: saved by a version of saev without schema numbers, whose "
            "encoder may subtract b_dec; load it with that version and save it with a newer one"
        )
    cfg = header.part("cfg")
    activation = cfg.part("activation")
    kind = activation.word("cls") or header.word("cls")
    about = activation.part("params") if "params" in activation else cfg
    architecture = {"Relu": "standard", "TopK": "topk", "BatchTopK": "jumprelu"}.get(str(kind))
    if architecture is None:
        raise BadInput(
            f"{weights}: not supported: activation {kind!r}; known are Relu, TopK, BatchTopK"
        )
    d_in = cfg.whole("d_model" if "d_model" in cfg else "d_vit")
    width = cfg.whole("d_sae") if "d_sae" in cfg else d_in * cfg.whole("exp_factor")
    return Sae(
        str(weights), architecture, d_in, width,
        k=min(about.whole("top_k"), width) if architecture == "topk" else None,
        relu=False,
    )  # fmt: skip


def _header(path: Path) -> Any:
    try:
        with open(path, "rb") as f:
            return json.loads(f.read(pickles.header_end(path)))
    except (OSError, ValueError, RecursionError) as e:
        raise bad_file(path, e, "does not begin with the JSON line of saev: ") from None
