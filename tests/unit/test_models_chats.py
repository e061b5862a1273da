"""Chats through templates: who says which token, what is refused with its row, and positions.

The templates in `chat_templates` are written in the ways of families: ChatML with tools (Qwen 2.5),
headers with the day (Llama 3), no system and strict turns (Gemma 2), instructions (Mistral), reasoning
that is dropped (Qwen 3, QwQ), no tools (Phi 3). `ACTPROBE_CHAT_TEMPLATES` names a folder with others.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from chats_made import NOBODY, check_segments, conversation, expected
from models_tiny import by_name, make_config, model_entry, run, save_model, save_tokenizer, targets
from test_models_spans import byte_level
from test_models_tokens import reading_of
from test_models_tokens import span as span_of
from texts_inputs import CHAT, build, jsonl, with_facts

from actprobe import texts
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.models import open_activations
from actprobe.models.chat import Template
from actprobe.models.conversations import Conversations
from actprobe.models.positions import Mask, plan_reduction
from actprobe.models.reading import PLAIN_CHAT
from actprobe.models.segments import PART, ROLE
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed

FOLDER = Path(__file__).parent / "chat_templates"
NAMES = sorted(p.stem for p in FOLDER.glob("*.jinja"))
# What each of them cannot show, of what the conversations hold.
LACKS = {"no_system": {"system", "tools"}, "no_tools": {"tools"}}
NO_MASK = Mask(special=True, first=False)


def source(name):
    return (FOLDER / f"{name}.jinja").read_text()


def conversations(folder, template, **chat):
    tokenizer = save_tokenizer(folder, chat_template=template)
    settings = {**PLAIN_CHAT, **chat}
    return Conversations(Template(tokenizer, settings, "m"), settings)


def made(name, n=300):
    """Conversations that a template can show."""
    lacks = LACKS.get(name, set())
    return [
        conversation(
            seed, "system" not in lacks, "tools" not in lacks, name == "thinking" and seed % 2 == 0
        )
        for seed in range(n)
    ]


# -- masks, character by character and token by token


@pytest.mark.parametrize("name", NAMES)
def test_300_conversations_character_by_character(tmp_path, name):
    found = conversations(tmp_path, source(name))
    for chat in made(name):
        check_segments(chat, *found.render(chat))


@pytest.mark.skipif("ACTPROBE_CHAT_TEMPLATES" not in os.environ, reason="no folder of templates")
def test_templates_of_models_character_by_character(tmp_path):
    for file in sorted(Path(os.environ["ACTPROBE_CHAT_TEMPLATES"]).glob("*.jinja")):
        found = conversations(tmp_path, file.read_text())
        for seed in range(300):
            chat = conversation(seed, reasoning=seed % 3 == 0)
            try:
                rendered = found.render(chat)
            except Malformed:
                continue  # it says what the template does not show
            check_segments(chat, *rendered)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("words", [False, True])
def test_300_conversations_token_by_token(tmp_path, name, words):
    """Each token against who says its characters, with one token a byte and one a word."""
    tokenizer = byte_level(False) if words else save_tokenizer(tmp_path)
    tokenizer.chat_template = source(name)
    if words:
        tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = "Is"
    how = reading_of(tokenizer)
    chats = made(name)
    tokens = how.encode(chats, [str(i) for i in range(300)], with_chars=True)
    for i, chat in enumerate(chats):
        string, _ = how.conversations.render(chat)
        again = tokenizer(string, add_special_tokens=False, return_offsets_mapping=True)
        row = tokens.row(i)
        assert tokens.ids[row].tolist() == again["input_ids"]
        right = expected(chat, string)
        for said, (begin, end) in zip(
            tokens.said[row].tolist(), again["offset_mapping"], strict=True
        ):
            covered = [r for r in right[begin:end] if r not in (None, NOBODY)]
            if said[2] != PART["call"]:
                assert tuple(said) == (covered[0] if covered else NOBODY)
        assert tokens.roles[i] == bytes(ROLE[m["role"]] for m in chat.messages)


def test_contents_may_repeat_each_other_and_what_the_template_writes(tmp_path):
    tokenizer = save_tokenizer(tmp_path, chat_template=source("chatml"))
    how = reading_of(tokenizer)
    same = "<|im_end|>\n<|im_start|>user\nassistant"
    chat = Chat([{"role": r, "content": same} for r in ("user", "assistant", "user", "assistant")])
    string, segments = how.conversations.render(chat)
    assert [(s.turn, string[s.start : s.end]) for s in segments] == [(n, same) for n in range(4)]
    assert [s.start for s in segments] == sorted({s.start for s in segments})


def test_a_template_without_a_day_and_one_with_it_give_the_same_tokens_tomorrow(tmp_path):
    string, _ = conversations(tmp_path, source("headers")).render(Chat(CHAT))
    assert "Today Date: 26 Jul 2024" in string


def test_reasoning_that_a_template_drops_has_no_tokens_and_the_rest_is_there(tmp_path):
    said = {"role": "assistant", "content": "4", "reasoning_content": "Count."}
    chat = Chat([CHAT[1], said, CHAT[1], said])
    string, segments = conversations(tmp_path, source("thinking")).render(chat)
    kinds = [(s.turn, s.part, string[s.start : s.end]) for s in segments]
    content, reasoning = PART["content"], PART["reasoning"]
    assert kinds == [
        (0, content, CHAT[1]["content"]), (1, content, "4"), (2, content, CHAT[1]["content"]),
        (3, reasoning, "Count."), (3, content, "4"),
    ]  # fmt: skip


def test_arguments_are_given_as_objects_or_as_text_as_the_template_wants(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    chat = Chat([CHAT[1], {"role": "assistant", "content": "", "tool_calls": [call]}])
    for write in ("arguments | tojson", "arguments"):
        template = (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
            "[{{ c.function.name + ' ' + (c.function." + write + ") }}]{% endfor %}{% endfor %}"
        )
        string, segments = conversations(tmp_path, template).render(chat)
        assert string.endswith('[f {"x": 1}]')
        assert string[segments[-1].start : segments[-1].end].startswith('f {"x": 1')


# -- what is refused, with its row


def chats_target(folder, *rows, name="d", **entry):
    (folder / f"{name}.jsonl").write_text(jsonl(*rows))
    path = str(folder / f"{name}.jsonl")
    given = {"name": name, "path": path, "label": None, "messages": "messages"}
    [t] = build(folder, given | entry)
    return t


def tiny(folder, template="chatml"):
    if not (folder / "model").exists():
        save_model("llama", folder / "model")
    save_tokenizer(folder / "model", chat_template=source(template) if template else None)
    return folder / "model"


def activations(folder, t, template="chatml", positions=("last",), spans=None, **model):
    wanted = {"sites": ["resid_post.1"], "positions": list(positions), "spans": spans or {}}
    config = make_config(folder / "cache", model_entry(tiny(folder, template), **model), wanted)
    return by_name(run(config, t))


PLAIN = [{"messages": CHAT[1:]} for _ in range(2)]


@pytest.mark.parametrize(
    ("template", "row", "words"),
    [
        ("no_system", {"messages": CHAT}, "System role not supported"),
        ("no_system", {"messages": CHAT[1:2] * 2}, "Conversation roles must alternate"),
        ("no_tools", {"messages": [*CHAT[1:], {"role": "tool", "content": "5"}]},
         "the chat template does not show message 2 (tool)"),
    ],
)  # fmt: skip
def test_rows_that_the_template_refuses_are_named(tmp_path, template, row, words):
    t = chats_target(tmp_path, PLAIN[0], row, row, PLAIN[1], row)
    with pytest.raises(ActprobeError) as e:
        activations(tmp_path, t, template)
    assert "m on d: row '1'" in str(e.value) and words in str(e.value)
    assert "nor can rows '2', '4' be read" in str(e.value)


def test_a_system_text_can_be_folded_into_the_user_message(tmp_path):
    t = chats_target(tmp_path, {"messages": CHAT}, *PLAIN)
    with pytest.raises(ActprobeError, match=r"models.m.chat: \{fold_system: true\}"):
        activations(tmp_path, t, "no_system")
    spans = {"s": {"role": "system", "reduce": "last"}}
    chats = chats_target(tmp_path, {"messages": CHAT}, {"messages": CHAT}, name="e")
    found = activations(tmp_path, chats, "no_system", ["span.s"], spans, chat={"fold_system": True})
    assert store.read_header(found["resid_post.1.span.s"].path)["bad"] is None
    settings = conversations(tmp_path / "x", source("no_system"), fold_system=True)
    string, segments = settings.render(Chat(CHAT))
    assert "user\nBe brief.\n\nWhat is 2 + 2?<end_of_turn>" in string
    assert [s.role for s in segments] == [ROLE["system"], ROLE["user"], ROLE["assistant"]]


def test_tools_that_the_template_does_not_show_are_named(tmp_path):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    t = chats_target(tmp_path, PLAIN[0], PLAIN[1] | {"tools": [tool]}, tools="tools")
    with pytest.raises(ActprobeError, match=r"row '1' offers tools .* does not show any"):
        activations(tmp_path, t, "no_tools")


def test_a_model_without_a_template_is_refused_while_planning(tmp_path):
    t = chats_target(tmp_path, *PLAIN)
    t = with_facts(t)
    with pytest.raises(ConfigError, match=r"datasets.d holds chats: this model's tokenizer has no"):
        activations(tmp_path, t, None)


def test_offsets_that_lie_are_found_by_reading_the_tokens_again(tmp_path, monkeypatch):
    tokenizer = save_tokenizer(tmp_path, chat_template=source("chatml"))
    how = reading_of(tokenizer)
    call = type(tokenizer).__call__

    def lies(self, *args, **more):
        out = call(self, *args, **more)
        if "offset_mapping" in out:
            out["offset_mapping"] = [
                [(a + 3, b + 3) for a, b in row] for row in out["offset_mapping"]
            ]
        return out

    monkeypatch.setattr(type(tokenizer), "__call__", lies)
    with pytest.raises(
        BadInput, match=r"row 'a': the tokenizer says that some tokens are .* wrong"
    ):
        how.encode([Chat(CHAT)], ["a"])


# -- positions


def taken(tokens, text, **span):
    """The words of a span's tokens."""
    r = plan_reduction(
        tokens,
        span_of(**span),
        NO_MASK,
        text,
        ["r"] * len(text),
    )
    at = np.flatnonzero(r.keep) if r.index is None else tokens.offsets[:-1] + r.index
    return at


LONG = [*CHAT, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]


@pytest.mark.parametrize(
    ("span", "expected_words"),
    [
        ({"role": "assistant"}, "4Yes."),
        ({"role": "assistant", "turn": 0}, "4"),
        ({"role": "assistant", "turn": -1}, "Yes."),
        ({"role": "user", "turn": 1}, "Sure?"),
        ({"turn": -2}, "Sure?"),
        ({"part": "content"}, "Be brief.What is 2 + 2?4Sure?Yes."),
        ({"role": "user", "reduce": "last"}, "?"),
        ({"role": "user", "turn": 0, "reduce": "first"}, "W"),
        ({"role": "assistant", "turn": 0, "reduce": "after"}, "<"),
    ],
)
def test_spans_by_role_turn_and_part(tmp_path, span, expected_words):
    tokenizer = save_tokenizer(tmp_path, chat_template=source("chatml"))
    chat = Chat(LONG)
    tokens = reading_of(tokenizer).encode([chat], ["r"])
    at = taken(tokens, [chat.text], **span)
    assert tokenizer.decode(tokens.ids[at]) == expected_words


def test_the_token_after_the_last_turn_ends_it(tmp_path):
    tokenizer = save_tokenizer(tmp_path, chat_template=source("chatml"))
    tokens = reading_of(tokenizer).encode([Chat(CHAT)], ["r"])
    [at] = taken(tokens, [""], role="assistant", turn=-1, reduce="after")
    assert tokenizer.decode(tokens.ids[at:]) == "<|im_end|>\n"


def test_a_turn_that_a_row_lacks_or_that_was_cut_off_is_named(tmp_path):
    t = chats_target(tmp_path, {"messages": LONG}, {"messages": CHAT})
    second = {"s": {"role": "assistant", "turn": 1}}
    words = r"row '1' has no token of what is said in message 1 of role assistant"
    with pytest.raises(ActprobeError, match=words):
        activations(tmp_path, t, positions=["span.s"], spans=second)
    last = {"s": {"role": "assistant", "turn": -1}}
    t = chats_target(tmp_path, {"messages": LONG}, name="e")
    with pytest.raises(ActprobeError, match="was cut off"):
        activations(tmp_path, t, positions=["span.s"], spans=last, max_length=160)


def test_spans_of_chats_are_refused_on_texts(tmp_path):
    t = chats_target(tmp_path, {"text": "a"}, {"text": "b"}, messages=None)
    spans = {"s": {"role": "user"}}
    with pytest.raises(ActprobeError, match="is for chats, and these rows are texts"):
        activations(tmp_path, t, positions=["span.s"], spans=spans)
    t = with_facts(t)
    wanted = {"sites": ["embed"], "positions": ["span.s"], "spans": spans}
    with pytest.raises(ConfigError, match=r"activations\[0\]: position span.s is for chats"):
        targets(make_config(tmp_path / "cache", model_entry(tiny(tmp_path)), wanted), t)


def test_the_tokens_artefact_says_who_says_each_token(tmp_path):
    t = chats_target(tmp_path, {"messages": LONG}, {"messages": CHAT})
    found = activations(tmp_path, t, positions=["tokens"], exclude_special=False)
    rows = texts.load(t.path)
    with open_activations(found["resid_post.1.tokens"].path) as a:
        assert a.said.shape == (len(a.token_ids), 3) and a.chars.shape == (len(a.token_ids), 2)
        for i, chat in enumerate(rows.chats):
            row = slice(a.offsets[i], a.offsets[i + 1])
            for part in chat.parts:
                mine = a.said[row] == (ROLE[part.role], part.turn, PART[part.kind])
                begin, end = a.chars[row][mine.all(1)].T
                assert (begin.min(), end.max()) == (part.start, part.end)


def test_a_chat_that_ends_with_the_user_gets_the_generation_prompt(tmp_path):
    how = reading_of(save_tokenizer(tmp_path, chat_template=source("chatml")))
    for chat, end in ((CHAT, "<|im_end|>\n"), (CHAT[:2], "<|im_start|>assistant\n")):
        assert how.conversations.render(Chat(chat))[0].endswith(end)
    off = reading_of(how.tokenizer, chat={"add_generation_prompt": False})
    assert off.conversations.render(Chat(CHAT[:2]))[0].endswith("?<|im_end|>\n")
