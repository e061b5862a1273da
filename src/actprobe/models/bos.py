"""How a row begins: with the token for the beginning of a text (BOS), and with a sink.

One rule for `models.X.prepend_bos`. `true` puts the tokenizer's BOS before every row that does not
begin with it, `false` leaves out the one that the tokenizer adds. `auto`: what the tokenizer adds
stays (Llama, Gemma, Mistral, OPT), and the models of `PREPENDED`, whose tokenizers add none, get one
as in HookedTransformer of TransformerLens 3; all others have none (Qwen, SmolLM, Bloom, Phi, and
GPT-NeoX, which had one in TransformerLens 2). Nothing is added to a conversation: its template
writes what the model was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.models import families

PREPENDED = ("gpt2", "gpt_neo", "gptj")
# In transformers' list of causal language models, and yet they read both ways.
_BOTH_WAYS = ("bert-generation", "cpmant", "xlnet")


def prepends_bos(tokenizer: Any, model_type: str, model: Mapping[str, Any], name: str) -> bool:
    """Whether rows begin with a BOS that the text does not bring.

    model: its entry in the config. Raises ConfigError where the tokenizer has none to put there.
    """
    wanted = model["prepend_bos"]
    if wanted is True and tokenizer.bos_token_id is None:
        raise ConfigError(
            f"models.{name}.prepend_bos: true, but its tokenizer has no BOS token; put the token "
            "that is to stand first into the texts (datasets: template: '<|endoftext|>{text}')"
        )
    if wanted != "auto":
        return bool(wanted)
    if model["chat"] or not model["add_special_tokens"] or tokenizer.bos_token_id is None:
        return False
    return model_type in PREPENDED or adds_bos(tokenizer)


def planned(model: Mapping[str, Any], config: Mapping[str, Any] | None) -> bool | None:
    """What `prepends_bos` will be, as far as it can be told without the tokenizer.

    model: its entry in our config; config: its `config.json`, None where it cannot be read yet.
    None: its tokenizer decides.
    """
    if model["prepend_bos"] != "auto":
        return bool(model["prepend_bos"])
    if model["chat"] or not model["add_special_tokens"]:
        return False
    return True if config is not None and families.model_type(config) in PREPENDED else None


def rows_begin_with_bos(facts: Mapping[str, Any]) -> bool | None:
    """Whether all rows (True) or none (False) of an activation artefact began with a BOS.

    facts: of its header. None for some rows, and where it does not say (imported activations).
    """
    n, with_bos = facts.get("n_rows"), facts.get("n_bos")
    if n is None or with_bos is None:
        return None
    return {n: True, 0: False}.get(with_bos)


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself puts a BOS before a text."""
    first = list(tokenizer("", add_special_tokens=True)["input_ids"][:1])
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def is_causal(config: Any) -> bool:
    """Whether a position sees only what stands before it.

    config: of transformers. The first position of such a model sees itself alone, whatever the
    text: its activations are hundreds of times larger than the others (an attention sink: Xiao et
    al. 2023, arXiv 2309.17453; massive activations: Sun et al. 2024, arXiv 2402.17762).
    """
    described = config.to_dict()
    text, known = families.text_config(described), families.family(described)
    if text.get("use_bidirectional_attention") or not text.get("is_causal", True):
        return False
    if known is not None:
        return known.causal
    return _is_causal_lm(families.model_type(described)) and not described.get("is_encoder_decoder")


def _is_causal_lm(model_type: str) -> bool:
    from transformers.models.auto import modeling_auto as auto

    return (
        model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and model_type not in _BOTH_WAYS
    )
