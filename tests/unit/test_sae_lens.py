"""Equality with sae-lens: every architecture that it saves is saved by it, and encoded by both.

It runs in the Python that ACTPROBE_SAE_LENS names (`pip install sae-lens==6.54.12`), or in this one
if it is here.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sae_tiny import D, F, K, activations, codes, config, parameters, rows, targets
from test_sae_encode import CASES as ENCODERS
from test_sae_formats import WRITERS
from test_sae_training import trained

from actprobe import sae as room
from actprobe.base.errors import ConfigError
from actprobe.sae import memory

PYTHON = os.environ.get("ACTPROBE_SAE_LENS") or (
    sys.executable if importlib.util.find_spec("sae_lens") else None
)
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="sae-lens: ACTPROBE_SAE_LENS names no Python that has it"
)

NORMALIZE = ["none", "layer_norm", "constant_norm_rescale"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **ENCODERS,
    "transcoder": {"d_out": D},
    "skip_transcoder": {"d_out": D},
    "jumprelu_transcoder": {"d_out": D},
    "jumprelu_skip_transcoder": {"d_out": D},
}
FOLDED = ["standard", "jumprelu", "gated", "topk_rescale"]
TRAINING = {"batchtopk": {}, "matryoshka_batchtopk": {"matryoshka_widths": [20, 50, F]}}
WIDE = 9001  # latents: three column tiles, the last partly filled


@dataclass
class Case:
    """An SAE that sae-lens makes, the rows that both encode, and our config entry for it."""

    architecture: str
    cfg: dict[str, Any] = field(default_factory=dict)
    x: np.ndarray = field(default_factory=lambda: rows(60))
    f: int = F
    how: str = "sae"
    hook: str = "blocks.4.hook_resid_post"
    entry: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what the oracle reads; what it has to be told."""
        makedirs(folder)
        base = self.architecture.removesuffix("_rescale")
        kind = "jumprelu" if "jumprelu" in base else base
        np.savez(folder / "parameters.npz", **parameters(kind, f=self.f))
        np.save(folder / "x.npy", self.x)
        cfg = {"d_in": D, "d_sae": self.f} | ARCHITECTURES.get(self.architecture, {}) | self.cfg
        if "transcoder" in base:
            cfg["apply_b_dec_to_input"] = False  # sae-lens refuses anything else
        return {"architecture": base, "cfg": cfg, "how": self.how, "hook": self.hook,
                "fold": bool(self.entry.get("fold_decoder_norm"))}  # fmt: skip


CASES = {
    f"{a}-{n}-{'b_dec' if b else 'plain'}": Case(
        a, {"normalize_activations": n, "apply_b_dec_to_input": b}
    )
    for a in ARCHITECTURES
    for n in NORMALIZE
    for b in (True, False)
}
CASES |= {f"{a}-wide": Case(a, x=rows(130), f=WIDE) for a in ARCHITECTURES}
CASES |= {f"{a}-folded": Case(a, entry={"fold_decoder_norm": True}) for a in FOLDED}
CASES |= {a: Case(a, {"k": K} | more, how="training") for a, more in TRAINING.items()}
CASES["hook_z"] = Case(
    "standard", {"reshape_activations": "hook_z"}, rows(60).reshape(60, 4, D // 4),
    hook="blocks.4.attn.hook_z", entry={"overrides": {"ignore_mismatch": True}},
)  # fmt: skip


@dataclass
class Hub:
    """A format of others, by a writer of `test_sae_formats`, that sae-lens reads from the hub.

    loader: sae-lens' name of it; asked: what it is asked for, in the repository `repo`; written:
    below the case's folder, where the writer writes; source: what we are given.
    """

    loader: str
    asked: str
    written: str
    source: str
    repo: str = "google/gemma-scope-2b-pt-res"
    cfg: dict[str, Any] = field(default_factory=dict)
    scale: float = 1
    fold: bool = True


def folder_of(loader: str, name: str, **more: Any) -> Hub:
    return Hub(loader, name, name, name, **more)


QWEN = "SAE-Res-Qwen3-1.7B-Base-W1K-L0_8"
GOODFIRE = "Llama-3.1-8B-Instruct-SAE-l19"
FORMATS = {
    "gemma_scope": folder_of("gemma_2", "layer_4_resid_post"),
    "gemma_scope_embedding": folder_of("gemma_2", "embedding"),
    "gemma_scope_2": folder_of("gemma_3", "layer_4_resid_post"),
    "llama_scope": folder_of("llama_scope", "layer_4", scale=0.5),
    "llama_scope_r1_distill": folder_of("llama_scope_r1_distill", "layer_4", scale=0.5),
    **{
        n: folder_of("dictionary_learning_1", "layer_4", fold="topk" not in n)
        for n in WRITERS
        if n.startswith("dictionary")
    },
    "goodfire": Hub("goodfire", f"{GOODFIRE}.pth", "w", f"{GOODFIRE}.pth", f"Goodfire/{GOODFIRE}"),
    "qresearch": Hub("deepseek_r1", "tiny-SAE-l4.pt", "w", "tiny-SAE-l4.pt"),
    "qwen_scope": Hub(
        "qwen_scope", "layer4.sae.pt", "w", f"{QWEN}/layer4.sae.pt",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
        {"d_sae": 1024, "activation_fn_kwargs": {"k": K}}, fold=False,
    ),
    "circuit_tracer": Hub("mwhanna_transcoder", "layer_4.safetensors", "w", "layer_4.safetensors"),
    "circuit_tracer_clt": Hub(
        "mntss_clt_layer_transcoder", "4", "w", "W_enc_4.safetensors", fold=False,
    ),
}  # fmt: skip
# Where files lie in the writer's folder -> where sae-lens, and where we, look for them.
PLACES = {
    "goodfire": {"tiny-SAE-l4.pth": [f"{GOODFIRE}.pth"]},
    "qwen_scope": {
        "SAE-Res-tiny-W1K-L0_8/layer4.sae.pt": ["layer4.sae.pt", f"{QWEN}/layer4.sae.pt"]
    },
}
UNFOLDED = Case("standard", {"normalize_activations": "expected_average_only_in"})


def makedirs(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """The folder in which sae-lens has saved and encoded all cases, in one process."""
    root = tmp_path_factory.mktemp("oracle")
    told = {name: c.save(root / name) for name, c in (CASES | {"unfolded": UNFOLDED}).items()}
    ours = Case("topk", x=rows(60, d=24) + 5, how="load")
    told["trained"] = ours.save(root / "trained")
    room.save_saelens(trained(root / "cache", epochs=1).path, root / "trained")
    for name, hub in FORMATS.items():
        np.save(makedirs(root / name) / "x.npy", rows(60))
        WRITERS[name.removesuffix("_embedding")](root / name / hub.written, parameters())
        put_in_place(root / name, hub, PLACES.get(name, {}))
        told[name] = {
            "how": "hub", "architecture": hub.loader, "files": hub.asked, "hook": hub.repo,
            "cfg": {"d_in": D, "d_sae": F} | hub.cfg, "scale": hub.scale, "fold": hub.fold,
        }  # fmt: skip
    (root / "cases.json").write_text(json.dumps(told))
    script = Path(__file__).with_name("sae_lens_oracle.py")
    run = [str(PYTHON), str(script), str(root)]
    out = subprocess.run(run, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-3000:]
    return root


def put_in_place(folder: Path, hub: Hub, places: dict[str, list[str]]) -> None:
    if hub.written == "w":
        places = places or {f.name: [f.name] for f in (folder / "w").iterdir()}
        for old, news in places.items():
            for new in news:
                makedirs((folder / new).parent)
                shutil.copy(folder / "w" / old, folder / new)
        shutil.rmtree(folder / "w")  # one SAE only is left to be found


def assert_encodes_alike(tmp_path, folder, entry=None, files=""):
    """Equal support, values to 1e-5 relative (near zero, to a few float32 roundings)."""
    expected, x = np.load(folder / "expected.npy"), np.load(folder / "x.npy")
    found = codes(tmp_path, folder / files, x.reshape(len(x), -1), **(entry or {}))
    assert 0 < np.count_nonzero(expected) < expected.size / 2
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_encodes_as_sae_lens(tmp_path, oracle, name):
    assert_encodes_alike(tmp_path, oracle / name, CASES[name].entry)


@pytest.mark.parametrize("name", FORMATS)
def test_reads_formats_as_sae_lens(tmp_path, oracle, name):
    """With decoder norms folded where that is possible: latents and decoder are on its scale."""
    hub = FORMATS[name]
    entry = {"overrides": {"ignore_mismatch": True}, "fold_decoder_norm": hub.fold}
    assert_encodes_alike(tmp_path, oracle / name, entry, hub.source)


@pytest.mark.parametrize("name", [f"{a}-wide" for a in ARCHITECTURES])
def test_in_blocks_of_latents(tmp_path, oracle, name, monkeypatch):
    """The encoder read in three blocks; above it was read as a whole."""
    monkeypatch.setattr(memory, "_MAX_BLOCK", 4096)
    assert_encodes_alike(tmp_path, oracle / name)


def test_batch_top_k_is_saved_as_jumprelu(oracle):
    for name in TRAINING:
        cfg = json.loads((oracle / name / "cfg.json").read_text())
        assert cfg["architecture"] == "jumprelu"


def test_an_sae_trained_here_is_loaded_by_sae_lens(tmp_path, oracle):
    expected = np.load(oracle / "trained" / "expected.npy")
    assert (expected != 0).sum(1).max() == 3  # the k it was trained with
    entry = {"overrides": {"ignore_mismatch": True}}
    assert_encodes_alike(tmp_path, oracle / "trained", entry)


def test_unfolded_scaling_is_refused_where_sae_lens_leaves_it_out(tmp_path, oracle):
    cfg = config(tmp_path, {"s": {"source": str(oracle / "unfolded")}})
    with pytest.raises(ConfigError, match="has to be folded into the weights first"):
        targets(cfg, activations(tmp_path, {"a": rows(3)}))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("jumprelu-none-b_dec", {"architecture": "standard"}),
        ("topk-none-b_dec", {"k": K + 1}),
        ("topk-none-b_dec", {"architecture": "abstopk"}),
        ("standard-none-b_dec", {"apply_b_dec_to_input": False}),
        ("standard-none-b_dec", {"normalize_activations": "layer_norm"}),
        ("topk_rescale-none-b_dec", {"rescale_acts_by_decoder_norm": False}),
        ("batchtopk", {"architecture": "standard"}),
    ],
)
def test_a_wrong_reading_does_not_pass(tmp_path, oracle, name, wrong):
    folder = shutil.copytree(oracle / name, tmp_path / "wrong")
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(AssertionError):
        assert_encodes_alike(tmp_path, folder)
