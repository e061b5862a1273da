"""Texts and activations artefacts as the contrastive and interchange tests need them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actprobe import config as configs
from actprobe import probes, report, results, texts
from actprobe.base import keys
from actprobe.cache import plan, store
from actprobe.exchange import vectors
from actprobe.report import directions
from actprobe.results.directions import Applied, load_all
from actprobe.texts.run import run as run_texts

PAIRS = [
    {"question": f"Is thing {i} odd?\n(A) {a}\n(B) {b}", "positive": yes, "negative": no}
    for i in range(10)
    for a, b, yes, no in (("Yes", "No", "(A)", "(B)"), ("No", "Yes", "(B)", "(A)"))
]
ROWS = [
    {"question": f"{kind} text number {i} " + "long " * (i % 4), "type": kind}
    for i in range(12)
    for kind in ("testing", "deployment")
]


def dataset(folder: Path, name: str, rows: Sequence[Mapping[str, str]], **entry: Any) -> dict:
    """Write rows to `{name}.json`; an entry of `datasets`, contrastive where rows have answers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(rows))
    own: dict[str, Any] = {"name": name, "path": str(folder / f"{name}.json"), "text": "question"}
    if "positive" in rows[0]:
        own["contrastive"] = {}
    else:
        own |= {"label": "type", "positive": "testing"}
    return own | entry


def resolve(folder: Path, datasets: Sequence[dict], **sections: Any) -> dict[str, Any]:
    """A resolved config of these datasets whose cache is `{folder}/cache`."""
    raw = {"experiment": "toy", "datasets": list(datasets), "cache_dir": str(folder / "cache")}
    raw["results_dir"] = str(folder / "results")
    return configs.resolve({**raw, **sections})


def make_texts(config: Mapping[str, Any]) -> list[plan.Target]:
    """Make the texts of a config; returns their targets."""
    found = texts.targets(config, {}, keys.DigestMemo(config["cache_dir"]))
    made = plan.make(dict(config), found, [t.path for t in found])
    for batch in made.batches:
        run_texts(batch, config, 1)
    return found


def activations(
    config: Mapping[str, Any],
    of: plan.Target,
    x: np.ndarray,
    site: str = "resid_post.1",
    lengths: Sequence[int] | None = None,
    position: str = "last",
    model: str = "m",
) -> plan.Target:
    """An activations artefact with these values, uint16 as bfloat16 bits; `lengths` cuts tokens."""
    position = "tokens" if lengths is not None else position
    params = {"values": keys.hashlib.sha256(x.tobytes()).hexdigest(), "site": site}
    t = plan.target(
        config["cache_dir"], "activations", 1, f"{model}/{of.item}/{site}.{position}", params,
        loader=model, item=of.item, inputs=[of],
        args={"source": f"{model}/{site}.{position}", "model": model, "site": site,
              "position": position, "texts": of.path},
    )  # fmt: skip
    n = np.array(lengths if lengths is not None else [5] * len(x), np.int32)
    arrays = {"x": x, "n_tokens": n}
    if lengths is not None:
        arrays |= {"offsets": np.concatenate([[0], np.cumsum(n)]).astype(np.int64)}
        arrays |= {"token_ids": np.arange(len(x), dtype=np.int32)}
    dtype = "bfloat16" if x.dtype == np.uint16 else str(x.dtype)
    part = store.write_h5(t.path, arrays, t.record, attrs={"x": {"dtype": dtype}})
    store.publish([t.path], [part])
    return t


def labels(t: plan.Target) -> np.ndarray:
    """0/1 labels of a texts artefact."""
    found = texts.load(t.path).label
    assert found is not None
    return found


def separable(y: np.ndarray, d: int = 6, shift: float = 1.0, seed: int = 0) -> np.ndarray:
    """Random rows float32 [n, d] whose class 1 is moved along the first axis."""
    x = np.random.default_rng(seed).standard_normal((len(y), d))
    x[:, 0] += shift * y
    return x.astype(np.float32)


ENTRY = {"protocol": "contrastive-1", "datasets": ["pairs"], "apply_to": ["rows"]}


def targets(config: dict[str, Any], known: Mapping[str, list[plan.Target]]) -> list[plan.Target]:
    """The probes of a config."""
    return probes.targets(config, known, keys.DigestMemo(config["cache_dir"]))


def run(config: dict[str, Any], known: Mapping[str, list[plan.Target]]) -> list[plan.Target]:
    """Make the probes of a config; returns their targets."""
    found = targets(config, known)
    made = plan.make(config, found, [t.path for t in found])
    for batch in made.batches:
        probes.run(batch, config, 1)
    return found


def make_tables(config: dict[str, Any], made: Sequence[plan.Target]) -> list[str]:
    """Write the tables of these probes; returns the paths of the probes."""
    paths = [t.path for t in made]
    results.make_tables(config, paths, [])
    return paths


def applied(made: Sequence[plan.Target]) -> dict[str, Applied]:
    """The directions among these targets by method; of several sources and test sets the last."""
    return {d.row["method"]: d for d in load_all(t.path for t in made)}


def make_page(
    config: dict[str, Any], paths: Sequence[str], of: Sequence[plan.Target]
) -> tuple[list[str], str]:
    """Figures and page from the written tables; the headline about directions, and the page.

    paths: of the probes; of: the texts.
    """
    read = [t.path for t in of]
    report.make_figures(config, paths)
    report.make_report(config, read)
    vectors.write(config, paths, read)
    root = Path(config["results_dir"]) / config["experiment"]
    lines = directions.headline(results.read_tables(config)["directions"])
    return lines, (root / "report.html").read_text(encoding="utf-8")
