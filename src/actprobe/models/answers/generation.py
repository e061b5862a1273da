"""Answers of a causal language model to a batch of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from actprobe.models.answers.records import AnswerSpec, Sampling

END, STOP, LIMIT = 0, 1, 2  # why an answer ended
FINISH = ("end", "stop", "limit")  # their names


@dataclass(frozen=True)
class Speaker:
    """A loaded model and how it answers.

    ends: token ids that end an answer; decode: from token ids to text; how: the spec of the answers.
    """

    model: Any
    pad: int
    ends: Sequence[int]
    decode: Callable[[Sequence[int]], str]
    how: AnswerSpec

    @torch.inference_mode()
    def answer(
        self, prompts: Sequence[np.ndarray], seeds: Sequence[bytes]
    ) -> list[tuple[np.ndarray, int]]:
        """The tokens of each answer, without those that end it, and why it ended.

        prompts: token ids int32 [n] each; seeds: 16 bytes each, of the random numbers of its sampling.
        Rows are padded on the left; what a row is answered does not depend on the others, but for
        rounding.
        """
        longest = max(map(len, prompts))
        ids = np.full((len(prompts), longest), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for i, p in enumerate(prompts):
            ids[i, longest - len(p) :], mask[i, longest - len(p) :] = p, 1
        device = self.model.device
        out = self.model.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            generation_config=self._config(),
            logits_processor=self._processors(longest, seeds),
            stopping_criteria=self._criteria(longest),
        )
        return [self._ended(row) for row in out[:, longest:].cpu().numpy()]

    def _config(self) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,  # sampling chooses among the scores before (`_Sampled`)
            max_new_tokens=self.how.max_new_tokens,
            min_new_tokens=self.how.min_new_tokens,
            eos_token_id=list(self.ends) or None,
            pad_token_id=self.pad,
        )

    def _processors(self, start: int, seeds: Sequence[bytes]) -> LogitsProcessorList:
        sampling = self.how.sampling
        if sampling is None:
            return LogitsProcessorList()
        n = self.how.max_new_tokens
        return LogitsProcessorList([_Sampled(sampling, start, [uniforms(s, n) for s in seeds])])

    def _criteria(self, start: int) -> StoppingCriteriaList:
        stop = self.how.stop
        return StoppingCriteriaList([_Stops(stop, start, self.decode)] if stop else [])

    def _ended(self, tokens: np.ndarray) -> tuple[np.ndarray, int]:
        at = np.flatnonzero(np.isin(tokens, self.ends))
        if len(at):
            return tokens[: at[0]].astype(np.int32), END
        n = _until_stop(tokens.tolist(), self.how.stop, self.decode)
        if n is not None:
            return tokens[:n].astype(np.int32), STOP
        return tokens.astype(np.int32), LIMIT


def uniforms(seed: bytes, n: int) -> np.ndarray:
    """n numbers of [0, 1), float64, that hang on the seed (16 bytes) alone."""
    key = int.from_bytes(seed, "little")
    return np.random.Generator(np.random.Philox(key=key)).random(n)


class _Sampled(LogitsProcessor):
    """Leaves of each row's scores the one that its next random number draws.

    By inversion: the first token at which the cumulated probability passes the number. Temperature,
    top-k and top-p are transformers' own, in the order in which its `generate` applies them.
    """

    def __init__(self, sampling: Sampling, start: int, numbers: Sequence[np.ndarray]) -> None:
        self._start, self._numbers = start, torch.from_numpy(np.stack(numbers))
        self._warpers: list[LogitsProcessor] = [
            TemperatureLogitsWarper(float(sampling.temperature))
        ]
        if sampling.top_k is not None:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(float(sampling.top_p)))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        cumulated = torch.softmax(scores.double(), -1).cumsum(-1)
        number = self._numbers[:, input_ids.shape[1] - self._start].to(scores.device)
        drawn = (cumulated <= number[:, None] * cumulated[:, -1:]).sum(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


class _Stops(StoppingCriteria):
    """Which rows hold a string that stops them, in the text of their last tokens."""

    def __init__(
        self, stop: Sequence[str], start: int, decode: Callable[[Sequence[int]], str]
    ) -> None:
        self._stop, self._start, self._decode = stop, start, decode
        self._tail = max(len(s.encode()) for s in stop) + 4  # no token is less than a byte

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        tails = input_ids[:, self._start :][:, -self._tail :].tolist()
        found = [any(s in self._decode(tail) for s in self._stop) for tail in tails]
        return torch.tensor(found, device=input_ids.device)


def _until_stop(
    tokens: Sequence[int], stop: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> int | None:
    """How many tokens it takes until the text holds a stop string; None where it holds none."""
    if not stop or not any(s in decode(tokens) for s in stop):
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if any(s in decode(tokens[:middle]) for s in stop):
            high = middle
        else:
            low = middle + 1
    return low
