"""What decides the answers of a model, and what else a job needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actprobe.cache.plan import Record, Target


@dataclass(frozen=True, kw_only=True)
class Asks(Record):
    """How prompts become what the model reads: settings of the model, and of its `chat`."""

    prepend_bos: bool | str
    special_tokens_in_text: str
    system: str | None = None
    fold_system: bool | None = None
    variables: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Runs(Record):
    """How the model is run; max_tokens_per_batch: None where the device decides."""

    dtype: str
    attn_implementation: str | None = None
    max_tokens_per_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling(Record):
    """How tokens are drawn."""

    temperature: float
    top_k: int | None = None
    top_p: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class AnswerSpec(Record):
    """What decides answers. prompts: key of their rows; model: what identifies the weights; sampling:
    None for the most likely token; lengths in tokens; stop: strings that end an answer."""

    prompts: str
    model: Mapping[str, Any]
    reads: Asks
    runs: Runs
    max_new_tokens: int
    min_new_tokens: int
    stop: tuple[str, ...]
    sampling: Sampling | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerArgs(Record):
    """The model's name, the file of the prompts, and where the model is."""

    model: str
    prompts: str
    place: Mapping[str, Any]


AnswerTarget = Target[AnswerSpec, AnswerArgs]
