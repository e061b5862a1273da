"""The settings a LoRA was trained with, as PEFT writes them: the scale of W, and what W is not.

They stand in the `adapter_config.json` beside a file or, per component, in the metadata of a file
that diffusers wrote (`lora_adapter_metadata`, since version 0.34). W = scale · B · A holds for PEFT's
plain LoRA alone. Every field of `LoraConfig` (PEFT 0.21) is therefore applied here, known to leave W
alone, or refused by name; a field that is not known is refused unless it is switched off.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from actprobe.base.errors import BadInput

_APPLIED = {
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "init_lora_weights",
}  # fmt: skip
# What they change stands in the names and shapes of the tensors, or happens in training alone.
_HARMLESS = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "lora_dropout", "fan_in_fan_out", "bias", "lora_bias", "modules_to_save",
    "trainable_token_indices", "ensure_weight_tying", "runtime_config", "megatron_core",
    "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "velora_config",
}  # fmt: skip
_REFUSED = {
    "use_dora": "DoRA scales the rows of the whole weight",
    "use_qalora": "QALoRA averages groups of inputs before A",
    "use_bdlora": "one of the factors is block-diagonal",
    "kasa_config": "KaSA cuts the base weight and has a diagonal between B and A",
    "monteclora_config": "MonteCLoRA adds samples to the factors",
    "target_parameters": "a tensor of it holds the factors of all experts, not those of one W",
}
# W is scale·B·A, but not all that the adapter does, or not of the module that its name says.
_DOUBTFUL = {
    "init_lora_weights": "it changes the base weights too: W is not what training changed",
    "arrow_config": "Arrow mixes several adapters token by token",
    "alora_invocation_tokens": "the adapter acts on the tokens after an invocation alone",
    "layer_replication": "its layers are numbered in a model of more layers than the base model",
    "megatron_config": "its factors may be parts of a model that was split among devices",
}
# Initialisations that leave the base weights as they are. The others subtract B·A of the start from
# them (PiSSA, OLoRA, CorDA, LoRA-GA) or quantise them (LoftQ).
_PLAIN_STARTS = {"true", "false", "gaussian", "eva", "orthogonal", "mica"}


class Settings:
    """Settings of a file by component; those of an `adapter_config.json` hold for all of it.

    ignored: fields that are doubtful or unknown, which the user takes to leave W alone. Raises
    BadInput naming the field, its value and what it does.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None,
        metadata: Mapping[str, Any],
        ignored: Collection[str] = (),
    ):
        self._by_component: dict[str, dict[str, Any]] = {}
        self._source = "adapter_config.json"
        if config is not None:
            self._by_component[""] = dict(config)
        elif "lora_adapter_metadata" in metadata:
            self._source = "metadata"
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
                component, _, option = key.partition(".")
                self._by_component.setdefault(component, {})[option] = value
        for component, options in self._by_component.items():
            prefix = f"{component}." if component else ""
            for field, value in options.items():
                if why := _refusal(field, value, ignored):
                    raise BadInput(f"{self._source}: {prefix}{field} {json.dumps(value)}: {why}")

    def __bool__(self) -> bool:
        return bool(self._by_component)

    def _of(self, path: str) -> tuple[dict[str, Any] | None, str]:
        """The settings of the module with this path, and its name in the patterns."""
        if "" in self._by_component:
            return self._by_component[""], path.removeprefix("base_model.model.")
        component, _, rest = path.partition(".")
        return self._by_component.get(component), rest

    def require_rank(self, path: str, rank: int) -> None:
        """Raise BadInput when a module's tensors have another rank than the settings say."""
        options, name = self._of(path)
        told = None if options is None else _matching(options, "rank_pattern", name, "r")
        if told is not None and told != rank:
            raise BadInput(
                f"{path}: tensors of rank {rank}, {self._source} says r: {told}; they are not the "
                "factors of one W"
            )

    def scale(self, path: str, rank: int) -> float | None:
        """The scale of a module; None where nothing is said about its component.

        lora_alpha / r, with rsLoRA lora_alpha / sqrt(r) (Kalajdzievski 2023, eq. 5).
        """
        options, name = self._of(path)
        if options is None:
            return None
        alpha = _matching(options, "alpha_pattern", name, "lora_alpha")
        if alpha is None:  # PEFT writes it; its default may change
            raise BadInput(
                f"{self._source} without lora_alpha: the scale is not known (`alpha: one` takes 1)"
            )
        return float(alpha) / (math.sqrt(rank) if options.get("use_rslora") else rank)


def _refusal(field: str, value: Any, ignored: Collection[str]) -> str:
    """Why a file with this setting cannot be read; empty when it can."""
    if value in (None, False, "", [], {}):
        return ""
    if field == "peft_type":
        return "" if value == "LORA" else "expected LORA"
    if field == "init_lora_weights" and str(value).lower() in _PLAIN_STARTS:
        return ""
    if field in _REFUSED:
        return f"{_REFUSED[field]}: W is not scale·B·A"
    if field in _APPLIED - _DOUBTFUL.keys() or field in _HARMLESS or field in ignored:
        return ""
    why = _DOUBTFUL.get(field, "an unknown setting: W may not be scale·B·A")
    return f"{why} (`ignore_settings: [{field}]` reads it all the same)"


def _matching(options: Mapping[str, Any], patterns: str, name: str, otherwise: str) -> Any:
    """Value of the first pattern that matches the end of a module's name, as PEFT matches them."""
    for pattern, value in (options.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return options.get(otherwise)
