"""Latents and SAEs in the formats of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actprobe.base.errors import ActprobeError
from actprobe.sae.artefact import read_sae
from actprobe.sae.latents import Latents
from actprobe.sae.weights import Weights

SAELENS_VERSION = "6.54.12"  # the format written here


def save_benchmark(
    stem: str | Path, latents: Latents, y: ArrayLike, train: ArrayLike, test: ArrayLike
) -> list[Path]:
    """Write `{stem}_{X_train_sae,X_test_sae,y_train,y_test}.pt` as the SAE-Probes code reads them.

    Sparse COO tensors, float32 for X and int64 for y (Kantamneni et al. 2025,
    `sae_activations_*/…`). y: labels of all rows; train, test: row indices.
    """
    import torch

    labels = np.asarray(y, np.int64)
    written = []
    for part, rows in (("train", np.asarray(train)), ("test", np.asarray(test))):
        x = latents.rows(rows).to_torch().to_sparse(layout=torch.sparse_coo).coalesce()
        for name, value in (("X", x), ("y", torch.from_numpy(labels[rows]).to_sparse())):
            path = Path(f"{stem}_{name}_{part}{'_sae' * (name == 'X')}.pt")
            torch.save(value, path)
            written.append(path)
    return written


def save_safetensors(path: str | Path, latents: Latents) -> Path:
    """Write CSR arrays `data`, `indices`, `indptr` and `shape` to a safetensors file."""
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {
        "data": latents.data,
        "indices": latents.indices,
        "indptr": latents.indptr,
        "shape": np.array(latents.shape),
    }
    save_file(arrays, path, {"format": "csr"})
    return Path(path)


def save_saelens(artefact: str | Path, folder: str | Path) -> Path:
    """Write an SAE that was trained here as a folder that `sae_lens.SAE.load_from_disk` loads."""
    from safetensors.numpy import save_file

    sae = read_sae(artefact)
    if sae.architecture != "topk":
        raise ActprobeError(f"{artefact}: only trained SAEs are exported, not {sae.architecture}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Weights(sae) as w:
        weights: dict[str, NDArray[Any]] = {
            "W_enc": np.ascontiguousarray(w.encoder.block(0, sae.d_sae)),
            "b_enc": w.vector("b_enc"),
            "W_dec": w.decoder.rows(np.arange(sae.d_sae)),
            "b_dec": w.vector("b_dec"),
        }
    save_file(weights, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": "topk",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": sae.normalize,
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": sae.rescale == "values",
        "metadata": {
            "model_name": sae.model,
            "hook_name": sae.hook,
            "sae_lens_version": SAELENS_VERSION,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(cfg, indent=1))
    return folder
