"""Cached directions and activations in the formats of other tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import texts
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.plan import Target
from actprobe.exchange import gguf
from actprobe.exchange.vectors import runs, write_vectors
from actprobe.imports.caches import positive_first
from actprobe.imports.layouts import (
    INFO,
    METADATA,
    NOTE,
    PARTS,
    PATTERNS,
    STACKED,
    STACKED_ROWS,
    package_name,
)
from actprobe.models import Activations, open_activations
from actprobe.models.hooks import hook_of
from actprobe.results.directions import Applied, load_all
from actprobe.texts import Texts
from actprobe.texts.templates import taken_apart

log = logging.getLogger(__name__)

_BLOCK = 1 << 24  # bytes in memory
_SHOWN = 100  # characters of a question in metadata.json


def vectors(paths: Iterable[str], form: str, out: Path, unit: bool) -> list[Path]:
    """Write the directions among artefacts of `probes` below `out`, a file or folder for each run.

    form: one of `layouts.VECTORS`; unit: directions of norm 1 in safetensors and GGUF (`pt` has
    both). Returns what was written.
    """
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for name, members in runs(load_all(paths)).items():
        if form == "pt":
            write_vectors(out / name, members)
            written.append(out / name)
            continue
        found = {d.row["site"]: d.unit if unit else d.direction for d in members}
        if form == "gguf":
            model = members[0].row["model"]
            path = gguf.write_control_vector(out / f"{name}.gguf", _outputs(name, found), model)
        else:
            path = _safetensors_vectors(out / f"{name}.safetensors", found, members)
        written.append(path)
    return written


def _outputs(name: str, directions: Mapping[str, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    """Directions by the layer whose output they are added to: resid_pre.L is resid_post.(L - 1)."""
    found = {}
    for site, vector in directions.items():
        kind, _, layer = site.partition(".")
        if kind not in ("resid_post", "resid_pre"):
            raise ActprobeError(
                f"{name}: a GGUF control vector is added to the residual stream between layers; "
                f"{site} is not there"
            )
        n = int(layer) - (kind == "resid_pre")
        if n < 1:
            log.warning("%s: %s is left out: llama.cpp adds nothing before layer 1", name, site)
        else:
            found[n] = vector
    return found


def _safetensors_vectors(
    path: Path, directions: Mapping[str, NDArray[Any]], members: Sequence[Applied]
) -> Path:
    from safetensors.numpy import save_file

    first = members[0].row
    facts = {k: str(first[k]) for k in ("dataset", "model", "position", "positive", "method")}
    tensors = {site: np.ascontiguousarray(v, np.float32) for site, v in directions.items()}
    keys = ",".join(d.row["key"] for d in members)
    save_file(tensors, path, {**facts, "keys": keys})
    return path


def activations(targets: Sequence[Target[Any, Any]], form: str, out: Path) -> list[Path]:
    """Write activation artefacts below `out` in one of the formats `layouts.ACTIVATIONS`.

    safetensors, npy: {model}/{dataset}/{site}.{position}.*; saeprobes:
    {position}/model_activations_{model}/{dataset}_{hook}.pt, the package's folder
    `model_cache_path` for each position, with its own names of datasets and its own folder for "OOD
    data"; v1, v2:
    {model}/{dataset}.{kind}.{position}/layer_{L}/… with metadata.json and layer_info.json. Returns
    the files and folders written. Raises ActprobeError for what a format cannot hold.
    """
    if form in ("v1", "v2"):
        return _caches(targets, form, out)
    written = []
    for t in targets:
        a = t.args
        name = Path(a["model"]) / t.item / f"{a['site']}.{a['position']}"
        if form == "saeprobes":
            if a["position"] == "tokens":
                raise ActprobeError(f"{t.name}: layout saeprobes holds one vector per row")
            dataset, ood = _package_name(t)
            file = PATTERNS["saeprobes"].format(dataset=dataset, hook=hook_of(a["site"]))
            path = out / a["position"] / f"model_activations_{a['model']}{'_OOD' * ood}" / file
        else:
            path = out / f"{name}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_activations(t.path) as x:
            if form == "npy":
                _npy(path, x)
            elif form == "safetensors":
                _safetensors(path, x, {**_facts(t), "key": t.key})
            else:
                _save(path, _tensor(x, slice(None)))
        written.append(path)
    return written


def _package_name(t: Target[Any, Any]) -> tuple[str, bool]:
    """See `layouts.package_name`."""
    facts = store.read_header(t.args["texts"])["facts"] if t.args.get("texts") else {}
    return package_name(t.item, facts.get("provenance", {}))


def latents(targets: Sequence[Target[Any, Any]], form: str, out: Path) -> list[Path]:
    """Write latents artefacts below `out` as {source}/{dataset}.* in one of the formats
    `layouts.LATENTS`: CSR arrays in safetensors, or what `scipy.sparse.load_npz` reads. Returns the
    files.

    Raises ActprobeError for two sources that would be one file.
    """
    from scipy.sparse import save_npz

    from actprobe import sae

    written = []
    for t in targets:
        path = out / t.args["source"] / f"{t.item}.{form}"
        if path in written:
            raise ActprobeError(
                f"{t.name}: {path} was written for another source; choose with --source"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        found = sae.open_latents(t.path, t.key)
        if form == "npz":
            save_npz(path, found.to_scipy())
        else:
            sae.save_safetensors(path, found)
        written.append(path)
    return written


def saes(targets: Sequence[Target[Any, Any]], out: Path) -> list[Path]:
    """Write SAEs that were trained here as folders {name} that `sae_lens.SAE.load_from_disk` loads;
    returns them."""
    from actprobe import sae

    return [sae.save_saelens(t.path, out / t.item) for t in targets]


def _facts(t: Target[Any, Any]) -> dict[str, str]:
    names = ("model", "site", "position")
    return {
        "dataset": t.item,
        **{k: getattr(t.args, k) for k in names},
        "spec": json.dumps(t.record),
    }


def _npy(path: Path, a: Activations) -> None:
    """float32 [N, d] (or [T, d]), block by block."""
    memory = np.lib.format.open_memmap(path, "w+", np.float32, a.shape)
    step = max(1, _BLOCK // (4 * a.shape[1]))
    for i in range(0, a.shape[0], step):
        memory[i : i + step] = a[i : i + step]
    memory.flush()


def _safetensors(path: Path, a: Activations, facts: Mapping[str, str]) -> None:
    """`x` in its own dtype with what cuts it, written block by block (format: 8 bytes header
    length, the header as JSON, the data)."""
    kinds = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    small = {"n_tokens": (a.n_tokens, "I32"), "offsets": (a.offsets, "I64"),
             "token_ids": (a.token_ids, "I32")}  # fmt: skip
    size = int(np.prod(a.shape, dtype=np.int64)) * a.x.dtype.itemsize
    header: dict[str, Any] = {"__metadata__": dict(facts)}
    dtype = kinds[a.x.attrs.get("dtype", "float32")]
    header["x"] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [0, size]}
    present = [(name, v, kind) for name, (v, kind) in small.items() if v is not None]
    for name, values, kind in present:
        place = [size, size + values.nbytes]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": place}
        size += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    step = max(1, _BLOCK // (a.x.dtype.itemsize * a.shape[1]))
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for i in range(0, a.shape[0], step):
            f.write(a.x[i : i + step].tobytes())
        for _, values, _ in present:
            f.write(values.tobytes())


def _tensor(a: Activations, rows: Any) -> Any:
    """Rows of x as a torch tensor in the dtype that they have."""
    import torch

    values = torch.from_numpy(a.x[rows])
    return values.view(torch.bfloat16) if a.x.attrs.get("dtype") == "bfloat16" else values


def _save(path: Path, value: Any) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)


def _caches(targets: Sequence[Target[Any, Any]], form: str, out: Path) -> list[Path]:
    """Caches of the evaluation-awareness scripts: v1 stacks [N, 1, d], v2 one [1, T, d] a row."""
    groups: dict[Path, list[Target[Any, Any]]] = {}
    for t in targets:
        kind, _, layer = t.args["site"].partition(".")
        if not layer or (t.args["position"] == "tokens") != (form == "v2"):
            holds = "all tokens" if form == "v2" else "one vector per row"
            raise ActprobeError(f"{t.name}: layout {form} holds {holds} of a layer")
        folder = out / t.args["model"] / f"{t.item}.{kind}.{t.args['position']}"
        groups.setdefault(folder, []).append(t)
    for folder, members in groups.items():
        rows = texts.load(members[0].args["texts"])
        shapes = [_cache_layer(folder, t, rows, form) for t in members]
        layers = sorted(int(t.args["site"].partition(".")[2]) for t in members)
        examples = _metadata(rows, members[0].args["texts"])
        info: dict[str, Any] = {"layers": layers, "num_examples": len(examples)}
        if form == "v2":
            info |= {"storage_format": "individual", "sample_shapes": shapes[0]}
        else:
            info["activation_shape"] = shapes[0][0]
        info["note"] = NOTE
        (folder / INFO).write_text(json.dumps(info, indent=2))
        (folder / METADATA).write_text(json.dumps(examples, indent=2, ensure_ascii=False))
    return list(groups)


def _cache_layer(folder: Path, t: Target[Any, Any], rows: Texts, form: str) -> list[list[int]]:
    """Write one layer; returns the shapes of some examples."""
    layer = folder / f"layer_{t.args['site'].partition('.')[2]}"
    order = dict(zip(PARTS, positive_first(rows), strict=True)) if rows.contrastive else {}
    with open_activations(t.path) as a:
        if form == "v1":
            if order:
                for name, at in zip(STACKED, order.values(), strict=True):
                    _save(layer / name, _tensor(a, at)[:, None])
            else:
                _save(layer / STACKED_ROWS, _tensor(a, slice(None))[:, None])
            return [[1, a.shape[1]]]
        assert a.offsets is not None
        for part, at in (order or {"": np.arange(len(rows))}).items():
            for n, i in enumerate(at):
                tokens = _tensor(a, slice(int(a.offsets[i]), int(a.offsets[i + 1])))
                _save(layer / part / f"{n}.pt", tokens[None])
        return [[1, int(n), a.shape[1]] for n in np.diff(a.offsets)[:3]]


def _metadata(rows: Texts, path: str) -> list[dict[str, Any]]:
    """metadata.json: for pairs the question and both answers, else the question's beginning."""
    template = store.read_header(path)["spec"].get("template") or "{text}"
    if rows.answer is None:
        if rows.label is None:
            raise ActprobeError(f"dataset {rows.dataset}: these layouts need labels")
        kind = np.array(rows.classes, object)[rows.label]
        return [
            {"idx": i, "question": taken_apart(template, t)[:_SHOWN] + "...", "type": k}
            for i, (t, k) in enumerate(zip(rows.text, kind, strict=True))
        ]
    found = []
    for idx, (test, deploy) in enumerate(zip(*positive_first(rows), strict=True)):
        answer, other = rows.answer[test], rows.answer[deploy]
        found.append(
            {
                "idx": idx,
                "question": taken_apart(template, rows.text[test], answer),
                "test_answer": answer,
                "deploy_answer": other,
                "test_token_type": answer[1:2],
                "deploy_token_type": other[1:2],
            }
        )
    return found
