"""A tiny causal language model with a chat template, and experiments in which it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from models_tiny import save_tokenizer
from texts_inputs import configured, jsonl

from actprobe import texts
from actprobe.cache import plan
from actprobe.cache.plan import Plan, Target
from actprobe.experiment import targets as experiment
from actprobe.texts import Texts

TEMPLATE = (Path(__file__).parent / "chat_templates/chatml.jinja").read_text()
PROMPTS = ["What?", "Why is the sky blue?", "Name a colour.", "a" * 40, "Why?", "No."]


def save_speaker(folder: Path, template: str | None = TEMPLATE, **settings: Any) -> Path:
    """A random model with a head in `folder`; settings: of its generation_config.json."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():  # bytes of ASCII, so that answers are texts
        model.lm_head.weight[3 + 94 :] *= 0.05
        model.lm_head.weight[:3] *= 0.05
    model.save_pretrained(folder)
    save_tokenizer(folder, chat_template=template)
    given = json.loads((folder / "generation_config.json").read_text()) | settings
    (folder / "generation_config.json").write_text(json.dumps(given))
    return folder


def config(folder: Path, rows: Any = None, model: Any = None, **generate: Any) -> dict[str, Any]:
    """The config of one dataset of prompts, `d`; keys of the dataset beside `generate` in `entry`."""
    if not (folder / "model").exists():
        save_speaker(folder / "model")
    rows = [{"text": p} for p in PROMPTS] if rows is None else rows
    (folder / "d.jsonl").write_text(jsonl(*rows))
    entry = generate.pop("entry", {})
    asked = {"model": "m", "max_new_tokens": 12, **generate}
    given = {
        "name": "d",
        "path": str(folder / "d.jsonl"),
        "label": None,
        "generate": asked,
        **entry,
    }
    models = {"m": {"source": str(folder / "model"), "device": "cpu", **(model or {})}}
    return configured(
        folder, given, models=models,
        activations=[{"model": "m", "sites": ["resid_post.1"], "positions": ["last"]}],
    )  # fmt: skip


def make(resolved: dict[str, Any]) -> Plan:
    """Make everything as a run does; returns the plan that was carried out."""
    first = experiment.plan_texts(resolved)
    plan.take_over(first)
    _carry_out(first, resolved)
    made = experiment.plan(resolved)
    if plan.take_over(made):
        made = experiment.plan(resolved)
    _carry_out(made, resolved)
    return made


def _carry_out(planned: Plan, resolved: dict[str, Any]) -> None:
    """Run the batches as jobs get them."""
    folder = Path(resolved["cache_dir"]).parent / "plans"
    for batch in plan.thaw(plan.freeze(planned, folder)).in_order():
        experiment.run(batch, resolved, 1)


def target(made: Plan, stage: str) -> Target:
    [found] = [t for t in made.targets.values() if t.stage == stage]
    return found


def answered(folder: Path, rows: Any = None, **generate: Any) -> Texts:
    """The texts of the dataset, made."""
    return texts.load(target(make(config(folder, rows, **generate)), "texts").path)


def said(found: Texts) -> list[str]:
    """The answer of each row."""
    assert found.chats is not None
    return [c.messages[-1]["content"] for c in found.chats]
