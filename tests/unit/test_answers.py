"""Answers of models to prompts: the same alone and together, once, resumed, labelled."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from answers_tiny import PROMPTS, answered, config, make, said, save_speaker, target
from configs import edited
from models_tiny import save_model, save_tokenizer

from actprobe import texts
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import plan, store
from actprobe.experiment import targets as experiment
from actprobe.models import open_activations
from actprobe.models.answers.generation import Speaker, _Sampled, uniforms
from actprobe.models.answers.records import Sampling


def by_transformers(folder, prompts, n=12, **settings):
    """Greedy answers of transformers' own, one prompt after the other."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for p in prompts:
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": p}], add_generation_prompt=True, return_tensors="pt",
            return_dict=True,
        )  # fmt: skip
        out = model.generate(**given, do_sample=False, max_new_tokens=n, **settings)
        tail = out[0, given["input_ids"].shape[1] :]
        found.append(tokenizer.decode(tail, skip_special_tokens=True))
    return found


# -- answers


def test_answers_are_those_of_transformers_alone(tmp_path):
    found = answered(tmp_path)
    assert said(found) == by_transformers(tmp_path / "model", PROMPTS)
    assert [c.messages[0]["content"] for c in found.chats] == PROMPTS
    assert found.finish.tolist() == ["limit"] * len(PROMPTS)
    assert found.facts["generated"] == {
        "model": "m", "prompts": 6, "empty": 0, "tokens": 72, "end": 0, "stop": 0, "limit": 6,
    }  # fmt: skip


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_k": 50, "stop": ["a", "b"]}])
def test_a_frozen_plan_gives_the_target_back(tmp_path, sampling):
    made = experiment.plan(config(tmp_path, **sampling))
    thawed = plan.thaw(plan.freeze(made, tmp_path))
    [again] = [t for b in thawed.batches for t in b.targets if t.stage == "answers"]
    assert again == target(made, "answers") and again.record == target(made, "answers").record


@pytest.mark.parametrize("merged", [True, False])
def test_a_model_answers_with_its_adapters(tmp_path, merged):
    peft = pytest.importorskip("peft")
    base = save_speaker(tmp_path / "model")
    torch.manual_seed(1)
    whole = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    whole.save_pretrained(tmp_path / "adapter")
    worn = {"source": str(tmp_path / "adapter")}
    found = answered(tmp_path, model={"adapter": worn, "merge_adapters": merged})
    (merged_by_peft := tmp_path / "merged").mkdir()
    whole.merge_and_unload().save_pretrained(merged_by_peft)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(merged_by_peft)
    expected = by_transformers(merged_by_peft, PROMPTS)
    assert said(found) == expected != by_transformers(base, PROMPTS)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_k": 50, "top_p": 0.95}])
@pytest.mark.parametrize("budget", [60, 5000])
def test_rows_alone_and_together_get_equal_tokens(tmp_path, sampling, budget):
    (tmp_path / "x").mkdir()
    found = answered(tmp_path / "x", model={"max_tokens_per_batch": budget}, **sampling)
    for i, p in enumerate(PROMPTS[:3]):
        (alone := tmp_path / str(i)).mkdir()
        assert said(answered(alone, [{"text": p}], **sampling)) == [said(found)[i]]


def test_a_seed_is_another_answer_and_equal_prompts_are_answered_differently(tmp_path):
    rows = [{"text": "What?"}] * 3
    first = said(answered(tmp_path, rows, temperature=1.0))
    assert len(set(first)) == 3
    assert said(answered(tmp_path, rows, temperature=1.0)) == first
    assert not set(said(answered(tmp_path, rows, temperature=1.0, seed=1))) & set(first)
    assert len(set(said(answered(tmp_path, rows)))) == 1  # greedy


def test_sampling_has_the_probabilities_of_the_scores():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    numbers = [uniforms(i.to_bytes(16, "little"), 1) for i in range(4000)]
    how = Sampling(temperature=1.0, top_k=None, top_p=1.0, seed=0)
    drawn = _Sampled(how, 0, numbers)(torch.zeros(4000, 0, dtype=torch.long), scores).argmax(-1)
    share = np.bincount(drawn.numpy(), minlength=4) / 4000
    np.testing.assert_allclose(share, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    cut = _Sampled(replace(how, top_k=2), 0, numbers)
    drawn = cut(torch.zeros(4000, 0, dtype=torch.long), scores).argmax(-1)
    assert set(drawn.tolist()) == {0, 1}


def test_settings_that_a_model_brings_along_are_not_taken(tmp_path):
    plain = said(answered(tmp_path))
    (other := tmp_path / "other").mkdir()
    save_speaker(other / "model", repetition_penalty=9.0, temperature=0.1, do_sample=True, top_k=3)
    assert said(answered(other)) == plain


def test_an_answer_ends_with_the_turn_or_a_string(tmp_path):
    plain = said(answered(tmp_path))
    letter = plain[0][4]
    end = save_tokenizer(tmp_path / "t").convert_tokens_to_ids(letter)
    (ended := tmp_path / "ended").mkdir()
    save_speaker(ended / "model", eos_token_id=[1, end])
    found = answered(ended)
    for text, whole, why in zip(said(found), plain, found.finish, strict=False):
        assert (text, why) == (whole.split(letter)[0], "end" if letter in whole else "limit")
    first = plain[0].index(letter)
    longer = said(answered(ended, min_new_tokens=first + 3))[0]
    assert len(longer) >= first + 3
    stopped = answered(tmp_path, stop=[plain[0][4:6]])
    assert said(stopped)[0] == plain[0][:4] and stopped.finish[0] == "stop"


def test_stop_strings_are_found_across_tokens_and_beginnings(tmp_path):
    plain = said(answered(tmp_path))[1]
    for low, high in ((3, 9), (10, 12)):
        stop = plain[low:high]
        found = answered(tmp_path, [{"text": PROMPTS[1]}], stop=[stop, "never this"])
        assert said(found) == [plain[: plain.index(stop)]]


def test_an_empty_answer_is_no_row_and_counted(tmp_path):
    plain = said(answered(tmp_path))
    found = answered(tmp_path, stop=[plain[0][:2]])
    generated = found.facts["generated"]
    assert "0" not in found.id.tolist()
    assert generated["empty"] == len(PROMPTS) - len(found) > 0


# -- once


def test_answers_are_made_once_and_labels_touch_neither_them_nor_activations(tmp_path):
    make(config(tmp_path))
    again = experiment.plan(config(tmp_path))
    assert not again.pending
    labelled = config(tmp_path, label={"matches": "[aeiou]"})
    pending = {again.targets[p].stage if p in again.targets else "texts"
               for p in experiment.plan(labelled).pending}  # fmt: skip
    assert pending == {"texts"}


def test_activations_have_one_key_before_and_after_the_answers(tmp_path):
    resolved = config(tmp_path)
    before = {t.path for t in experiment.plan(resolved).targets.values()}
    made = make(resolved)
    assert before == {t.path for t in experiment.plan(resolved).targets.values()}
    with open_activations(target(made, "activations").path) as a:
        assert len(a.x) == len(PROMPTS)


def test_one_more_prompt_computes_its_answer_alone(tmp_path, monkeypatch):
    first = said(answered(tmp_path))
    asked = []
    answer = Speaker.answer
    monkeypatch.setattr(Speaker, "answer", lambda self, p, s: asked.extend(p) or answer(self, p, s))
    rows = [{"text": p} for p in ["First of all?", *PROMPTS]]
    found = answered(tmp_path, rows)
    assert len(asked) == 1
    assert said(found)[1:] == first
    asked.clear()
    assert said(answered(tmp_path, rows[3:])) == first[2:] and not asked


def _killed_after(batches):
    """Let this process be killed when it asks for the batch after these."""
    answer, left = Speaker.answer, [batches]

    def counted(self, prompts, seeds):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return answer(self, prompts, seeds)

    Speaker.answer = counted


def test_killed_ten_times_the_bytes_are_equal(tmp_path):
    rows = [{"text": f"{p} {i}"} for i in range(90) for p in PROMPTS]
    given = {"rows": rows, "model": {"max_tokens_per_batch": 600}, "max_new_tokens": 40}
    (tmp_path / "whole").mkdir()
    whole = target(make(config(tmp_path / "whole", **given)), "answers")
    (tmp_path / "killed").mkdir()
    resolved = config(tmp_path / "killed", **given)
    rng, resumed = random.Random(0), 0
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            _killed_after(rng.randint(1, 4))
            make(resolved)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        rng.random()  # the child's draw is its own
        assert os.WIFSIGNALED(status)
        resumed += any((tmp_path / "killed/cache/answers").rglob("*.part"))
    found = target(make(resolved), "answers")
    assert resumed == 10
    assert Path(found.path).read_bytes() == Path(whole.path).read_bytes()


# -- prompts


def test_prompts_may_be_chats_and_what_is_asked_with_a_system(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hi"},
            ]
        },
        {"messages": [{"role": "user", "content": "Hi"}]},
    ]
    found = answered(tmp_path, rows, entry={"messages": "messages"})
    assert [len(c.messages) for c in found.chats] == [3, 2]
    assert said(found)[0] != said(found)[1]


def test_columns_of_prompts_stay(tmp_path):
    rows = [{"q": p, "y": "ab"[i % 2], "g": f"g{i}"} for i, p in enumerate(PROMPTS)]
    entry = {"template": "Q: {q}", "label": "y", "group": "g", "id": "g", "sample": {"n": 4}}
    found = answered(tmp_path, rows, entry=entry)
    kept = [int(g[1:]) for g in found.group]
    assert found.label.tolist() == [i % 2 for i in kept] and len(kept) == 4
    assert [c.messages[0]["content"] for c in found.chats] == [f"Q: {PROMPTS[i]}" for i in kept]


@pytest.mark.parametrize(
    ("rows", "generate", "words"),
    [
        ([{"text": "a"}, {"text": ""}], {}, "row 1 (line 2): the text is empty"),
        ([{"text": "a"}, {"text": "b" * 230}], {},
         "m on d: row '1' has 280 tokens; with max_new_tokens 12 these are more than the 256"),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
         {"entry": {"messages": "messages"}}, "the chat ends with the assistant"),
        (None, {"unfinished": "refuse"},
         "the answer to row '0' reaches max_new_tokens (6 such rows)"),
        (None, {"label": {"matches": "never (this)"}}, "no answer has a label"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_named_with_its_row(tmp_path, rows, generate, words):
    with pytest.raises(ActprobeError) as e:
        answered(tmp_path, rows, **generate)
    assert words in str(e.value)


def test_skipped_prompts_are_skipped_all_the_way(tmp_path):
    resolved = config(tmp_path, [{"text": "b" * 230}]) | {"on_bad_dataset": "skip"}
    made = make(resolved)
    for stage in ("answers", "texts", "activations"):
        assert "more than the 256" in store.read_header(target(made, stage).path)["bad"]


@pytest.mark.parametrize(
    ("generate", "words"),
    [
        ({"model": "n"}, "unknown model 'n'"),
        ({"label": {"matches": "("}}, "no regular expression"),
        ({"label": {"matches": "(a)(b)"}}, "has 2 groups; expected one at most"),
        ({"label": {"function": "none.py"}}, "none.py is no file"),
        ({"label": {"function": "f.py", "matches": "a"}}, "exclude each other"),
        ({"label": {"matches": "a", "columns": ["b"]}}, "they are for `function`"),
        ({"entry": {"contrastive": {}}}, "exclude each other"),
        ({"entry": {"turns": {"label": "x"}}}, "exclude each other"),
    ],
)
def test_what_the_config_gets_wrong_is_said_before_anything_is_loaded(tmp_path, generate, words):
    asked = dict(generate)
    with pytest.raises(ConfigError) as e:
        model = asked.pop("model", None)
        resolved = config(tmp_path, **asked)
        if model:
            resolved = edited(resolved, ["datasets", 0, "generate", "model"], model)
        experiment.plan(resolved)
    assert words in str(e.value)


def test_models_that_cannot_answer(tmp_path):
    save_speaker(tmp_path / "model", template=None)
    with pytest.raises(ConfigError, match="asks m for answers: this model's tokenizer has no chat"):
        experiment.plan(config(tmp_path))
    (bare := tmp_path / "bare").mkdir()
    save_model("llama", bare / "model")
    save_tokenizer(bare / "model", chat_template="{{ messages[0].content }}")
    with pytest.raises(ActprobeError, match=r"weights are not in its files, e.g. lm_head.weight"):
        make(config(bare))
    (encoder := tmp_path / "encoder").mkdir()
    save_model("bert", encoder / "model")
    save_tokenizer(encoder / "model", chat_template="{{ messages[0].content }}")
    with pytest.raises(ConfigError, match="no causal language model"):
        make(config(encoder))
    (random := tmp_path / "random").mkdir()
    with pytest.raises(ConfigError, match="m has random weights, which answer nothing"):
        experiment.plan(config(random, model={"weights": "random"}))
    (rounded := tmp_path / "rounded").mkdir()
    with pytest.raises(ConfigError, match="quantised by bitsandbytes, 4 bits cannot be loaded"):
        make(config(rounded, model={"quantization": {"bits": 4}}))


# -- labels


def classes(found):
    return [None if y < 0 else found.classes[y] for y in found.label.tolist()]


def test_labels_by_a_regular_expression(tmp_path):
    plain = said(answered(tmp_path))
    sign = Counter("".join(plain)).most_common(1)[0][0]
    found = answered(tmp_path, label={"matches": f"[{sign}]" if sign != "^" else r"\^"})
    assert classes(found) == [str(sign in text) for text in plain]
    found = answered(tmp_path, label={"matches": r"^(.)"}, entry={"positive": None})
    assert classes(found) == [text[0] for text in plain]


def test_labels_by_a_column(tmp_path):
    plain = said(answered(tmp_path))
    rows = [{"text": p, "right": (f" {plain[i].upper()} " if i % 2 else "x")}
            for i, p in enumerate(PROMPTS)]  # fmt: skip
    found = answered(tmp_path, rows, label={"equals": "right"})
    assert classes(found) == [str(bool(i % 2)) for i in range(len(PROMPTS))]


def test_labels_by_a_function_of_the_user(tmp_path):
    (tmp_path / "f.py").write_text(
        "def label(row):\n"
        "    assert row['messages'][-1]['role'] == 'user'\n"
        "    return None if row['id'] == '2' else len(row['answer']) > row['most']\n"
    )
    rows = [{"text": p, "most": 5 if i % 2 else 500} for i, p in enumerate(PROMPTS)]
    label = {"function": str(tmp_path / "f.py"), "columns": ["most"]}
    found = answered(tmp_path, rows, label=label)
    assert classes(found) == ["False", "True", None, "True", "False", "True"]
    key = found.key
    (tmp_path / "f.py").write_text("def label(row):\n    return row['id'] < '3'\n")
    found = answered(tmp_path, rows, label=label)
    assert found.key != key and classes(found)[:4] == ["True"] * 3 + ["False"]
    for body, words in (
        ("return 1 / 0", "row '0': ZeroDivisionError"),
        ("return [1]", "it gave a list"),
    ):
        (tmp_path / "f.py").write_text(f"def label(row):\n    {body}\n")
        with pytest.raises(ActprobeError, match=words):
            answered(tmp_path, rows, label=label)
    (tmp_path / "f.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no function label"):
        answered(tmp_path, rows, label=label)


def test_the_texts_say_how_they_were_made(tmp_path):
    found = answered(tmp_path)
    assert found.facts["provenance"]["answers"] == "m"
    [told] = texts.describe((tmp_path / "cache/texts").glob("*.parquet"))
    assert (told["n"], told["unfinished"]) == (len(PROMPTS), len(PROMPTS))
