"""What a model can read: how many positions it has, and how many token ids."""

from __future__ import annotations

from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.models import families

# Their positions are counted from the padding token's id: the table holds that many more.
_COUNTED_FROM_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke",
    "markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
_UNLIMITED = 1 << 40  # tokenizers without a limit report a huge number


def position_limit(config: Any, name: str, max_length: int | None) -> int | None:
    """Most tokens that the model has positions for, None when it states none (XLNet says -1).

    config: of transformers. Raises ConfigError when `max_length` asks for more than a table of
    learned positions holds.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    if families.model_type(config.to_dict()) in _COUNTED_FROM_PADDING:
        limit -= text.pad_token_id + 1
    rotary = getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None)
    if max_length and max_length > limit and not rotary:
        raise ConfigError(
            f"models.{name}.max_length: {max_length}, but the model has {limit} positions"
        )
    return limit


def max_tokens(tokenizer: Any, limit: int | None, max_length: int | None) -> int | None:
    """Tokens per row after which a text is cut: `max_length`, else what tokenizer and model take.

    limit: of `position_limit`. None when nothing limits it.
    """
    if max_length:
        return max_length
    stated = [tokenizer.model_max_length, limit]
    limits = [int(n) for n in stated if n is not None and 0 < n < _UNLIMITED]
    return min(limits) if limits else None


def n_embeddings(config: Any) -> int | None:
    """Token ids for which the model has an embedding; None where its config does not say."""
    n = getattr(config.get_text_config(), "vocab_size", None)
    return n if isinstance(n, int) and n > 0 else None
