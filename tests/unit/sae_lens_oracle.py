"""What sae-lens itself encodes: run by the Python that has it, `python sae_lens_oracle.py FOLDER`.

FOLDER/cases.json lists cases by folder name: {how, architecture, cfg, hook, fold}. How:
  sae       an inference SAE with the parameters of parameters.npz, saved by sae-lens
  training  a training SAE with these parameters and threshold 0.1, saved for inference
  load      the SAE that is already in the folder
  hub       the files of FOLDER/{case}/{files}, read by the loader `architecture` for hub SAEs
            with the overrides `cfg`, and scaled by `scale`
Writes FOLDER/{case}/expected.npy: encode() of FOLDER/{case}/x.npy, after decoder norms were folded
where `fold` is true; the saved SAE is the plain one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata


def made(folder: Path, case: dict) -> SAE:
    if case["how"] == "load":
        return SAE.load_from_disk(folder)
    if case["how"] == "hub":
        return from_hub(folder, case)
    training = case["how"] == "training"
    sae_class, cfg_class = (get_sae_training_class if training else get_sae_class)(
        case["architecture"]
    )
    metadata = SAEMetadata(model_name="tiny", hook_name=case["hook"])
    sae = sae_class(cfg_class(metadata=metadata, **case["cfg"]))
    p = np.load(folder / "parameters.npz")
    for name, value in sae.named_parameters():
        if name in p:
            value.data = torch.from_numpy(p[name])
    if training:
        sae.topk_threshold.fill_(0.1)
        sae.save_inference_model(folder)
        return SAE.load_from_disk(folder)
    sae.save_model(folder)
    return sae


def from_hub(folder: Path, case: dict) -> SAE:
    """The hub loader of a format, given local files for downloads."""

    def download(repo_id: str, filename: str, subfolder: str = "", **_: object) -> str:
        return str(folder / subfolder / filename)

    def shapes(repo_id: str, filename: str) -> dict:
        data = (folder / filename).read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}

    def convert(path: Path, device: str, cfg_overrides: dict | None) -> tuple[dict, dict]:
        loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[case["architecture"]]
        return loader(
            repo_id=case["hook"], folder_name=case["files"], device=device, force_download=False,
            cfg_overrides=case["cfg"] | {"dtype": "float32"},
        )[:2]  # fmt: skip

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = download, shapes
    sae = SAE.load_from_disk(folder, converter=convert)
    if case["scale"] != 1:
        sae.fold_activation_norm_scaling_factor(case["scale"])
    return sae


def main() -> None:
    root = Path(sys.argv[1])
    for name, case in json.loads((root / "cases.json").read_text()).items():
        with torch.no_grad():
            sae = made(root / name, case)
            if case["fold"]:
                sae.fold_W_dec_norm()
            x = torch.from_numpy(np.load(root / name / "x.npy"))
            np.save(root / name / "expected.npy", sae.encode(x).numpy())


if __name__ == "__main__":
    main()
