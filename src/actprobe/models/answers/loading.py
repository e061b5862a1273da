"""A model that answers: its tokenizer and template, and its weights with the head."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.models import adapters, bos, load, quantised
from actprobe.models.answers.generation import Speaker
from actprobe.models.answers.records import AnswerSpec, AnswerTarget
from actprobe.models.located import explained, located
from actprobe.models.reading import Reading, reading
from actprobe.models.session import rounding
from actprobe.models.view import View, everything
from actprobe.texts import Texts


class Described:
    """A model as its files describe it; its weights are loaded when they are needed."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        where: View,
        config: Any,
        tokenizer: Any,
        worn: Sequence[adapters.Adapter],
    ) -> None:
        self.name, self.settings, self._where, self._config = name, settings, where, config
        self._tokenizer, self._adapters = tokenizer, worn
        self._reading = reading(tokenizer, config, name, {**settings, "max_length": None})
        self.device = load.pick_device(settings["device"])

    def prompts(self, rows: Texts, most_new: int, item: str) -> list[np.ndarray]:
        """The token ids of each prompt, with what begins the assistant's answer.

        Raises BadInput naming a row that the template refuses, or that with its answer would be longer
        than what the model holds.
        """
        whole: Reading = replace(self._reading, most=None)
        names = rows.id.tolist()
        try:
            tokens = whole.encode(rows.rows, names, prompt=True)
            most = self._reading.most
            long = np.flatnonzero(tokens.lengths + most_new > (most or np.inf))
            if len(long):
                raise BadInput(
                    f"row {names[long[0]]!r} has {tokens.lengths[long[0]]} tokens; with max_new_tokens "
                    f"{most_new} these are more than the {most} that the model holds ({len(long)} such "
                    "rows)"
                )
        except BadInput as e:
            raise BadInput(f"{self.name} on {item}: {e}") from e
        return [tokens.ids[tokens.row(i)] for i in range(len(names))]

    @property
    def loaded(self) -> bool:
        """Whether weights were loaded."""
        return "model" in vars(self)

    @cached_property
    def model(self) -> Any:
        """The model with its head and adapters."""
        found = _weights(self._where, self.name, self.settings, self._config, self.device)
        return adapters.put_on(found, self._adapters, self.settings["merge_adapters"], self.name)

    def speaker(self, how: AnswerSpec) -> Speaker:
        """The model, set to answer in this way."""
        tokenizer, ends = self._tokenizer, self._ends()
        pad = tokenizer.pad_token_id
        pad = pad if pad is not None else ends[0] if ends else 0
        return Speaker(self.model, pad, ends, partial(decoded, tokenizer), how)

    def _ends(self) -> list[int]:
        """The tokens that end an answer: those of the model's own settings, and the tokenizer's."""
        given = self.model.generation_config.eos_token_id
        own = given if isinstance(given, list) else [given]
        return sorted({*own, self._tokenizer.eos_token_id} - {None})

    def facts(self) -> dict[str, str]:
        """What rounding depends on, besides the spec."""
        found = rounding(self._config.to_dict(), self.settings, self.device)
        return found | {"device": self.device.type}


@contextlib.contextmanager
def described(name: str, settings: Mapping[str, Any], t: AnswerTarget) -> Iterator[Described]:
    """The model of a target, with everything checked that needs no weights."""
    with (
        located(t.args.place, name) as where,
        tempfile.TemporaryDirectory(prefix="actprobe-adapters-") as scratch,
    ):
        config = load.load_config(where, name, settings)
        if not bos.is_causal(config):
            raise ConfigError(f"models.{name} generates no text: it is no causal language model")
        quantised.check(config, settings, name, load.pick_device)
        worn = adapters.gathered(t.args.place, Path(scratch))
        adapters.check(config, worn, name, where.trusted)
        tokenizer = load.load_tokenizer(where, name)
        yield Described(name, settings, where, config, tokenizer, worn)


def decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of an answer's tokens."""
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _weights(
    where: View, name: str, settings: Mapping[str, Any], config: Any, device: torch.device
) -> Any:
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging as hf_logging

    options: dict[str, Any] = {"dtype": getattr(torch, settings["dtype"]), "config": config}
    for key in ("attn_implementation", "device_map"):
        if settings[key] is not None:
            options[key] = settings[key]
    options |= quantised.options(config, settings, device)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    with explained(name, where):
        where.show_weights(everything)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **where.arguments, **options, output_loading_info=True
        )
    model, info = loaded
    where.require_unchanged()
    if missing := sorted(info["missing_keys"]):
        raise ActprobeError(
            f"models.{name} cannot generate: {len(missing)} weights are not in its files, e.g. "
            f"{missing[0]}; a model that was saved without its head answers nothing"
        )
    ends = model.generation_config.eos_token_id
    # Temperatures and penalties that it brings along are not those of the config.
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model = model.eval().requires_grad_(False)
    if "device_map" not in options:
        model = model.to(device)
    return quantised.settled(model, config, settings)
