"""Tensor names of the LoRA dialects, brought to one canonical module name.

A canonical name is the component (unet, text_encoder, ...) and the module's path, every "." an "_":
kohya files store paths that way, and underscored paths cannot be split back. `to_out.0` is folded
into `to_out`, `.processor.` is dropped, ComfyUI's `diffusion_model` is kohya's `unet`, and the original
Stable Diffusion names (input_blocks, middle_block, output_blocks; in_layers, …) become those of
diffusers. A text encoder's layers have one name with and without `text_model.`, which transformers 5
and diffusers 0.42 leave away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

from actprobe.base.errors import BadInput

# Adapters that are not a product B·A, by how a part of a tensor name begins.
_OTHER_KINDS = {
    "dora_scale|lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "a LoRA with a Tucker core",
    "diff(_b)?$": "a full weight difference",
    "[wb]_norm$": "a difference of a normalisation",
    "b?oft_": "OFT",
    "ia3_": "IA3",
    "p?vera_": "VeRA",
    "lora_E|ranknum": "AdaLoRA",
    "(internal_)?xlora_": "X-LoRA",
    "lora_diag": "KaSA",
    "lora_monteclora": "MonteCLoRA",
    "vblora_": "VB-LoRA",
    "(rand|de|gra|g|tiny|uni|poly_)lora_": "a relative of LoRA",
    "(fourierft|waveft|shira|hra|hira|c3a|miss|bone|road|lily|psoft|deft|osf)_": "another adapter",
    "prompt_embeddings|adaption_": "a learned prompt",
}
_OTHERS = [(re.compile(rf"(^|\.)({sign})"), kind) for sign, kind in _OTHER_KINDS.items()]
# Tensors beside the LoRA that leave its W alone: parts of the model that were trained as a whole
# (modules_to_save, biases, embeddings), a bias of B, and LoRAs on embeddings.
_EXTRA = re.compile(
    r"(?!.*lora)(?:.+\.)?(?:in_proj_)?(?:weight|bias)"
    r"|.+\.lora_B(?:\.[^.]+)?\.bias"
    r"|.+\.lora_embedding_[AB](?:\.[^.]+)?"
    r"|.+\.lora_velora_embed(?:\.[^.]+)?"
    r"|.+\.trainable_tokens_(?:delta|original)(?:\.[^.]+)?"
)
_DOWN = {"down": True, "A": True, "up": False, "B": False}
_PATTERNS = [
    ("diffusers", re.compile(r"(?P<path>.+)\.lora(?:_linear_layer)?\.(?P<side>down|up)\.weight")),
    (
        "diffusers-old",
        re.compile(r"(?P<path>.+\.to_(?:q|k|v|out))_lora\.(?P<side>down|up)\.weight"),
    ),
    ("peft", re.compile(r"(?P<path>.+)\.lora_(?P<side>A|B)(?:\.(?P<adapter>[^.]+))?\.weight")),
    ("kohya", re.compile(r"(?P<path>.+)\.lora_(?P<side>down|up)\.weight")),
]
_ALPHA = re.compile(r"(?P<path>.+)\.alpha")
_COMPONENTS = ("unet", "transformer", "transformer_2", "prior", "text_encoder", "text_encoder_2",
               "text_encoder_3", "diffusion_model")  # fmt: skip
_KOHYA = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "lora_transformer_": "transformer",
}
_GUESS = {
    "down_blocks": "unet",
    "mid_block": "unet",
    "up_blocks": "unet",
    "conv_in": "unet",
    "conv_out": "unet",
    "time_embedding": "unet",
    "add_embedding": "unet",
    "transformer_blocks": "transformer",
    "single_transformer_blocks": "transformer",
    "text_model": "text_encoder",
}
# Attention of old text-encoder files is named as in the unet.
_TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
# What a Stable Diffusion unet has outside its blocks, by its original names.
_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_LAYERS = 2  # residual layers per block in every Stable Diffusion unet
_CONVOLUTIONS = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


@dataclass
class Pair:
    """The tensor names of one module; `path` is the module's own path as the file writes it."""

    path: str = ""
    down: str = ""
    up: str = ""
    alpha: str = ""


@dataclass
class Names:
    """What a file's tensor names say: its dialects (joined by "+"), its modules by name, and the
    tensors that belong to none of them and leave their W alone (`extra`)."""

    dialect: str = ""
    modules: dict[str, Pair] = field(default_factory=dict)
    extra: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def parse(keys: tuple[str, ...], saved: tuple[str, ...] = ()) -> Names:
    """Pair the tensor names of one file by module. Cached: most files of a collection agree.

    saved: modules whose tensors are extra whatever they are called (PEFT's modules_to_save). Raises
    BadInput naming the first tensor that is not understood, another kind of adapter, a second
    adapter, a module named twice or a factor without its partner.
    """
    dialects: set[str] = set()
    adapters: set[str] = set()
    modules: dict[str, Pair] = defaultdict(Pair)
    alphas: dict[str, str] = {}
    extra: list[str] = []
    for key in keys:
        dialect, path, side, adapter = _split(key, saved)
        if side == "extra":
            extra.append(key)
            continue
        name, dialect = canonical(path, dialect)
        if side == "alpha":
            if name in alphas:
                raise BadInput(f"{alphas[name]} and {key} are the same module")
            alphas[name] = key
            continue
        dialects.add(dialect)
        adapters.add(adapter)
        if len(adapters) > 1:
            raise BadInput(f"{len(adapters)} adapters in one file: {', '.join(sorted(adapters))}")
        pair = modules[name]
        if getattr(pair, side):
            raise BadInput(f"{getattr(pair, side)} and {key} are the same module")
        setattr(pair, side, key)
        pair.path = path
    if extra and not any("peft" in d for d in dialects):  # programs of PEFT alone write them
        raise BadInput(f"unknown tensor {extra[0]}" + ("" if modules else " and no LoRA in it"))
    if not modules:
        raise BadInput("no LoRA tensors in it")
    for name, pair in modules.items():
        if not (pair.down and pair.up):
            raise BadInput(
                f"{pair.down or pair.up} has no partner ({'up' if pair.down else 'down'})"
            )
        pair.alpha = alphas.pop(name, "")
    if alphas:
        raise BadInput(f"{next(iter(alphas.values()))} belongs to no module")
    found = {n: modules[n] for n in sorted(modules)}
    return Names("+".join(sorted(dialects)), found, tuple(extra))


def belongs(key: str) -> bool:
    """True for the names of factors and alphas: the tensors that a LoRA is made of."""
    return any(p.fullmatch(key) for _, p in _PATTERNS) or _ALPHA.fullmatch(key) is not None


def _split(key: str, saved: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Dialect, module path, "down", "up", "alpha" or "extra", and adapter's name of a tensor name."""
    for dialect, pattern in _PATTERNS:
        if m := pattern.fullmatch(key):
            adapter = m.groupdict().get("adapter") or "default"
            return dialect, m["path"], "down" if _DOWN[m["side"]] else "up", adapter
    for sign, kind in _OTHERS:
        if sign.search(key):
            raise BadInput(f"{kind} is not supported (tensor {key}); expected a plain LoRA")
    if m := _ALPHA.fullmatch(key):
        return "", m["path"], "alpha", ""
    if _EXTRA.fullmatch(key) or any(f".{name}." in f".{key}" for name in saved):
        return "", key, "extra", ""
    raise BadInput(f"unknown tensor {key}")


def canonical(path: str, dialect: str = "") -> tuple[str, str]:
    """Canonical name of a module path, and the dialect, which the component decides for PEFT stems.

    >>> canonical("unet.mid_block.attentions.0.proj_in", "diffusers")[0]
    'unet_mid_block_attentions_0_proj_in'
    """
    prefix = next((p for p in _KOHYA if path.startswith(p)), "")
    if prefix:
        component, path = _KOHYA[prefix], path.removeprefix(prefix)
    elif path.startswith("lora_"):
        raise BadInput(f"unknown prefix of {path}; expected one of {', '.join(_KOHYA)}")
    else:
        if (
            ".base_layer" in path
        ):  # PEFT's target_parameters; of a MultiheadAttention it adds W twice
            raise BadInput(f"{path}: one LoRA inside another is not supported")
        bare = path.removeprefix("base_model.model.")
        first, _, rest = bare.partition(".")
        if first in _COMPONENTS and rest:
            component = "unet" if first == "diffusion_model" else first
            # GPT-2's blocks are called "transformer", too: PEFT's own prefix tells.
            dialect = "diffusers-peft" if dialect == "peft" and bare == path else dialect
        else:
            component, rest = _GUESS.get(first, ""), bare
        path = rest
    folded = path.replace(".processor.", ".").replace(".", "_")
    if component.startswith("text_encoder"):
        folded = folded.removeprefix("text_model_")
        if dialect == "diffusers-old":
            folded = re.sub(r"to_(q|k|v|out)$", lambda m: _TEXT_PROJECTIONS[m[0]], folded)
    folded = re.sub(r"to_out_0$", "to_out", folded)
    if component == "unet" and folded in _OUTSIDE:
        folded = _OUTSIDE[folded]
    elif component in ("unet", ""):
        folded = _diffusers_block(folded)
    return (f"{component}_{folded}" if component else folded), dialect


def _diffusers_block(name: str) -> str:
    """Rename blocks of the original Stable Diffusion layout to those of diffusers.

    Block i of input_blocks is layer (i-1) mod 3 of down block (i-1) div 3, block i of
    output_blocks layer i mod 3 of up block i div 3; inside, 0 is the resnet and 1 the attention.
    Down blocks end in a convolution `op`, up blocks in `conv`.
    """
    m = re.match(r"(input_blocks|middle_block|output_blocks)_(\d+)_(?:(\d+)_)?(.*)", name)
    if m is None:
        return name
    i = int(m[2])
    if m[1] == "middle_block":
        kind, layer = ("attentions", 0) if i == 1 else ("resnets", i // 2)
        return f"mid_block_{kind}_{layer}_" + (f"{m[3]}_" if m[3] else "") + _inner(m[4])
    side, at = ("down", i - 1) if m[1] == "input_blocks" else ("up", i)
    block, layer = divmod(at, _LAYERS + 1)
    if at >= 0 and m[4] in ("op", "conv"):
        return f"{side}_blocks_{block}_{side}samplers_0_conv"
    if m[3] not in ("0", "1") or at < 0:
        raise BadInput(f"the block name {name} has no counterpart in diffusers' naming")
    return f"{side}_blocks_{block}_{('resnets', 'attentions')[int(m[3])]}_{layer}_{_inner(m[4])}"


def _inner(name: str) -> str:
    """diffusers' name of a layer inside a block; those of attentions are the same."""
    return _CONVOLUTIONS.get(name, name)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """True when a canonical module name fits one of these globs; dots in a glob mean "_"."""
    return any(fnmatchcase(name, p.replace(".", "_")) for p in patterns)
