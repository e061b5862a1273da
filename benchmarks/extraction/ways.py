"""One way of extracting activations, run alone in a process: python ways.py WAY FOLDER SCRATCH

Prints one JSON line. What the peers' ways are spared counts for actprobe: it tokenises the texts,
checks itself and writes sealed files within its time, they are given token ids and, all but
`scripts`, write nothing. Loading the model is left out of every way's time.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from material import MODEL, SITES, prompts

BATCH = 32
D = MODEL["hidden_size"]


class Clock:
    """CPU seconds and anonymous memory from the moment the model is there."""

    def loaded(self) -> None:
        self.at = time.monotonic()
        self.memory = anonymous()
        self.begun = time.process_time()

    def report(self, **more: float) -> None:
        end = time.process_time()
        found = {"cpu_s": end - self.begun, "process_s": end}
        print(json.dumps({**found, "loaded_at": self.at, "loaded_mb": self.memory, **more}))


def anonymous() -> float:
    """MB (10^6 bytes) of this process that are not mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6


def scripts(folder: Path, scratch: Path, clock: Clock) -> None:
    """As the evaluation-awareness scripts: a forward pass per prompt and layer, a file for each."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    clock.loaded()
    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in SITES}
    for n, row in enumerate(prompts(folder), 1):
        tokens = torch.from_numpy(row)[None]
        for layer in SITES:

            def keep(module, args, out, kept=kept[layer]):
                kept.append(out.detach().cpu().clone())

            handle = model.model.layers[layer].register_forward_hook(keep)
            with torch.no_grad():
                model(tokens)
            handle.remove()
        if n % 10 == 0:
            gc.collect()
    for layer, tensors in kept.items():
        (scratch / f"layer_{layer}").mkdir()
        for i, x in enumerate(tensors):
            torch.save(x, scratch / f"layer_{layer}" / f"{i}.pt")
    clock.report()


def per_example(folder: Path, scratch: Path, clock: Clock) -> None:
    """transformers alone: base model, one pass per prompt, hidden states of all layers."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder / "model", dtype=torch.float32).eval()
    clock.loaded()
    rows = prompts(folder)
    found = np.empty((len(rows), len(SITES), 2, D), np.float32)
    with torch.inference_mode():
        for i, row in enumerate(rows):
            out = model(torch.from_numpy(row)[None], output_hidden_states=True, use_cache=False)
            for s, layer in enumerate(SITES):
                h = out.hidden_states[layer + 1][0]
                found[i, s] = torch.stack([h[-1], h.mean(0)]).numpy()
    np.save(scratch / "x.npy", found)
    clock.report()


def _lens(stop: int | None) -> Callable[[Path, Path, Clock], None]:
    def way(folder: Path, scratch: Path, clock: Clock) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        path = str(folder / "model")
        model = TransformerBridge.boot_transformers(path, device="cpu", dtype=torch.float32)
        clock.loaded()
        rows = prompts(folder)
        names = [f"blocks.{layer}.hook_resid_post" for layer in SITES]
        found = np.empty((len(rows), len(SITES), 2, D), np.float32)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            lengths = torch.tensor([len(row) for row in batch])
            ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
            for k, row in enumerate(batch):
                ids[k, : len(row)] = torch.from_numpy(row)
            here = torch.arange(ids.shape[1])[None] < lengths[:, None]
            with torch.inference_mode():
                _, cache = model.run_with_cache(
                    ids, names_filter=names, return_type=None, stop_at_layer=stop
                )
                for s, name in enumerate(names):
                    h = cache[name]
                    last = h[torch.arange(len(batch)), lengths - 1]
                    mean = (h * here[..., None]).sum(1) / lengths[:, None]
                    found[start : start + len(batch), s] = torch.stack([last, mean], 1).numpy()
        np.save(scratch / "x.npy", found)
        clock.report()

    return way


def actprobe(folder: Path, scratch: Path, clock: Clock) -> None:
    """The activations stage on the same prompts: last and mean of the three sites."""
    from actprobe import config as configuration
    from actprobe import models
    from actprobe.cache import plan
    from actprobe.experiment import targets as experiment
    from actprobe.models import load
    from actprobe.models.run import run
    from actprobe.texts.run import run as run_texts

    config = configuration.resolve(
        {
            "experiment": "extraction",
            "cache_dir": str(scratch),
            "datasets": [{"name": "prompts", "path": str(folder / "prompts.csv"), "text": "text",
                          "label": "label"}],
            "models": {"m": {"source": str(folder / "model"), "device": "cpu"}},
            "activations": [{"model": "m", "sites": [f"resid_post.{n}" for n in SITES],
                             "positions": ["last", "mean"]}],
        }
    )  # fmt: skip
    [texts] = experiment.plan(config, ("texts",)).batches
    run_texts(texts, config, 1)
    [batch] = experiment.plan(config, ("activations",)).batches
    load_model = load.load_model

    def watched(*args):
        model = load_model(*args)
        clock.loaded()
        return model

    load.load_model = watched
    run(batch, config, 1)
    clock.report()
    arrays = {(t.args["site"], t.args["position"]): t.path for t in batch.targets}
    found = [
        [models.load_activations(arrays[f"resid_post.{n}", p]) for p in ("last", "mean")]
        for n in SITES
    ]
    np.save(scratch / "x.npy", np.stack(found).transpose(2, 0, 1, 3))
    assert plan.Cache().state(batch.targets[0]).there


def limit(folder: Path, scratch: Path, clock: Clock) -> None:
    """Bare matrix products of actprobe's batches, up to the last layer that is read.

    All weights of a layer, and the two products of attention as full (not causal) ones; results
    go to memory that is there. `bound_s` is stricter: the operations of the tokens without padding
    (attention over all pairs of a prompt's tokens), at the rate of the products with weights.
    """
    from actprobe.models import batch_plan

    lengths = np.array([len(row) for row in prompts(folder)])
    plan = batch_plan(lengths, 1024)
    heads, inner = MODEL["num_attention_heads"], MODEL["intermediate_size"]
    size, kv = D // heads, D // heads * MODEL["num_key_value_heads"]
    widths = [(D, D), (kv, D), (kv, D), (D, D), (inner, D), (inner, D), (D, inner)]
    layers = [[torch.randn(*shape) for shape in widths] for _ in range(max(SITES) + 1)]
    largest = max(int(lengths[rows].max()) * len(rows) for rows in plan)
    x = {k: torch.randn(largest, k) for k in (D, inner)}
    y = {n: torch.empty(largest, n) for n in {n for n, _ in widths}}
    linear_s, padded = 0.0, 0
    clock.loaded()
    for rows in plan:
        b, t = len(rows), int(lengths[rows].max())
        padded += b * t
        q, o = (m[: b * t].view(b * heads, t, size) for m in (x[D], y[D]))
        scores = torch.empty(b * heads, t, t)
        for weights in layers:
            begun = time.process_time()
            for w in weights:
                n, k = w.shape
                torch.mm(x[k][: b * t], w.t(), out=y[n][: b * t])
            linear_s += time.process_time() - begun
            torch.bmm(q, q.transpose(1, 2), out=scores)
            torch.bmm(scores, q, out=o)
    tokens = int(lengths.sum())
    per_token = 2 * len(layers) * sum(n * k for n, k in widths)
    attention = 4 * len(layers) * D * int((lengths.astype(np.int64) ** 2).sum())
    rate = padded * per_token / linear_s
    clock.report(
        tokens=tokens,
        padded=padded,
        gflop_per_s=rate / 1e9,
        bound_s=(tokens * per_token + attention) / rate,
    )


WAYS = {
    "scripts": scripts,
    "lens": _lens(None),
    "lens_stop": _lens(max(SITES) + 1),
    "per_example": per_example,
    "actprobe": actprobe,
    "limit": limit,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), Clock())
