"""EleutherAI's sparsify: `{hookpoint}/cfg.json` and `sae.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path

from actprobe.sae.formats.settings import read_json
from actprobe.sae.formats.spec import Sae


def read(folder: Path, weights: Path) -> Sae:
    """A sparsify SAE or transcoder; the folder is called after the module it was trained on."""
    cfg = read_json(folder / "cfg.json")
    if cfg.word("activation", "topk") != "topk":
        raise cfg.unsupported("activation", "; known is topk")
    transcoder = cfg.flag("transcode", False)
    d_in = cfg.whole("d_in")
    width = cfg.whole("num_latents", 0, least=0)
    if not width:
        width = max(1, int(d_in * cfg.number("expansion_factor", above=0)))
    run = folder.parent / "config.json"
    about = read_json(run) if run.is_file() else None
    module = re.search(r"(?:^|\.)(?:(?:layers|h)\.\d|embed_|wte)", folder.name)
    hook = folder.name if module else None  # a folder that was renamed says nothing
    return Sae(
        str(weights),
        "abstopk" if cfg.flag("signed", False) else "topk",
        d_in,
        width,
        k=cfg.whole("k"),
        subtract_b_dec=not transcoder,
        transcoder=transcoder,
        model=about.word("model") if about else None,
        hook=f"{hook}.input" if hook and transcoder else hook,
        context_size=about.whole("ctx_len", None) if about else None,
    )
