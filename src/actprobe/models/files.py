"""Which files of a model's folder a loader may read, and which of these hold the weights.

The loader is shown these files and no others (`view.py`), and they are what identifies the model.
Names that say nothing about the model are left out, and so are weights in forms that are not read.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from actprobe.base.errors import ConfigError

Read = Callable[[str], Any]  # the content of a JSON file

CONFIG, ADAPTER = "config.json", "adapter_config.json"
# As transformers looks for them, in this order.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX = ".index.json"
_TEMPLATES = "additional_chat_templates"  # the one folder that a tokenizer reads

# Names that say nothing about the model, in any case.
HARMLESS = (
    ".*", "*~", "readme*", "license*", "licence*", "copying*", "notice*", "use_policy*", "changelog*",
    "citation*", "security*", "contributing*", "*.md", "*.rst", "*.pdf", "*.html", "*.ipynb",
    "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp", "*.mp4", "*.csv", "*.log",
    "requirements*.txt", "license*.txt", "model_index.json", "eval_results*", "all_results.json",
    "train_results.json", "test_results.json", "trainer_state.json", "training_args.*",
    "optimizer*", "scheduler*", "scaler*", "rng_state*", "events.out.tfevents*", "latest",
    "*.lock", "*.tmp", "*.part", "*.incomplete", "thumbs.db",
)  # fmt: skip
# Weights and data; of these only the chosen ones are read.
_LARGE = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.ckpt.*", "*.h5", "*.hdf5", "*.msgpack",
    "*.onnx", "*.onnx_data", "*.gguf", "*.ggml", "*.ot", "*.npz", "*.npy", "*.nemo", "*.tflite",
    "*.mlmodel", "*.mlpackage", "*.parquet", "*.arrow", "*.jsonl", "*.dat", "*.db", "*.wav", "*.mp3",
    "*.zip", "*.tar", "*.tar.*", "*.tgz", "*.zst",
    "*.7z", f"*{INDEX}",
)  # fmt: skip

_GROUPS = {
    "config": (CONFIG,),
    "tokenizer": (
        "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
        "*.model", "*.tiktoken", "tekken.json", "chat_template*", f"{_TEMPLATES}/*", "spiece*",
        "*.jinja", "*.vocab", "*.bpe", "*.spm",
    ),
    "code": ("*.py",),
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Files of a model by paths below its folder.

    small: all that a loader may read besides weights; main: the weights file or the index that
    transformers reads; shards: files that hold weights, by parameter where an index says so;
    parameters: parameter -> shard, None without an index.
    """

    small: tuple[str, ...]
    main: str
    shards: tuple[str, ...]
    parameters: Mapping[str, str] | None

    @property
    def all(self) -> tuple[str, ...]:
        """Every file, each once."""
        return tuple(dict.fromkeys((*self.small, self.main, *self.shards)))

    def groups(self) -> dict[str, list[str]]:
        """The files by what they are: weights, config, tokenizer, code and other."""
        found: dict[str, list[str]] = {"weights": sorted({self.main, *self.shards})}
        for name in sorted(set(self.small) - set(found["weights"])):
            found.setdefault(_group(name), []).append(name)
        return found


def _group(name: str) -> str:
    return next((g for g, patterns in _GROUPS.items() if matches(name, patterns)), "other")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of these patterns, whatever the case of its letters."""
    return any(fnmatch.fnmatchcase(name.lower(), p) for p in patterns)


def small(names: Collection[str], described: Iterable[Any] = ()) -> tuple[str, ...]:
    """Files besides weights that a loader may read.

    names: all paths below the folder; described: contents of config files: what they refer to by
    path belongs to the model as well, as do chat templates in their folder.
    """
    named = {v for content in described for v in strings(content)}
    return tuple(
        n
        for n in sorted(names)
        if (
            n in named
            or "/" not in n
            or PurePosixPath(n).parts[0] == _TEMPLATES
            or _within(n, named)
        )
        and not matches(PurePosixPath(n).name, (*HARMLESS, *_LARGE))
        and not matches(n, (ADAPTER, "adapter_model*"))
    )


def is_weights(path: str) -> bool:
    """Whether a path is one of weights, or of their index."""
    return matches(PurePosixPath(path).name, _LARGE)


def _within(name: str, folders: Collection[str]) -> bool:
    """Whether a file lies in a folder that is named by a path of at least two parts."""
    return any(str(p) in folders for p in list(PurePosixPath(name).parents)[:-2])


def strings(value: Any) -> Iterable[str]:
    """Every text in the content of a JSON file, as a path below its folder."""
    if isinstance(value, str):
        yield value.removeprefix("./").rstrip("/")
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from strings(v)
    elif isinstance(value, list):
        for v in value:
            yield from strings(v)


def find(names: Collection[str], read: Read, adapter: str | None, where: str, place: str) -> Files:
    """The files of a model among these paths.

    read: gives the content of a JSON file, None where it is not here yet (then the shards stay
    unknown); adapter: the key of the config; where: that key's model, place: what its folder is
    called, both for messages. Raises ConfigError saying what is missing, or what cannot be decided
    without being told.
    """
    if CONFIG not in names:
        raise ConfigError(f"{where}.source: {place}: {no_config(names)}")
    config = read(CONFIG)
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where}.source: {place}/{CONFIG} holds no JSON object")
    if ADAPTER in names and adapter is None:
        raise ConfigError(f"{where}: {place} {_BOTH.format(where=where)}")
    main = _main(names, config, f"{where}.source: {place}")
    tokenizer = read("tokenizer_config.json") if "tokenizer_config.json" in names else None
    rest = small(names, [config, tokenizer])
    if not main.endswith(INDEX):
        return Files(rest, main, (main,), None)
    index = read(main)
    if index is None:
        return Files(rest, main, (), None)
    parameters = _weight_map(index, f"{where}.source: {place}: {main}")
    folder = PurePosixPath(main).parent
    by_name = {p: str(folder / shard) for p, shard in parameters.items()}
    shards = tuple(sorted(set(by_name.values())))
    if missing := [s for s in shards if s not in names]:
        raise ConfigError(
            f"{where}.source: {place}: {main} names {missing[0]}, which is not there "
            f"({len(missing)} of {len(shards)} files of weights are missing)"
        )
    return Files(rest, main, shards, by_name)


_BOTH = (
    f"holds an adapter ({ADAPTER}) beside the weights: whether it is applied would depend on the "
    "packages installed. Write {where}.adapter: ignore for the model without it; for the model with "
    "it merge the two (peft: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(FOLDER), "
    "and the tokenizer likewise) and give that folder"
)


def _weight_map(index: Any, what: str) -> Mapping[str, str]:
    found = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"{what} has no weight_map")
    for shard in found.values():
        if not isinstance(shard, str) or PurePosixPath(shard).is_absolute() or ".." in shard:
            raise ConfigError(f"{what} names a file outside of the folder: {shard!r}")
    return found


def _main(names: Collection[str], config: Mapping[str, Any], what: str) -> str:
    """The weights file or index that transformers reads."""
    if given := config.get("transformers_weights"):
        if given not in names:
            raise ConfigError(f"{what}: {CONFIG} names {given!r} as its weights, not there")
        return str(given)
    for name in WEIGHTS:
        if name in names:
            return name
    raise ConfigError(f"{what} has no weights ({', '.join(WEIGHTS)}){_instead(names)}")


def _instead(names: Collection[str]) -> str:
    """What stands in place of the weights that are expected, and what to do about it."""
    for pattern, remedy in {
        "*.gguf": GGUF,
        "adapter_model.*": f"a LoRA adapter alone: {_MERGE}",
        "model-0*-of-*.safetensors": "shards whose index is missing: fetch model.safetensors"
        f"{INDEX} as well",
        "pytorch_model-0*-of-*.bin": f"shards whose index is missing: fetch pytorch_model.bin{INDEX}"
        " as well",
        "model.*.safetensors": "a variant of the weights: rename it to model.safetensors, or load it "
        "with variant=… and save_pretrained it",
        "consolidated*": "the form of its maker's own code: take the repository or folder in "
        "transformers' form (config.json and model.safetensors)",
        "*.h5": "weights for TensorFlow: save them with transformers 4 for PyTorch",
        "*.msgpack": "weights for Flax: save them with transformers 4 for PyTorch",
    }.items():
        if found := sorted(n for n in names if matches(n, (pattern,))):
            return f"; it holds {found[0]}, {remedy}"
    return ""


_MERGE = (
    "merge it into its base model (peft: PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload()"
    ".save_pretrained(FOLDER), and the tokenizer likewise) and give that folder, or list it under "
    "`loras`"
)
GGUF = (
    "which is read as a file of its own: write source: FOLDER/FILE.gguf (of several, the one whose "
    "precision you want)"
)


def no_config(names: Collection[str]) -> str:
    """Why a folder with these files is no model, and what to write instead."""
    below = sorted({str(PurePosixPath(n).parent) for n in names if n.endswith(f"/{CONFIG}")})
    gguf = sorted(n for n in names if n.lower().endswith(".gguf"))
    if gguf:
        return f"no model here: it holds {gguf[0]}, {GGUF}"
    if ADAPTER in names:
        return f"no model here: it holds a LoRA adapter alone: {_MERGE}"
    if below:
        more = ", …" if len(below) > 6 else ""
        return (
            f"no model here ({CONFIG} is not there), but in {', '.join(below[:6])}{more}: write "
            f"subfolder: {below[0]}"
        )
    return f"no model here ({CONFIG} is not there)"
