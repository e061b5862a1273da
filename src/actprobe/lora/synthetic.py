"""Small LoRA collections with a class signal in a known place, to try the workflow on.

    python -m actprobe.lora.synthetic data/loras

writes `data/loras/files` (several ranks and dialects, some files that must be refused) and
`data/loras/labels.csv`. Each class has its own output directions in the modules that match
`SIGNAL`; ranks, dialects and scales are drawn without regard to the class.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from actprobe.lora.names import canonical, matches

CLASSES = ("airplane", "bird", "cat", "ship")
SIGNAL = ("*up_blocks*attn1.to_v",)
RANKS = (1, 2, 4)
_GROUP = 2  # LoRAs of one subject
_STRENGTH = 3.0

Tensors = dict[str, NDArray[np.float32]]
Factors = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]  # path -> A, B


def modules() -> dict[str, tuple[int, int]]:
    """Module paths of a small diffusion model with d_out and d_in."""
    found = {}
    for block, d in (("down_blocks.0", 48), ("mid_block", 64), ("up_blocks.1", 48)):
        for attention in ("attn1", "attn2"):
            for projection in ("to_q", "to_v"):
                path = f"{block}.attentions.0.transformer_blocks.0.{attention}.{projection}"
                found[path] = d, 40 if (attention, projection) == ("attn2", "to_v") else d
    return found


def draw(label: int, rank: int, scale: float, rng: np.random.Generator) -> Factors:
    """One LoRA: A is drawn at random, B is noise plus, where `SIGNAL` matches, a class's step.

    B = 0.01 / scale · (strength · P·Q·Aᵀ + noise) with P (d_out x 1) and Q (1 x d_in) of the class:
    one gradient step from B = 0 for a loss whose gradient is P·Q.
    """
    found = {}
    for n, (path, (d_out, d_in)) in enumerate(modules().items()):
        a = rng.standard_normal((rank, d_in)) / np.sqrt(rank)
        b = rng.standard_normal((d_out, rank))
        if matches(canonical(path)[0], SIGNAL):
            of_class = np.random.default_rng([n, label])
            p, q = of_class.standard_normal((d_out, 1)), of_class.standard_normal((1, d_in))
            p *= np.sqrt(d_out) / np.linalg.norm(p)  # no class is told by its size
            q /= np.linalg.norm(q)
            b += _STRENGTH * p @ (q @ a.T)
        found[path] = a.astype(np.float32), (0.01 / scale * b).astype(np.float32)
    return found


def _diffusers(path: Path, factors: Factors, scale: float) -> None:
    tensors: Tensors = {}
    for m, (a, b) in factors.items():
        tensors |= {f"unet.{m}.lora.down.weight": a, f"unet.{m}.lora.up.weight": b * scale}
    save_file(tensors, path / "pytorch_lora_weights.safetensors", {"format": "pt"})


def _diffusers_old(path: Path, factors: Factors, scale: float) -> None:
    tensors: Tensors = {}
    for m, (a, b) in factors.items():
        block, _, projection = m.rpartition(".")
        stem = f"unet.{block}.processor.{projection}_lora"
        tensors |= {f"{stem}.down.weight": a, f"{stem}.up.weight": b * scale}
    save_file(tensors, path / "pytorch_lora_weights.safetensors", {"format": "pt"})


def _peft(path: Path, factors: Factors, scale: float) -> None:
    tensors: Tensors = {}
    for m, (a, b) in factors.items():
        tensors |= {
            f"base_model.model.{m}.lora_A.weight": a,
            f"base_model.model.{m}.lora_B.weight": b,
        }
    rank = len(next(iter(factors.values()))[0])
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": scale * rank, "use_rslora": False}
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})


def _kohya(path: Path, factors: Factors, scale: float) -> None:
    tensors: Tensors = {}
    for m, (a, b) in factors.items():
        stem = f"lora_unet_{m.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
        tensors[f"{stem}.alpha"] = np.array(scale * len(a), np.float32)
    metadata = {"format": "pt", "ss_network_dim": str(len(a)), "ss_learning_rate": "0.0001"}
    save_file(tensors, path / "lora.safetensors", metadata)


DIALECTS: tuple[Callable[[Path, Factors, float], None], ...] = (
    _diffusers, _diffusers_old, _peft, _kohya,
)  # fmt: skip


def write(folder: str | Path, per_class: int = 40, seed: int = 0, broken: bool = True) -> int:
    """Write a collection of `per_class` LoRAs per class and its labels; returns how many.

    The label table has id, label (planted), style (a label without any signal) and subject (LoRAs
    of one subject belong on one side of a split). With `broken`, files that must be refused are
    added to it.
    """
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(per_class * len(CLASSES)):
        label, subject = n % len(CLASSES), n // len(CLASSES) // _GROUP
        rank, scale = int(rng.choice(RANKS)), float(rng.choice([0.5, 1.0, 2.0]))
        name = f"{CLASSES[label]}/{n:04d}"
        path = folder / "files" / name
        path.mkdir(parents=True, exist_ok=True)
        factors = draw(label, rank, scale, rng)
        DIALECTS[int(rng.integers(len(DIALECTS)))](path, factors, scale)
        style = str(rng.choice(["photo", "sketch"]))
        rows.append([name, CLASSES[label], style, f"{CLASSES[label]}-{subject}"])
    if broken:
        broken_names = _write_broken(folder / "files" / "broken", rng)
        rows += [[f"broken/{name}", CLASSES[0], "photo", "broken"] for name in broken_names]
    with open(folder / "labels.csv", "w", newline="") as f:
        csv.writer(f).writerows([["id", "label", "style", "subject"], *rows])
    return len(rows)


def _write_broken(folder: Path, rng: np.random.Generator) -> list[str]:
    """One file per kind of fault; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: Tensors = {}
    for m, (a, b) in draw(0, 2, 1.0, rng).items():
        tensors |= {f"unet.{m}.lora.down.weight": a, f"unet.{m}.lora.up.weight": b}
    first = next(iter(tensors))
    stem = first.removesuffix(".lora.down.weight")
    other_base = {k: np.tile(v, (1, 2)) if ".lora.down." in k else v for k, v in tensors.items()}
    faults: dict[str, Tensors] = {
        "dora": tensors | {f"{stem}.dora_scale": np.ones(4, np.float32)},
        "lokr": tensors | {f"{stem}.lokr_w1": np.ones((2, 2), np.float32)},
        "unknown": tensors | {"some.other.weight": np.ones(3, np.float32)},
        "no_partner": {k: v for k, v in tensors.items() if k != first},
        "nan": tensors | {first: np.full_like(tensors[first], np.nan)},
        "other_base": other_base,
        "truncated": tensors,
    }
    for name, content in faults.items():
        save_file(content, folder / f"{name}.safetensors", {"format": "pt"})
    cut = folder / "truncated.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    return list(faults)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Write a small LoRA collection to try actprobe on."
    )
    parser.add_argument("folder", help="where to write files/ and labels.csv")
    parser.add_argument("--per-class", type=int, default=40, help="LoRAs of each of four classes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{write(args.folder, args.per_class, args.seed)} LoRA files in {args.folder}/files")


if __name__ == "__main__":
    main()
