"""Small random SAEs in every format on disk, activations to encode, and runs of the stages."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from actprobe import config as configs
from actprobe import sae
from actprobe.base import keys
from actprobe.cache import plan, store
from actprobe.cache.plan import Batch, Target

D, F, K = 16, 100, 8


def parameters(architecture: str = "standard", d: int = D, f: int = F, seed: int = 0) -> dict:
    """Random parameters in SAELens names; about a tenth of the latents fire on a row."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    p = {
        "W_enc": normal(d, f, scale=d**-0.5),
        "W_dec": normal(f, d, scale=d**-0.5),
        "b_dec": normal(d, scale=0.1),
    }
    if architecture == "gated":
        p |= {"b_gate": normal(f) - 1, "b_mag": normal(f), "r_mag": normal(f, scale=0.3)}
    else:
        p |= {"b_enc": normal(f, scale=0.3) - 1}
    if architecture.startswith("jumprelu"):
        p["threshold"] = np.abs(normal(f, scale=0.5))
    return p


def save_saelens(folder: Path, p: dict[str, np.ndarray], **cfg: Any) -> Path:
    """A SAELens folder; `cfg` goes over a minimal config of version 6."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in p.items()}, folder / "sae_weights.safetensors"
    )
    base = {
        "architecture": "standard",
        "d_in": p["W_enc"].shape[0],
        "d_sae": p["W_enc"].shape[1],
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "tiny"},
    }
    (folder / "cfg.json").write_text(json.dumps(base | cfg))
    return folder


def activations(
    cache: Path, xs: dict[str, np.ndarray], position: str = "mean", **arrays: Any
) -> list[Target]:
    """Published activation artefacts of the model `m` at resid_post.4, one per dataset."""
    found = []
    for name, x in xs.items():
        source = f"m/resid_post.4.{position}"
        t = plan.target(
            cache, "activations", 1, f"m/{name}/resid_post.4.{position}",
            {"x": keys.spec_key({"bytes": x.tobytes().hex()})}, loader="m", item=name,
            args={"source": source, "model": "m", "site": "resid_post.4", "position": position},
        )  # fmt: skip
        if not Path(t.path).exists():
            content = {"x": x, "n_tokens": np.ones(len(x), np.int32), **arrays.get(name, {})}
            dtype = "bfloat16" if x.dtype == np.uint16 else str(x.dtype)
            store.publish(
                [t.path], [store.write_h5(t.path, content, t.record, attrs={"x": {"dtype": dtype}})]
            )
        found.append(t)
    return found


def config(cache: Path, saes: dict[str, dict], **more: Any) -> configs.Config:
    """A resolved config with these SAEs, each bound to m/resid_post.4."""
    bound = {k: {"model": "m", "site": "resid_post.4", **v} for k, v in saes.items()}
    return configs.resolve(
        {
            "experiment": "e",
            "cache_dir": str(cache),
            "max_memory": 2 * 10**9,
            "models": {"m": {"source": "org/tiny"}},
            "saes": bound,
            **more,
        }
    )


def targets(cfg: dict[str, Any], known: list[Target]) -> dict[str, list[Target]]:
    """SAE targets by stage, planned for these activations."""
    memo = keys.DigestMemo(cfg["cache_dir"])
    found: dict[str, list[Target]] = {"saes": [], "latents": []}
    for t in sae.targets(cfg, {"activations": known}, memo):
        found[t.stage].append(t)
    return found


def encode(cfg: dict[str, Any], known: list[Target]) -> dict[str, Target]:
    """Run both stages for one SAE; latents targets by dataset."""
    planned = targets(cfg, known)
    if planned["saes"] and not Path(planned["saes"][0].path).exists():
        sae.make(batch(planned["saes"]), cfg, 1)
    todo = [t for t in planned["latents"] if not Path(t.path).exists()]
    if todo:
        sae.run(batch(todo), cfg, 1)
    return {t.item: t for t in planned["latents"]}


def batch(ts: list[Target]) -> Batch:
    """The rule instance for targets of one stage and loader."""
    return Batch("rule", ts[0].stage, ts[0].loader, tuple(ts))


def killed(work: Callable[[], object], seconds: float) -> bool:
    """Do this in a child process that is killed after so long; False if it had ended by then."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    end = time.monotonic() + seconds
    done, status = 0, 0
    while not done and time.monotonic() < end:
        time.sleep(0.001)
        done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), "it failed by itself"
    return status == signal.SIGKILL


def codes(
    tmp: Path, source: Path, x: np.ndarray, position: str = "mean", **settings: Any
) -> np.ndarray:
    """Dense latents [n, F] of x under the SAE at `source`, through the stage."""
    known = activations(tmp, {"data": x}, position)
    more = {k: settings.pop(k) for k in ("max_memory",) if k in settings}
    cfg = config(tmp, {"s": {"source": str(source)} | settings}, **more)
    return sae.open_latents(encode(cfg, known)["data"].path).to_scipy().toarray()


def rows(n: int, d: int = D, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def dense(
    p: dict[str, np.ndarray],
    x: np.ndarray,
    architecture: str,
    k: int = K,
    b_dec: bool = True,
    normalize: str = "none",
    rescale: bool = False,
) -> np.ndarray:
    """encode() written down once more, dense and in float64, from the definitions."""
    x = x.astype(np.float64)
    if normalize == "layer_norm":
        x = (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-5)
    if normalize == "constant_norm_rescale":
        x = x * np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1, keepdims=True)
    x = x - p["b_dec"] if b_dec else x
    w = p["W_enc"].astype(np.float64)
    if architecture == "gated":
        gate = x @ w + p["b_gate"] > 0
        return gate * np.maximum(x @ (w * np.exp(p["r_mag"].astype(np.float64))) + p["b_mag"], 0)
    pre = x @ w + p["b_enc"]
    if architecture == "jumprelu":
        return np.maximum(pre, 0) * (pre > p["threshold"])
    if architecture == "standard":
        return np.maximum(pre, 0)
    if rescale:
        pre = pre * np.linalg.norm(p["W_dec"].astype(np.float64), axis=1)
    size = np.abs(pre) if architecture == "abstopk" else pre
    best = np.argsort(-size, axis=1, kind="stable")[:, :k]
    z = np.zeros_like(pre)
    np.put_along_axis(z, best, np.take_along_axis(pre, best, 1), 1)
    return z if architecture == "abstopk" else np.maximum(z, 0)
