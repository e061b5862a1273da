"""Sizes of models, SAEs and datasets, as far as they can be known before anything is loaded.

Small files only: `config.json` of a model, the header of an SAE and of a texts artefact. What
cannot be read yet has a stated default. Light: no array library is imported.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.plan import Plan, Target
from actprobe.config import Config
from actprobe.files import hub
from actprobe.models import families
from actprobe.models.described import described
from actprobe.models.differences import MINUS
from actprobe.sae.formats import describe
from actprobe.sae.records import HubPlace, Place
from actprobe.sae.sources import open_place

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Means over the 113 datasets of SAE-Probes (334,092 rows, about 3.6e7 tokens); bytes of a CSV.
MEAN_ROWS, MEAN_ROW_BYTES, BYTES_PER_TOKEN = 2957, 430, 4.0
# A model of which nothing is known, a 7B decoder; the mean L0 of the SAEs of SAE-Probes.
LAYERS, D_MODEL, L0 = 32, 4096, 107
_UNGATED = {
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2", "mpnet", "distilbert",
    "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "codegen", "phi", "opt", "biogpt",
    "starcoder2", "nemotron", "arcee", "apertus",
}  # fmt: skip
_MLP = ("intermediate_size", "n_inner", "encoder_ffn_dim", "ffn_dim", "d_ff", "hidden_dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_COMPRESSED = {".zst": 4.0, ".parquet": 2.5}  # bytes of text in a byte of the file
_ROW_BYTES = 36  # of a row of a texts artefact beside its text: id, label, digest


@dataclass(frozen=True)
class Rows:
    """A dataset: rows and bytes of text; known is False when the rows are a guess."""

    n: int
    text_bytes: float
    known: bool

    def tokens(self, max_length: int | None = None) -> float:
        """Tokens that a model reads."""
        return min(self.text_bytes / BYTES_PER_TOKEN + self.n, self.n * (max_length or 1 << 30))


def datasets(plan: Plan) -> dict[str, Rows]:
    """Every dataset of a plan by name; rows stand in the header of its texts once these are there.

    A job sees less of the plan than the main process, but the same rows.
    """
    return {item(path): _rows(path, plan.targets[path]) for path in plan.paths("texts")}


def item(path: str) -> str:
    """The dataset of a texts artefact: its name without key and extension."""
    return Path(path).name.rsplit(".", 2)[0]


def _rows(path: str, t: Target) -> Rows:
    try:
        n = store.read_header(path)["facts"].get("n", 0)
        text = (os.path.getsize(path) - n * _ROW_BYTES) * _COMPRESSED[".parquet"]
        return Rows(n, max(text, BYTES_PER_TOKEN * n), True)
    except (ActprobeError, OSError):
        size = float(t.args.bytes)  # 1: a member of a wheel
        size *= _COMPRESSED.get(Path(t.args.file).suffix, 1.0) if size > 1 else 0
        size = size or MEAN_ROWS * MEAN_ROW_BYTES
        return Rows(max(1, round(size / MEAN_ROW_BYTES)), size, False)


@dataclass(frozen=True)
class Model:
    """A model: width, MLP width, width of all heads together, parameters of the embedding, of a
    layer, and of a layer that a token passes through (fewer with experts); bytes of a parameter in
    its files."""

    layers: int
    d: int
    mlp: int
    heads: int
    embedding: int
    layer: int
    active: int
    file_bytes: int

    def width(self, site: str) -> int:
        """d of the vectors at a site."""
        return {"z": self.heads, "mlp_post": self.mlp}.get(site.partition(".")[0], self.d)

    def weights(self, layers: int, dtype: str) -> tuple[float, float]:
        """Bytes of the first layers in memory, and of what is read from the files to make them."""
        n = self.embedding + layers * self.layer
        return n * BYTES[dtype], n * self.file_bytes


def model(config: Config, name: str) -> Model:
    """The model `name` of a config, from its `config.json` if that can be read.

    What the file does not say, or says in a form of its own, has a stated default.
    """
    # A difference has the shapes of what it is taken of.
    settings = config.models.get(name) or config.models.get(name.partition(MINUS)[0])
    said = described(config, settings) if settings else {}
    text, number = families.text_config(said), families.number
    d = families.d_model(said) or (settings and settings.d_model) or D_MODEL
    layers = families.n_layers(said) or (settings and settings.n_layers) or LAYERS
    mlp = number(text, *_MLP) or 4 * d
    heads = number(text, *_HEADS) or max(1, d // 64)
    width = heads * (number(text, "head_dim") or max(1, d // heads))
    share = min(1.0, (number(text, "num_key_value_heads") or heads) / heads)
    attention = round(d * width * (2 + 2 * share))
    expert = d * (number(text, "moe_intermediate_size") or mlp)
    expert *= 2 if families.model_type(said) in _UNGATED else 3
    experts = number(text, "num_local_experts", "num_experts", "n_routed_experts") or 1
    used = min(experts, number(text, "num_experts_per_tok") or 1)
    unknown = settings.dtype if settings and not said else "float32"
    stored = str(text.get("dtype") or text.get("torch_dtype") or unknown)
    return Model(
        layers, d, mlp, width, (number(text, "vocab_size") or 50_000) * d,
        attention + experts * expert, attention + used * expert, BYTES.get(stored, 2),
    )  # fmt: skip


_NUMBER_BYTES = {"csv": 10, "tsv": 10}  # of one number in a file of features; else 4


def array_width(t: Target | None, rows: Rows) -> int:
    """Features of an `arrays` target, from the size of its file."""
    if t is None:
        return D_MODEL
    return max(1, round(t.cost / rows.n / _NUMBER_BYTES.get(t.spec.format, 4)))


@dataclass(frozen=True)
class Sae:
    """An SAE: width of its input, latents, and latents that fire on a row."""

    d: int
    latents: int
    l0: int


def sae(config: Config, name: str, place: Place) -> Sae:
    """The SAE `name` of a config: described by its files, which lie at `place`, or by its training."""
    settings = config.saes.get(name)
    if settings and settings.train:
        return Sae(width(config, name), settings.train.width, settings.train.k)
    try:
        if isinstance(place, HubPlace):  # what is not here yet is not asked for
            folder = hub.snapshot(place.repo, place.revision) / place.folder
            found = describe(folder, place.format)
        else:
            found = open_place(place)
        return Sae(found.d_in, found.d_sae, found.k or _named_l0(str(found.weights)) or L0)
    except (ActprobeError, OSError, KeyError):
        d = width(config, name) if settings else D_MODEL
        called = place.folder if isinstance(place, HubPlace) else ""
        return Sae(d, _named_width(called) or 16 * d, _named_l0(called) or L0)


def width(config: Config, name: str) -> int:
    """d of the activations that the SAE `name` of a config encodes."""
    settings = config.saes[name]
    return model(config, settings.model).width(settings.site)


def _named_width(folder: str) -> int | None:
    """Latents, as the folders of Gemma Scope are called: width_16k, width_1m."""
    found = re.search(r"width_(\d+)([km])", folder)
    return int(found[1]) * {"k": 1 << 10, "m": 1 << 20}[found[2]] if found else None


def _named_l0(folder: str) -> int | None:
    found = re.search(r"average_l0_(\d+)", folder)
    return int(found[1]) if found else None
