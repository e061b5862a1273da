"""The forms in which files hold chats, and what is refused of them with its row."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from texts_inputs import CHAT, build, jsonl, loaded, parquet, unusable

from actprobe.base.errors import ConfigError

SHARED = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "What is 2 + 2?"},
    {"from": "gpt", "value": "4"},
]
ALPACA = {"instruction": "Add.", "input": "2 and 2", "output": "4", "who": "Be brief."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def chats(folder, data, **entry):
    """The messages of each row, in the one form."""
    found = loaded(folder, data, **{"messages": "messages"} | entry)
    assert found.chats is not None
    return [c.messages for c in found.chats]


def test_messages_are_read_from_jsonl_json_parquet_and_the_json_text_of_a_csv_cell(tmp_path):
    rows = [{"messages": CHAT}]
    cell = json.dumps(CHAT).replace('"', '""')
    for n, (format, data) in enumerate(
        [
            ("jsonl", jsonl(*rows)),
            ("json", json.dumps(rows)),
            ("csv", f'messages\n"{cell}"\n'),
            ("parquet", parquet(("messages", [CHAT]))),
            ("jsonl", jsonl({"messages": json.dumps(CHAT)})),
            ("jsonl", jsonl({"messages": {"messages": CHAT}})),
        ]
    ):
        (folder := tmp_path / str(n)).mkdir()
        assert chats(folder, data, format=format) == [CHAT]


def test_the_text_of_a_chat_is_what_its_messages_say(tmp_path):
    found = loaded(tmp_path, jsonl({"messages": CHAT}), messages="messages")
    assert found.text.tolist() == ["Be brief.\n\nWhat is 2 + 2?\n\n4"]
    assert found.rows == found.chats
    assert found.facts["chats"]["roles"] == {"assistant": 1, "system": 1, "user": 1}


def test_sharegpt_is_known_by_its_keys_and_names_of_roles_may_be_given(tmp_path):
    data = jsonl({"conversations": SHARED})
    assert chats(tmp_path, data, messages="conversations") == [CHAT]
    other = jsonl({"messages": [{"role": "narrator", "content": "It rains."}, *CHAT[1:]]})
    (found,) = chats(tmp_path, other, roles={"narrator": "system"})
    assert [m["role"] for m in found] == ["system", "user", "assistant"]


def test_alpaca_columns_are_a_chat(tmp_path):
    data = jsonl(ALPACA, {"instruction": "Add.", "input": "", "output": "4", "who": ""})
    columns = {"system": "who"}
    first, second = chats(tmp_path, data, messages=None, alpaca=columns)
    assert first == [CHAT[0], {"role": "user", "content": "Add.\n\n2 and 2"}, CHAT[2]]
    assert second == [{"role": "user", "content": "Add."}, CHAT[2]]


def test_alpaca_history_stands_before_the_instruction(tmp_path):
    row = {"instruction": "And 3?", "input": None, "output": "6", "history": [["2 + 2?", "4"]]}
    (found,) = chats(tmp_path, jsonl(row), messages=None, alpaca={"history": "history"})
    assert [m["content"] for m in found] == ["2 + 2?", "4", "And 3?", "6"]


def test_chats_are_put_together_from_columns(tmp_path):
    items = [
        {"role": "system", "content": "{who}"},
        {"role": "user", "content": "{q} {{now}}"},
        {"role": "assistant", "content": "{a}"},
    ]
    data = jsonl({"q": "What?", "a": "4", "who": "Be brief."}, {"q": "Why?", "a": "5", "who": ""})
    first, second = chats(tmp_path, data, messages=items)
    assert first == [CHAT[0], {"role": "user", "content": "What? {now}"}, CHAT[2]]
    assert [m["role"] for m in second] == ["user", "assistant"]  # an empty system is none


@pytest.mark.parametrize("arguments", [{"a": 2, "b": 2}, '{"a": 2, "b": 2}'])
def test_tool_calls_results_and_definitions_come_in_one_form(tmp_path, arguments):
    function = {"name": "add", "arguments": arguments}
    given = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": function}]},
        {"role": "tool", "tool_call_id": "x", "content": {"sum": 4}},
        {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
    ]
    data = jsonl({"messages": given, "tools": [TOOL]})
    found = loaded(tmp_path, data, messages="messages", tools="tools")
    assert found.chats is not None
    chat = found.chats[0]
    assert chat.tools == [TOOL]
    assert [dict(m) for m in chat.messages[1:]] == [
        {"role": "assistant", "tool_calls": [{"id": "x", **CALL}]},
        {"role": "tool", "content": '{"sum": 4}', "tool_call_id": "x"},
        {"role": "assistant", "content": "4"},
    ]
    assert [(p.turn, p.kind) for p in chat.parts] == [
        (0, "content"), (1, "call"), (2, "content"), (3, "content"),
    ]  # fmt: skip
    assert found.facts["chats"] | {"roles": 0} == {
        "messages": 4, "most": 4, "roles": 0, "tools": 1, "calls": 1, "reasoning": 0,
    }  # fmt: skip


def test_sharegpt_calls_of_functions_are_calls_of_tools(tmp_path):
    row = [
        SHARED[1],
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 2}}'},
        {"from": "observation", "value": "4"},
        SHARED[2],
    ]
    (found,) = chats(tmp_path, jsonl({"messages": row}))
    assert found[1] == {"role": "assistant", "tool_calls": [CALL]}
    assert found[2] == {"role": "tool", "content": "4"}


def test_parquet_gives_all_objects_the_same_keys_and_null_is_no_key(tmp_path):
    turn = [
        {"role": "assistant", "content": None,
         "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2, "b": 2, "c": None}}}]},
        {"role": "user", "content": "no", "tool_calls": None},
    ]  # fmt: skip
    data = parquet(("messages", pa.array([[turn[1], turn[0]]])))
    (found,) = chats(tmp_path, data, format="parquet")
    assert found == [
        {"role": "user", "content": "no"}, {"role": "assistant", "tool_calls": [CALL]},
    ]  # fmt: skip


def test_reasoning_is_a_part_of_its_own_in_its_key_or_in_tags(tmp_path):
    for answer in (
        {"role": "assistant", "content": "<think>\nCount.\n</think>\n\n4"},
        {"role": "assistant", "content": "4", "reasoning_content": "\nCount.\n"},
    ):
        found = loaded(tmp_path, jsonl({"messages": [CHAT[1], answer]}),
                       messages="messages")  # fmt: skip
        assert found.chats is not None
        chat = found.chats[0]
        said = [(p.kind, chat.text[p.start : p.end].strip()) for p in chat.parts]
        assert said == [("content", "What is 2 + 2?"), ("reasoning", "Count."), ("content", "4")]


USER = {"role": "user", "content": "What?"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "a chat without messages"),
        (None, "the messages are missing"),
        ("hello", "the messages are a text that is no JSON"),
        ({"a": 1, "b": 2}, "the messages are an object; expected a list"),
        ([USER, "hello"], "message 1 is a string; expected an object with role and content"),
        ([USER, {"role": "wizard", "content": "Hm."}], "message 1 has the role 'wizard'; expected "
         "one of system, developer, user, assistant, tool, or write `roles: {wizard: user}`"),
        ([USER, {"content": "Hm."}], "message 1 has no role"),
        ([USER, {"role": "assistant", "content": ""}], "message 1 (assistant) is empty"),
        ([USER, {"role": "assistant", "content": None}], "message 1 (assistant) is empty"),
        ([USER, {"role": "assistant", "content": " \n"}], "message 1 (assistant) is empty"),
        ([{"role": "user", "content": 3}], "the content of message 0 is of type int"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}],
         "message 0 holds a part of type 'image'; only text is read"),
        ([USER, {"role": "assistant", "tool_calls": [{"id": "x"}]}],
         "a tool call without the name of a function"),
        ([{"role": "user", "content": "a\ud800b"}], "half a surrogate pair"),
    ],
)  # fmt: skip
def test_a_chat_that_is_none_is_refused_with_its_row(tmp_path, messages, words):
    data = jsonl({"messages": CHAT}, {"messages": messages}, {"messages": CHAT})
    unusable(tmp_path, data, "row 1 (line 2)", words, messages="messages")


def test_all_rows_that_cannot_be_used_are_counted(tmp_path):
    bad = [{"messages": []}, {"messages": []}, {"messages": [{"role": "x", "content": "y"}]}]
    words = "(line 2): a chat without messages; expected one at least; 1 more rows cannot be used"
    unusable(tmp_path, jsonl({"messages": CHAT}, *bad), words, "(2 such rows)",
             messages="messages")  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "", "input": "", "output": "4"}, "the instruction is missing or empty"),
        ({"instruction": "Add.", "input": "", "output": 4}, "the output is of type int"),
        ({"instruction": "Add.", "input": "", "output": "  "}, "message 1 (assistant) is empty"),
    ],
)
def test_alpaca_rows_that_are_no_chats_are_refused(tmp_path, row, words):
    unusable(tmp_path, jsonl(row), "row 0 (line 1)", words, alpaca={})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"messages": "m", "alpaca": {}}, "`messages` and `alpaca` exclude each other"),
        ({"messages": "m", "template": "{text}"}, "`template` is for texts"),
        ({"tools": "t"}, "`tools` is for chats"),
        ({"messages": "m", "roles": {"x": "king"}}, "roles.x: 'king'; expected one of system"),
        ({"messages": [{"column": "a"}, {"column": "b"}]}, "two columns of messages"),
        ({"messages": "m", "contrastive": {}}, "write it once, as in"),
        ({"messages": [{"role": "user", "content": "{a"}]}, "a single '{'; write '{{'"),
    ],
)
def test_keys_that_contradict_each_other_are_refused_before_files_are_read(tmp_path, entry, words):
    (tmp_path / "d.jsonl").write_text(jsonl({"m": CHAT}))
    with pytest.raises(ConfigError, match=r"dataset d: ") as e:
        build(tmp_path, {"name": "d", "path": str(tmp_path / "d.jsonl"), **entry})
    assert words in str(e.value)
