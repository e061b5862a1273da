"""Labels of parts: spans of texts and chats, and labels of turns."""

from __future__ import annotations

import pytest
from texts_inputs import build, jsonl, loaded, parquet, unusable

from actprobe.base.errors import ConfigError

TEXT = "Paris lies in Spain."


def said(found, i=0):
    """(words, class) of each span of row i."""
    names = [*found.facts["spans"]["classes"], "ignored"]
    return [(found.text[i][s.start : s.end], names[s.label]) for s in found.spans[i]]


def spans(folder, value, text=TEXT, **how):
    rows = jsonl({"text": text, "marks": value}, {"text": "Yes.", "marks": [[0, 3, "good"]]})
    return loaded(folder, rows, spans={"column": "marks", **how})


@pytest.mark.parametrize(
    "value",
    [
        [[0, 5, "good"], [14, 19, "bad"]],
        '[[0, 5, "good"], [14, 19, "bad"]]',
        [{"start": 0, "end": 5, "label": "good"}, {"start": 14, "end": 19, "label": "bad"}],
        [{"start": 0, "label": "good", "text": "Paris"}, {"text": "Spain", "label": "bad"}],
        [{"start": 9, "end": 14, "label": "good", "text": "Paris"}, [14, 19, "bad"]],
    ],
)
def test_spans_are_lists_or_objects_and_quoted_words_tell_where(tmp_path, value):
    found = spans(tmp_path, value)
    assert said(found) == [("Paris", "good"), ("Spain", "bad")]
    assert found.facts["spans"] == {
        "n": 3, "rows": 2, "classes": ["outside", "bad", "good"], "counts": [0, 1, 2],
        "ignored": 0, "outside": 0,
    }  # fmt: skip


def test_keys_positive_and_ignored_labels(tmp_path):
    value = [{"b": 0, "e": 5, "t": "good"}, {"b": 14, "e": 19, "t": "bad"}, {"b": 6, "e": 10}]
    rows = jsonl({"text": TEXT, "m": value})
    how = {"start": "b", "end": "e", "label": "t", "positive": "bad", "outside": "ignore"}
    found = loaded(tmp_path, rows, spans={"column": "m", **how})
    assert said(found) == [("Paris", "good"), ("lies", "ignored"), ("Spain", "bad")]
    assert found.facts["spans"]["outside"] == -1
    found = loaded(tmp_path, rows, spans={"column": "m", **how, "ignore": ["good"]})
    assert said(found)[0] == ("Paris", "ignored")


def test_spans_are_counted_in_the_text_of_a_template(tmp_path):
    rows = jsonl({"text": TEXT, "marks": [[0, 5]], "who": "Ann{text}"})
    found = loaded(tmp_path, rows, spans="marks", template="{who}: {text}")
    assert said(found) == [("Paris", "span")]
    with pytest.raises(ConfigError, match="spans are counted in"):
        loaded(tmp_path, rows, spans="marks", template="{who}")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[0, 50, "x"]], "the span from 0 to 50 of a text of 20 characters"),
        ([[5, 5, "x"]], "the span from 5 to 5"),
        ([[-1, 3, "x"]], "the span from -1 to 3"),
        ([[0.0, 3, "x"]], "the span from 0.0 to 3"),
        ([{"start": 0, "end": 5, "text": "Rome"}], "the span 'Rome' does not stand in its text"),
        (["Paris"], "expected [start, end, label] or an object"),
        ({"start": 0}, "expected a list"),
    ],
)
def test_a_span_that_is_none_is_refused_with_its_row(tmp_path, value, words):
    data = jsonl({"text": TEXT, "marks": [[0, 5, "x"]]}, {"text": TEXT, "marks": value})
    unusable(tmp_path, data, "row 1 (line 2)", words, spans="marks")


def parts(found):
    """What the label of each row is of."""
    return [t[low:high] for t, (low, high) in zip(found.text, found.parts, strict=True)]


@pytest.mark.parametrize("template", [None, "Read: {text}"])
def test_rows_of_spans(tmp_path, template):
    value = [[0, 5, "good"], [14, 19, "bad"], [6, 10, "dull"]]
    how = {"rows": True, "ignore": ["dull"]}
    rows = jsonl({"text": TEXT, "marks": value}, {"text": "No.", "marks": []},
                 {"text": "Yes.", "marks": [[0, 3, "good"]]})  # fmt: skip
    more = {} if template is None else {"template": template}
    found = loaded(tmp_path, rows, spans={"column": "marks", **how}, **more)
    assert parts(found) == ["Paris", "Spain", "Yes"]
    assert found.id.tolist() == ["0.0", "0.2", "2.0"] and found.group.tolist() == ["0", "0", "2"]
    assert [found.classes[y] for y in found.label] == ["good", "bad", "good"]
    whole = [TEXT, TEXT, "Yes."]
    assert found.text.tolist() == [(template or "{text}").replace("{text}", t) for t in whole]
    assert len(set(found.digest)) == 2  # of what a model is given
    assert found.facts["texts"] == 3 and found.facts["duplicates"]["conflicting"] == 0
    assert found.spans is None and "spans" not in found.facts


def test_rows_of_spans_without_labels_have_those_of_their_texts(tmp_path):
    rows = jsonl(*({"text": TEXT, "marks": [[0, 5], [6, 10]], "label": v} for v in "xy"))
    found = loaded(tmp_path, rows, spans={"column": "marks", "rows": True}, label="label")
    assert found.label.tolist() == [0, 0, 1, 1] and parts(found)[:2] == ["Paris", "lies"]
    rows = jsonl(*({"text": TEXT, "marks": [[0, 5]], "label": v} for v in (1.5, 2.5)))
    found = loaded(tmp_path, rows, spans={"column": "marks", "rows": True}, label="label")
    assert found.value.tolist() == [1.5, 2.5] and found.label is None


def test_rows_of_spans_need_some(tmp_path):
    rows, how = jsonl({"text": TEXT, "marks": []}), {"column": "marks", "rows": True}
    unusable(tmp_path, rows, "no span is there (config key `spans`)", spans=how)
    rows = jsonl({"text": TEXT, "marks": [[0, 5, "good"]]})
    unusable(tmp_path, rows, "all spans are of class", "expected two classes", spans=how)


def test_the_key_of_the_rows_tells_texts_and_that_of_the_parts_their_places(tmp_path):
    def facts(name, end):
        (tmp_path / name).mkdir()
        rows = jsonl({"text": TEXT, "marks": [[0, end, "a"], [6, 10, "b"]]})
        return loaded(tmp_path / name, rows, spans={"column": "marks", "rows": True}).facts

    one, other = facts("a", 5), facts("b", 4)
    assert one["rows"] == other["rows"] and one["content"] != other["content"]
    assert one["parts"] != other["parts"]
    assert loaded(tmp_path, jsonl({"text": TEXT}), label=None).facts["parts"] is None


CHATS = [
    {"messages": [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "In Spain.", "good": "no"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "In France.", "good": "yes"},
    ], "marks": [[3, 9]], "list": ["no", "yes"]},
    {"messages": [
        {"role": "user", "content": "Hm?"},
        {"role": "assistant", "content": "Yes.", "good": None},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "No.", "good": "no"},
    ], "marks": [], "list": [None, "no"]},
]  # fmt: skip


def chats(folder, **entry):
    return loaded(folder, jsonl(*CHATS), messages="messages", **entry)


def test_spans_of_chats_are_counted_in_a_message(tmp_path):
    assert said(chats(tmp_path, spans="marks")) == [("France", "span")]
    last_user = {"column": "marks", "in": "last_user"}
    unusable(tmp_path, jsonl(*CHATS), "of a text of 5 characters", messages="messages",
             spans=last_user)  # fmt: skip
    rows = [CHATS[0] | {"marks": [{"message": 1, "start": 3, "end": 8}]}]
    found = loaded(tmp_path, jsonl(*rows), messages="messages", spans="marks")
    assert said(found) == [("Spain", "span")]
    rows = [CHATS[0] | {"marks": [{"message": 9, "start": 3, "end": 8}]}]
    unusable(tmp_path, jsonl(*rows), "a span of message 9, which the chat does not have",
             messages="messages", spans="marks")  # fmt: skip


def test_a_row_of_a_span_ends_with_the_message_that_holds_it(tmp_path):
    entry = [
        {"message": 1, "start": 3, "end": 8, "label": "x"},
        {"start": 0, "end": 2, "label": "y"},
    ]
    rows = [CHATS[0] | {"marks": entry}, CHATS[1] | {"marks": []}]
    found = loaded(
        tmp_path, jsonl(*rows), messages="messages", spans={"column": "marks", "rows": True}
    )
    assert [len(c.messages) for c in found.chats] == [2, 4]
    assert parts(found) == ["Spain", "In"] and found.group.tolist() == ["0", "0"]
    assert found.digest.tolist() == [c.digest for c in found.chats]


def test_messages_of_a_file_are_counted_from_its_first_one(tmp_path):
    rows = [{"messages": CHATS[0]["messages"], "marks": [{"message": 1, "start": 3, "end": 8}]}]
    items = [{"role": "system", "content": "Be brief."}, {"column": "messages"}]
    found = loaded(tmp_path, jsonl(*rows), messages=items, spans="marks")
    assert said(found) == [("Spain", "span")]


@pytest.mark.parametrize("turns", [{"label": "good"}, {"labels": "list"}])
def test_labels_of_turns_are_spans_of_what_they_say(tmp_path, turns):
    found = chats(tmp_path, turns=turns)
    assert said(found) == [("In Spain.", "no"), ("In France.", "yes")]
    assert said(found, 1) == [("No.", "no")]
    assert found.facts["spans"]["outside"] == -1  # nothing is known of the rest


@pytest.mark.parametrize("turns", [{"label": "good"}, {"labels": "list"}])
def test_turns_can_be_rows_that_end_with_them(tmp_path, turns):
    found = chats(tmp_path, turns={**turns, "rows": True})
    assert found.id.tolist() == ["0.1", "0.3", "1.3"]
    assert found.label.tolist() == [0, 1, 0] and found.classes == ("no", "yes")
    assert [len(c.messages) for c in found.chats] == [2, 4, 4]
    assert found.group.tolist() == ["0", "0", "1"]
    assert found.spans is None
    assert parts(found) == ["In Spain.", "In France.", "No."]


def test_rows_of_turns_without_labels_have_those_of_their_chats(tmp_path):
    rows = [c | {"label": "xy"[i]} for i, c in enumerate(CHATS)]
    found = loaded(tmp_path, jsonl(*rows), messages="messages", label="label",
                   turns={"rows": True, "role": "user"})  # fmt: skip
    assert found.label.tolist() == [0, 0, 1, 1]


def test_labels_of_turns_may_come_from_parquet(tmp_path):
    data = parquet(("messages", [c["messages"] for c in CHATS]))
    found = loaded(tmp_path, data, format="parquet", messages="messages", turns={"label": "good"})
    assert said(found, 1) == [("No.", "no")]


def test_labels_of_another_length_and_of_no_turn_are_refused(tmp_path):
    rows = [CHATS[0] | {"list": ["no"]}]
    words = "1 labels in column 'list', and 2 messages of role assistant"
    unusable(tmp_path, jsonl(*rows), words, messages="messages", turns={"labels": "list"})
    unusable(tmp_path, jsonl(*CHATS), "no message of role assistant has a label 'bad'",
             messages="messages", turns={"label": "bad"})  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"spans": "m", "turns": {"label": "x"}, "messages": "m"}, "exclude each other"),
        ({"turns": {"label": "x"}}, "`turns` is for chats"),
        ({"turns": {}, "messages": "m"}, "give `label` or `labels`"),
        ({"turns": {"label": "x", "labels": "y"}, "messages": "m"}, "exclude each other"),
        ({"spans": "m", "contrastive": {}}, "`spans` and `contrastive` exclude each other"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, entry, words):
    (tmp_path / "d.jsonl").write_text(jsonl(*CHATS))
    with pytest.raises(ConfigError, match=words):
        build(tmp_path, {"name": "d", "path": str(tmp_path / "d.jsonl"), **entry})
