"""Texts, activations and latents artefacts made of random numbers, and the config to probe them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from texts_inputs import hand_made

from actprobe import probes
from actprobe.base import keys
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan, store
from actprobe.cache.plan import Plan, Target
from actprobe.config import Config, resolve
from actprobe.sae import Latents
from actprobe.texts.facts import facts
from actprobe.texts.table import SCHEMA as TEXTS_SCHEMA
from actprobe.texts.table import made


def data(n: int, d: int, seed: int = 0, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """x float32 [n, d] with one direction that tells the alternating labels y [n] apart."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % 2
    direction = rng.standard_normal(d) / np.sqrt(d)
    x = rng.standard_normal((n, d)) + strength * np.outer(y - 0.5, direction)
    return x.astype(np.float32), y


def sparse_data(n: int, width: int, seed: int = 0) -> tuple[Latents, np.ndarray]:
    """Latents like those of an SAE: rare, non-negative, some firing more often in one class."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % 2
    rate = np.minimum(10 ** rng.normal(-1.5, 0.5, width), 0.9)
    effect = np.where(rng.rand(width) < 0.2, rng.normal(0, 1.5, width), 0.0)
    odds = rate / (1 - rate) * np.exp(np.outer(y - 0.5, effect))
    fires = rng.rand(n, width) < odds / (1 + odds)
    values = fires * (0.5 + rng.exponential(1.0, (n, width)))
    return as_latents(values), y


def as_latents(values: np.ndarray) -> Latents:
    """The dense codes [n, width] as they are stored."""
    csr = csr_array(values.astype(np.float32))
    indices, indptr = csr.indices.astype(np.int32), csr.indptr.astype(np.int64)
    return Latents(csr.data, indices, indptr, csr.shape)


class Cache:
    """A cache folder with datasets and their matrices; `plan` plans the probes of a config."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[str, list[Target]] = {"texts": [], "activations": [], "latents": []}

    def texts(
        self,
        name: str,
        label: Sequence[int | None] | np.ndarray,
        text: Sequence[str] | None = None,
        classes: Sequence[str] = ("no", "yes"),
        bad: str | None = None,
        **columns: Sequence[str | None],
    ) -> Target:
        n = len(label)
        text = [f"{name} {i}" for i in range(n)] if text is None else list(text)
        digest = [hashlib.sha256(t.encode()).hexdigest() for t in text]
        rows = hashlib.sha256("".join(digest).encode()).hexdigest()
        listed = {c: list(v) for c, v in columns.items()}
        content = keys.spec_key({"rows": rows, "label": str(label), **listed})
        t = hand_made(self.folder, name, content, rows=rows, columns={c: c for c in columns})
        table = {"id": list(map(str, range(n))), "text": text, "label": list(label)}
        table |= {c: columns.get(c, [None] * n) for c in ("group", "split", "pair")}
        if values := np.asarray(label).dtype.kind == "f":  # continuous
            table |= {"label": pa.nulls(n, pa.int32()), "value": list(label)}
        whole = made({**table, "digest": digest})
        if bad:
            store.write_table(t.path, TEXTS_SCHEMA.empty_table(), t.record, bad=bad)
        else:
            known = None if values or None in label else np.asarray(label, np.int32)
            found = facts(whole.to_pydict(), known, () if values else classes)
            found |= {"kind": "continuous"} if values else {"classes": list(classes)}
            store.write_table(t.path, whole, t.record, found)
        return self._add(t)

    def activations(
        self, dataset: str, x: np.ndarray, model: str = "m", site: str = "resid_post.0",
        position: str = "mean", attrs: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Target:  # fmt: skip
        args = {"source": f"{model}/{site}.{position}", "model": model, "site": site}
        t = plan.target(
            self.folder, "activations", 1, f"{model}/{dataset}/{site}.{position}",
            {"x": hashlib.sha256(x.tobytes()).hexdigest()}, loader=model, item=dataset,
            args={**args, "position": position},
        )  # fmt: skip
        store.write_h5(t.path, {"x": x}, t.record, facts, attrs={"x": attrs or {}})
        return self._add(t)

    def latents(self, dataset: str, x: Latents, sae: str = "sae") -> Target:
        args = {"source": sae, "model": "m", "site": "resid_post.0", "position": "mean"}
        t = plan.target(
            self.folder, "latents", 1, f"{sae}/{dataset}",
            {"x": hashlib.sha256(x.data.tobytes()).hexdigest()}, loader=sae, item=dataset,
            args=args,
        )  # fmt: skip
        arrays = {"data": x.data, "indices": x.indices, "indptr": x.indptr}
        arrays["shape"] = np.array(x.shape)
        store.write_h5(t.path, arrays, t.record)
        return self._add(t)

    def _add(self, t: Target) -> Target:
        store.publish([t.path])
        self.known[t.stage].append(t)
        return t

    def config(self, *entries: Mapping[str, Any], on_bad: str = "stop") -> Config:
        return resolve(
            {
                "experiment": "e", "cache_dir": str(self.folder), "on_bad_dataset": on_bad,
                "max_memory": 2 * 10**9, "probes": list(entries),
            }
        )  # fmt: skip

    def plan(self, config: Config) -> Plan:
        wanted = probes.targets(config, self.known, DigestMemo(self.folder))
        everything = [t for ts in self.known.values() for t in ts] + wanted
        return plan.make(config, everything, [t.path for t in wanted])

    def run(
        self, *entries: Mapping[str, Any], workers: int = 1, on_bad: str = "stop"
    ) -> list[dict[str, Any]]:
        """Plan and run these entries; the rows of all results, in the order of their paths."""
        config = self.config(*entries, on_bad=on_bad)
        planned = self.plan(config)
        for batch in planned.batches:
            probes.run(batch, config, workers)
        return [row for p in sorted(planned.wanted) for row in store.read_table(p).to_pylist()]
