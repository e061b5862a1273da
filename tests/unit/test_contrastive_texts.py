"""Contrastive pairs and templates in the texts stage."""

from __future__ import annotations

import contrastive_inputs as inputs
import numpy as np
import pytest
from models_tiny import save_tokenizer

from actprobe import texts
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.models.chat import template as chat_template
from actprobe.texts.templates import fill, taken_apart

ONE = [{"question": "Odd?", "positive": "(B)", "negative": "(A)"}]


def load(folder, rows, **entry):
    config = inputs.resolve(folder, [inputs.dataset(folder, "d", rows, **entry)])
    return texts.load(inputs.make_texts(config)[0].path)


def test_a_question_becomes_a_row_for_each_answer(tmp_path):
    t = load(tmp_path, inputs.PAIRS[:2], template="{text}\nAnswer: {answer}!")
    assert t.text.tolist()[0].endswith("(B) No\nAnswer: (A)!")
    assert t.id.tolist() == ["0.0", "0.1", "1.0", "1.1"]
    assert t.pair.tolist() == t.group.tolist() == ["0", "0", "1", "1"]
    assert t.label.tolist() == [1, 0, 0, 1] and t.classes == ("negative", "positive")
    assert t.facts["answers"] == {"(A)": [1, 1], "(B)": [1, 1]}


def test_without_a_template_the_answer_follows_an_empty_line(tmp_path):
    assert load(tmp_path, ONE).text.tolist() == ["Odd?\n\n(A)", "Odd?\n\n(B)"]


def test_rows_do_not_tell_which_answer_is_the_positive_one(tmp_path):
    swapped = [{**r, "positive": r["negative"], "negative": r["positive"]} for r in inputs.PAIRS]
    one, other = load(tmp_path / "1", inputs.PAIRS), load(tmp_path / "2", swapped)
    assert one.text.tolist() == other.text.tolist() and one.id.tolist() == other.id.tolist()
    assert one.label.tolist() == (1 - other.label).tolist()


def test_naming_the_answers_the_other_way_round_keeps_the_rows(tmp_path):
    entry = inputs.dataset(tmp_path, "d", inputs.PAIRS)
    plain, turned = (
        texts.targets(inputs.resolve(tmp_path, [e]), {}, keys.DigestMemo(tmp_path))[0]
        for e in (entry, entry | {"contrastive": {"positive": "negative", "negative": "positive"}})
    )
    assert plain.args.rows == turned.args.rows and plain.key != turned.key


def test_a_template_is_part_of_the_rows_and_changes_nothing_where_there_is_none(tmp_path):
    entry = inputs.dataset(tmp_path, "d", inputs.ROWS)
    plain, shaped = (
        texts.targets(inputs.resolve(tmp_path, [e]), {}, keys.DigestMemo(tmp_path))[0]
        for e in (entry, entry | {"template": "Say: {text}"})
    )
    assert plain.spec.template is None and not plain.spec.answers
    assert plain.args.rows != shaped.args.rows
    t = load(tmp_path, inputs.ROWS, template="Say: {text}")
    assert t.text[0].startswith("Say: testing text") and t.classes == ("deployment", "testing")
    assert t.digest[0] == keys.hashlib.sha256(t.text[0].encode()).hexdigest()


def test_filters_and_columns_hold_for_both_rows(tmp_path):
    rows = [{**r, "who": "ann" if i % 2 else "bob"} for i, r in enumerate(inputs.PAIRS)]
    t = load(tmp_path, rows, keep={"who": "ann"}, group="who")
    assert len(t) == len(inputs.PAIRS) and set(t.group) == {"ann"} and t.id[0] == "1.0"


@pytest.mark.parametrize("text", ["plain", "two\n\nlines", "has {answer} in it", "Answer: no"])
@pytest.mark.parametrize("answer", ["(A)", "two words", "two\n\nlines", "has {text} in it"])
@pytest.mark.parametrize(
    "template", ["Q: {text}\nAnswer: {answer}.", "{text} {answer}", "{answer}\n\n{text}"]
)
def test_what_a_template_joins_is_taken_apart_again(text, answer, template):
    (joined,) = fill(template, {"text": [text], "answer": [answer]}, 1)
    assert taken_apart(template, joined, answer) == text
    assert taken_apart("{text}?", text + "?") == text


def test_the_answers_of_pairs_are_kept(tmp_path):
    t = load(tmp_path, ONE)
    assert t.contrastive and t.answer.tolist() == ["(A)", "(B)"]
    assert not load(tmp_path, inputs.ROWS).contrastive


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{**ONE[0], "positive": "(A)"}], "row 0 .*: both answers are '\\(A\\)'"),
        ([{**ONE[0], "negative": ""}], "column 'negative': row 0 .*: the text is empty"),
        ([{**ONE[0], "question": " "}], "row 0 .*: the text is only white space"),
        ([{"question": "Odd?", "positive": "x"}], "no column 'negative'"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said_with_its_row(tmp_path, rows, words):
    with pytest.raises(ActprobeError, match=words):
        load(tmp_path, rows, contrastive={})


@pytest.mark.parametrize(
    ("rows", "template", "words"),
    [
        (inputs.PAIRS, "{text}", "expected {answer} once in it"),
        (inputs.PAIRS, "{text} {answer} {answer}", "expected {answer} once in it"),
        (inputs.ROWS, "question", "expected {text} or other columns in it"),
        (inputs.ROWS, "{text} {", "a single '{'; write '{{' where the brace is text"),
    ],
)
def test_a_template_must_hold_what_it_is_for(tmp_path, rows, template, words):
    config = inputs.resolve(tmp_path, [inputs.dataset(tmp_path, "d", rows, template=template)])
    with pytest.raises(ConfigError, match=words):
        texts.targets(config, {}, keys.DigestMemo(tmp_path))


def test_an_answer_after_the_marker_follows_the_generation_prompt(tmp_path):
    """The prompt of the evaluation-awareness scripts, from a dataset's and a model's settings."""
    t = load(tmp_path, inputs.PAIRS[:1], template="{text}<answer>\n\n {answer}")
    tokenizer = save_tokenizer(
        tmp_path / "model",
        chat_template="{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]",
    )
    chat = {"system": "Guess.", "user": "{text}\n\nAnswer:", "answer_after": "<answer>"}
    render = chat_template(tokenizer, {**chat, "add_generation_prompt": True, "variables": {}})
    prompt, segments = render(t.text[0])
    question = inputs.PAIRS[0]["question"]
    assert prompt == f"[system]Guess.[user]{question}\n\nAnswer:[assistant]\n\n (A)"
    shown = [prompt[start:end] for start, end, *_ in segments]
    assert shown == [question, "\n\n (A)"]
    assert [t.text[0][at : at + len(s)] for (_, _, at, *_), s in zip(segments, shown, strict=True)] == [
        question, "\n\n (A)",
    ]  # fmt: skip


def test_labels_are_whole_numbers_and_balanced(tmp_path):
    t = load(tmp_path, inputs.PAIRS)
    assert t.label.dtype == np.int32 and t.facts["counts"] == [20, 20]
