"""What a watched model costs: python benchmarks/attach/run.py [--device cuda] [--layers N] [--width D]

A causal model with random weights in the shape of SmolLM2-135M-Instruct (what a pass costs does not
depend on the weights) reads prompts and generates, with probes attached and without, in turns. For each
case the time inside the hooks is measured directly too: as a share of the passes of the same run it is
hardly disturbed by other work on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from actprobe.face.card import Card
from actprobe.face.origin import Origin
from actprobe.face.probe import Probe
from actprobe.face.watch import Watch
from actprobe.probes.keep import Kept, Scorer


class Tokenizer:
    """What a watch asks of a tokenizer."""

    bos_token_id = eos_token_id = pad_token_id = 0
    unk_token_id = None
    all_special_ids = (0,)
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    name_or_path = ""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{i}>" for i in ids]


def probe(width: int, site: str, position: str) -> Probe:
    """A random linear probe."""
    rng = np.random.default_rng(0)
    arrays = {"coef": rng.standard_normal(width), "intercept": np.array(0.0)}
    about = {"kind": "binary", "classes": ["0", "1"], "reads": "activations", "width": width}
    origin = Origin("m", "activations", "", site, position, {"site": site, "position": position})
    card = Card(origin, threshold={"value": 0.5, "rule": "boundary"})
    return Probe(Scorer(Kept("linear", arrays, (), "logistic"), about), card)


def model_of(layers: int, width: int, device: str, dtype: torch.dtype) -> Any:
    """A Llama of this shape."""
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64), num_key_value_heads=max(1, width // 192),
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).to(device, dtype).eval()


class Timed:
    """A function that adds up the time spent in it."""

    def __init__(self, function: Callable[..., Any], sync: Callable[[], None]) -> None:
        self.function, self.sync, self.seconds = function, sync, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.sync()
        begun = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.sync()
            self.seconds += time.perf_counter() - begun


def generate(model: Any, ids: torch.Tensor, n: int, clock: Callable[[], float]) -> float:
    """Seconds that a prompt and n tokens take."""
    mask = torch.ones_like(ids)
    begun = clock()
    model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    return clock() - begun


def case(model: Any, probes: list[Probe], rows: int, prompt: int, n: int, turns: int, device: str,
         **how: Any) -> dict[str, float]:  # fmt: skip
    """Ratio of watched to unwatched time (median over turns), and the share of the hooks."""

    def sync() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def clock() -> float:
        sync()
        return time.perf_counter() if device == "cuda" else time.process_time()

    ids = torch.randint(1, 49152, (rows, prompt), device=device)
    by = how.pop("by", None)

    def watched(timed: bool) -> tuple[float, float]:
        watch = Watch(probes, model, Tokenizer(), [], by, how, True)
        parts = []
        if timed:
            watch._begin = Timed(watch._begin, sync)  # type: ignore[method-assign]
            parts.append(watch._begin)
            for site in watch._sites:
                hook = Timed(site.read, sync)
                site.read = hook  # type: ignore[method-assign]
                parts.append(hook)
        with watch:
            took = generate(model, ids, n, clock)
        return took, sum(p.seconds for p in parts)

    generate(model, ids, n, clock)
    watched(False)
    ratios, shares = [], []
    for turn in range(turns):
        both = {}
        for kind in ("plain", "watched") if turn % 2 else ("watched", "plain"):
            both[kind] = watched(False)[0] if kind == "watched" else generate(model, ids, n, clock)
        ratios.append(both["watched"] / both["plain"])
        begun = time.perf_counter()
        _, inside = watched(True)
        sync()
        shares.append(inside / (time.perf_counter() - begun - inside))
    return {"ratio": statistics.median(ratios), "share": statistics.median(shares)}


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--device", default="cpu")
    args.add_argument("--dtype", default="float32")
    args.add_argument("--layers", type=int, default=30)
    args.add_argument("--width", type=int, default=576)
    args.add_argument("--tokens", type=int, default=32)
    args.add_argument("--turns", type=int, default=5)
    args.add_argument("--shapes", nargs="+", default=["1x64", "8x256"], help="rows x prompt tokens")
    a = args.parse_args()
    model = model_of(a.layers, a.width, a.device, getattr(torch, a.dtype))
    site = f"resid_post.{a.layers // 2}"
    cases = {
        "one linear probe, mean": ([probe(a.width, site, "mean")], {}),
        "one linear probe, last": ([probe(a.width, site, "last")], {}),
        "one linear probe, largest EMA": (
            [probe(a.width, site, "mean")], {"by": "ema", "largest": True},
        ),
        "ten linear probes, one site": ([probe(a.width, site, "mean") for _ in range(10)], {}),
    }  # fmt: skip
    print("| case | rows | prompt | new tokens | watched / plain | hooks / passes |")
    print("|---|---|---|---|---|---|")
    for name, (probes, how) in cases.items():
        for rows, prompt in (map(int, s.split("x")) for s in a.shapes):
            found = case(model, probes, rows, prompt, a.tokens, a.turns, a.device, **how)
            print(
                f"| {name} | {rows} | {prompt} | {a.tokens} | {found['ratio']:.3f} | "
                f"{100 * found['share']:.2f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
