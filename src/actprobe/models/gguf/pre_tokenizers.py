"""Pre-tokenizers of byte-level vocabularies, by their names in GGUF files (`tokenizer.ggml.pre`).

Defined in llama.cpp, `src/llama-vocab.cpp`: patterns that cut a text one after the other, each what the
others left. Where a comment there gives the pattern of the model's own tokenizer, and the one used is
made for an engine without Unicode classes, the model's own stands here. A name that is not here is
refused: another cut gives other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from actprobe.base.errors import BadInput
from actprobe.files.gguf import Header
from actprobe.models.gguf.stated import INSTEAD

KINDS = ("gpt2", "llama")  # byte-level BPE, and SentencePiece's


@dataclass(frozen=True)
class Pre:
    """patterns: in the order in which they cut; whole_words: a word that is a token is not merged from
    its bytes; bos: a text begins with a BOS where the file does not say."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GAPS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_GAPS}"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}{{1,3}}|{_SIGNS}"
_QWEN2 = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}|{_SIGNS}"
_QWEN35 = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_GAPS}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{{0}}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{{0}}"
)
_CASED_SIGNS = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_GAPS}"
_TEKKEN = _CASED.replace("{0}", "") + rf"|\p{{N}}|{_CASED_SIGNS}"
_GPT4O = _CASED.replace("{0}", f"{_ENDINGS}?") + rf"|\p{{N}}{{1,3}}|{_CASED_SIGNS}"
_PUNCTUATED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_GAPS}"
)
_KANA = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_DEEPSEEK_LETTERS = (
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-"
    "ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ"
    "-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    "-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)

_DIGITS = Pre((r"\p{N}", _GPT2))
_OWN = {
    "default": Pre((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": Pre((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": Pre(
        ("[\r\n]", _DEEPSEEK_LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$",
         "[一-龥ࠀ-一가-퟿]+", r"\p{N}+")
    ),
    "deepseek-coder": Pre(
        ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
    ),
    "tekken": Pre((_TEKKEN,), whole_words=True, bos=True),
    "qwen35": Pre((_QWEN35,)),
    "viking": Pre((_BLOOM, r"\p{N}")),
    "minicpm5": Pre((r"\p{N}{1,3}", rf"{_ENDINGS}|{_LETTERS}|\p{{N}}+|{_SIGNS}"), whole_words=True),
    "ufakzeka": Pre((rf"{_LETTERS}|\p{{N}}|{_SIGNS}",)),
    "seed-coder": Pre(
        (rf"{_ENDINGS}|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_GAPS}",)
    ),
    "laguna": Pre((r"[^\n]+|[\n]+", _QWEN2)),
}  # fmt: skip
_SHARED = (
    (Pre((_GPT2,)),
     "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo "
     "jais trillion granite-docling exaone4"),
    (_DIGITS, "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    (Pre((_LLAMA3,), whole_words=True, bos=True),
     "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"),
    (Pre((_LLAMA3,), whole_words=True), "glm4 glm5"),
    (Pre((_LLAMA3,)), "dbrx smaug-bpe chatglm-bpe"),
    (Pre((_QWEN2,)),
     "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2"),
    (Pre((_GPT4O,)), "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (Pre((r"\p{N}{1,3}", _KANA, _PUNCTUATED)), "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (Pre((_BLOOM,)), "bloom poro-chat gpt3-finnish"),
    (Pre((r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
          r"|\s*[\r\n]|\s+(?!\S)|\s+",)), "bailingmoe bailingmoe2 llada-moe"),
)  # fmt: skip

PRE = {**_OWN, **{name: pre for pre, names in _SHARED for name in names.split()}}


def check(header: Header, what: str) -> None:
    """Raise BadInput for a tokenizer that cannot be built with certainty."""
    kind, name = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.pre")
    if kind not in KINDS:
        raise BadInput(
            f"{what}: its tokenizer is of kind {str(kind)[:60]!r} (tokenizer.ggml.model); expected gpt2 "
            f"(byte-level BPE) or llama (SentencePiece's BPE); {INSTEAD}"
        )
    if not header.count("tokenizer.ggml.tokens"):
        raise BadInput(f"{what}: it holds no vocabulary (tokenizer.ggml.tokens)")
    if kind == "gpt2" and name is None:
        raise BadInput(
            f"{what}: it names no pre-tokenizer (tokenizer.ggml.pre), as files from before May 2024: "
            f"how its text is cut is not known; take a newer conversion, or {INSTEAD}"
        )
    if kind == "gpt2" and name not in PRE:
        raise BadInput(
            f"{what}: its pre-tokenizer is {str(name)[:60]!r} (tokenizer.ggml.pre), which is not known; "
            f"{INSTEAD}. Known: {', '.join(sorted(PRE))}"
        )
