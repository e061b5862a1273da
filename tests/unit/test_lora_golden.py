"""Changed numbers need a changed version, or cached files would pass for new ones."""

from __future__ import annotations

import json
from pathlib import Path

import lora_tools as tools
import numpy as np
from safetensors.numpy import save_file

from actprobe.base import keys
from actprobe.cache import store
from actprobe.lora import features, index
from actprobe.lora.catalog import FAMILIES, REPRESENTATIONS
from actprobe.lora.targets import INDEX_VERSION
from actprobe.probes import VERSION

GOLDEN = Path(__file__).parents[1] / "golden" / "lora.json"


def _collection(folder: Path) -> dict:
    """24 LoRAs without random numbers, in two classes that differ in one direction of B."""
    rows = ["id,label"]
    for i in range(24):
        tensors = {}
        for m, module in enumerate(("attn1.to_q", "attn2.to_v")):
            down = np.sin(np.arange(2 * 12).reshape(2, 12) * (1.3 + 0.1 * i) + m)
            up = np.cos(np.arange(10 * 2).reshape(10, 2) * (0.7 + 0.05 * i) + m) * 0.1
            up[i % 2] += 0.5
            stem = f"unet.{tools.BLOCK}.{module}.lora"
            tensors[f"{stem}.down.weight"] = down.astype(np.float32)
            tensors[f"{stem}.up.weight"] = up.astype(np.float32)
        path = folder / "loras" / f"l{i:02d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)
        rows.append(f"l{i:02d},{'ab'[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    loras = {"c": {"files": str(folder / "loras"), "labels": str(folder / "labels.csv"),
                   "representations": [r for r in REPRESENTATIONS if r != "recipe_only"],
                   "sketch": {"product": 3, "projector": 4}}}  # fmt: skip
    probes = [{"sources": ["c/stats"], "methods": ["ridge", "logreg"]}]
    return tools.resolved(folder, loras, probes)


def _digest(values: np.ndarray) -> str:
    """Digest of four significant digits; what is below a millionth of the largest is 0."""
    values = np.where(np.abs(values) < 1e-6 * np.abs(values).max(), 0, values)
    return keys.spec_key({"values": [f"{v:.4g}" for v in np.ravel(values)]})[:16]


def _told(row: dict) -> dict:
    """What the digest of probes is made of: a row's fit, accuracy and hyperparameters."""
    params = json.loads(row["params"])
    del params["unconverged"]
    if "max_depth" in params:
        params["depth"] = params.pop("max_depth")
    told = {k: row[k] for k in ("method", "seed", "test_acc")}
    source = row["source"].partition("/")[2]
    return told | {"source": source, "params": json.dumps(params, sort_keys=True)}


def test_golden(tmp_path: Path) -> None:
    made = tools.run(_collection(tmp_path))
    found = {"index": {"version": INDEX_VERSION}, "probes": {"version": VERSION}}
    loaded = index.Index.open(tools.path_of(made, "c"))
    text = [loaded[c].tolist() for c in ("id", "digest", "rank", "scale")]
    found["index"]["digest"] = keys.spec_key({"rows": text, "modules": loaded.modules})[:16]
    for name, family in FAMILIES.items():
        with store.open_h5(tools.path_of(made, f"c/{name}/all")) as f:
            columns = [_digest(f["x"][:, :, c]) for c in range(f["x"].shape[2])]
        digest = keys.spec_key({"columns": columns})[:16]
        found[f"family {name}"] = {"version": family.version, "digest": digest}
    for name, view in REPRESENTATIONS.items():
        if not view.parts:
            x = features.load(tools.path_of(made, f"c/{name}")).x
            digest = keys.spec_key({"columns": [_digest(c) for c in x.T]})[:16]
            found[name] = {"version": view.version, "digest": digest}
    rows = []
    for t in made.targets.values():
        if t.stage == "probes":
            rows += [_told(r) for r in store.read_table(t.path).to_pylist()]
    rows.sort(key=lambda r: (r["source"], r["method"], r["seed"]))
    found["probes"]["digest"] = keys.spec_key({"rows": rows})[:16]
    golden = json.loads(GOLDEN.read_text())
    changed = {k: v for k, v in found.items() if golden.get(k) != v}
    assert found == golden, (
        "other numbers than before: raise the version in lora/catalog.py (families, "
        "representations) or lora/targets.py (index) or probes/stage.py (probes), then put this into "
        f"tests/golden/lora.json: {json.dumps(changed)}"
    )
