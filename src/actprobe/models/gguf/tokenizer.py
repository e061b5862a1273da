"""The tokenizer that a GGUF file describes, as files that transformers loads.

Built as llama.cpp reads the file (`src/llama-vocab.cpp`): transformers' own builder drops most of the
pre-tokenizers that files name, and re-spells special tokens that are no plain letters. Ids are compared
with llama.cpp's in `benchmarks/gguf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Header
from actprobe.models.gguf.pre_tokenizers import PRE, Pre, check

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # of tokenizer.ggml.token_type
_SPACE = "▁"
_PHI3_PLAIN = (
    "<unk>",
    "<s>",
    "<|endoftext|>",
)  # the others of Phi-3 take the white space behind them
# Ids of llama.cpp where a file of this kind names none.
_USUAL = {"llama": {"bos": 1, "eos": 2, "unknown": 0}}


def write(header: Header, what: str, folder: Path) -> None:
    """Write the tokenizer's files to a folder.

    header: with its vocabulary. Raises BadInput for one that cannot be built with certainty.
    """
    check(header, what)
    kind, tokens = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.tokens")
    if not all(isinstance(t, str) for t in tokens) or len(set(tokens)) != len(tokens):
        raise BadInput(f"{what}: its vocabulary names a token twice, or one that is no text")
    if kind == "gpt2":
        pre = PRE[header.get("tokenizer.ggml.pre")]
        backend, bos = _byte_level(header, tokens, pre, what), pre.bos
    else:
        backend, bos = _sentencepiece(header, tokens, what), True
    _add_tokens(backend, header, tokens)
    named = _named(header, tokens, str(kind))
    _frame(backend, header, named, tokens, bos)
    template = header.get("tokenizer.chat_template")
    length = header.get(f"{header.get('general.architecture')}.context_length")
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **({"model_max_length": length} if isinstance(length, int) else {}),
        **({"chat_template": template} if isinstance(template, str) else {}),
        **{f"{name}_token": token for name, token in named.items()},
    ).save_pretrained(folder)


def _byte_level(header: Header, tokens: Sequence[str], pre: Pre, what: str) -> Tokenizer:
    merges = header.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise BadInput(f"{what}: it holds no merges (tokenizer.ggml.merges)")
    vocabulary = {t: i for i, t in enumerate(tokens)}
    # A space in the first place belongs to the token: llama.cpp looks for the next one.
    pairs = [(m[:at], m[at + 1 :]) for m in merges if (at := m.find(" ", 1)) > 0]
    known = [
        p for p in pairs if p[0] in vocabulary and p[1] in vocabulary and "".join(p) in vocabulary
    ]
    backend = Tokenizer(models.BPE(vocabulary, known, ignore_merges=pre.whole_words))
    cuts = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in pre.patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(header: Header, tokens: Sequence[str], what: str) -> Tokenizer:
    scores = header.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise BadInput(f"{what}: it has no score for each token (tokenizer.ggml.scores)")
    vocabulary = {t: i for i, t in enumerate(tokens)}
    kinds = _kinds(header, tokens)
    whole = {
        t for t, k in zip(tokens, kinds, strict=True) if k in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    }
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)), whole)
    unknown = _named(header, tokens, "llama").get("unk")
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = header.get("tokenizer.ggml.add_space_prefix", True)
    spaced = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*spaced, normalizers.Replace(" ", _SPACE)])
    first = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *first]
    )
    return backend


def _kinds(header: Header, tokens: Sequence[str]) -> list[int]:
    found = header.get("tokenizer.ggml.token_type")
    return found if isinstance(found, list) and len(found) == len(tokens) else [1] * len(tokens)


def _add_tokens(backend: Tokenizer, header: Header, tokens: Sequence[str]) -> None:
    """Tokens that are found whole in a text, before it is cut."""
    strips = any(n in str(header.get("general.name")).lower() for n in ("phi-3", "phi3"))
    for t, kind in zip(tokens, _kinds(header, tokens), strict=True):
        if not t or kind not in (_UNKNOWN, _CONTROL, _USER_DEFINED):
            continue
        special = kind != _USER_DEFINED
        bare = strips and t not in _PHI3_PLAIN
        token = AddedToken(t, normalized=False, special=special, rstrip=bare)
        (backend.add_special_tokens if special else backend.add_tokens)([token])


def _named(header: Header, tokens: Sequence[str], kind: str) -> dict[str, str]:
    """The tokens with a role, by transformers' names for it."""
    names = {
        "bos": "bos",
        "eos": "eos",
        "unknown": "unk",
        "padding": "pad",
        "seperator": "sep",
        "mask": "mask",
    }
    found = {}
    for key, name in names.items():
        n = header.get(f"tokenizer.ggml.{key}_token_id", _USUAL.get(kind, {}).get(key))
        if isinstance(n, int) and 0 <= n < len(tokens):
            found[name] = tokens[n]
    return found


def _frame(
    backend: Tokenizer, header: Header, named: dict[str, str], tokens: Sequence[str], bos: bool
) -> None:
    """What stands before and behind every text."""
    wanted = {
        "bos": header.get("tokenizer.ggml.add_bos_token", bos),
        "eos": header.get("tokenizer.ggml.add_eos_token", False),
    }
    there = {k: named[k] for k, yes in wanted.items() if yes and k in named}
    before, behind = there.get("bos", ""), there.get("eos", "")
    after: Any = processors.ByteLevel(trim_offsets=False)
    if there:
        ids = {t: i for i, t in enumerate(tokens)}
        after = processors.TemplateProcessing(
            single=[p for p in (before, "$A", behind) if p],
            special_tokens=[(t, ids[t]) for t in there.values()],
        )
    backend.post_processor = after
