"""What one file does to its readers stays with that file: doubled names, foreign exceptions."""

from __future__ import annotations

import errno

import pyarrow as pa
import pytest
from texts_inputs import jsonl, make, parquet, refused, texts

from actprobe.base.errors import BadInput
from actprobe.texts import columnar
from actprobe.texts.checks import Place


def test_c4_a_parquet_file_with_a_column_twice_is_refused():
    data = parquet(("text", ["a"]), ("n", [1]), ("text", ["b"]))
    refused(data, "columns 1 and 3 are both called 'text' (config key `text`)", format="parquet")


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_c4_a_table_with_a_column_twice_is_refused(format):
    data = "text,n,text\na,1,b\n".replace(",", "\t" if format == "tsv" else ",")
    refused(data, "columns 1 and 3 are both called 'text'", "rename one", format=format)


@pytest.mark.parametrize(
    ("data", "format", "words"),
    [
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n', "jsonl",
         ["row 1 (line 2): the key 'text' stands twice"]),
        ('[{"text": "a"}, {"text": "b", "text": "c"}]', "json",
         ["row 1 (counted from 0): the key 'text' stands twice"]),
        ('{"text": ["a"], "text": ["b"]}', "json", ["both called 'text'"]),
    ],
)  # fmt: skip
def test_c4_a_json_key_that_stands_twice_is_refused(data, format, words):
    refused(data, *words, format=format)


def test_c4_what_is_not_read_may_stand_twice():
    assert texts("n,text,n\n1,a,2\n") == ["a"]
    assert texts('{"text": "a", "n": 1, "n": {"m": 1, "m": 2}}\n', format="jsonl") == ["a"]
    assert texts(parquet(("n", [1]), ("text", ["a"]), ("n", [2])), format="parquet") == ["a"]


def test_c4_names_that_differ_in_spaces_are_two_names():
    assert texts("text,text \na,b\n") == ["a"] and texts("text,text \na,b\n", text="text ") == ["b"]


def test_a_name_with_a_dot_is_a_column_not_a_field():
    data = parquet(("a", [{"b": "field"}]), ("a.b", ["column"]))
    assert texts(data, text="a.b", format="parquet") == ["column"]
    refused(parquet(("a", [{"b": "field"}])), "no column 'a.b'", text="a.b", format="parquet")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"text": NaN}\n', ["row 0 (line 1): column 'text' holds NaN", "write null"]),
        ('{"text": "a", "who": Infinity}\n', ["column 'who' holds Infinity"]),
        ('{"text": "a"}\n{"text": "b"}{"text": "c"}\n', ["line 2 is not JSON: Extra data"]),
        ('{"text": "a"}\r{"text": "b"}\n', ["line 1 is not JSON: Extra data"]),
        ('{"text": "a"}\n\u2028\n', ["line 2 is not JSON"]),
        ('{"text": "a"}\n\ufeff{"text": "b"}\n', ["line 2 is not JSON"]),
        ('{"text": "a\tb"}\n', ["line 1 is not JSON: Invalid control character"]),
        ("{'text': 'a'}\n", ["line 1 is not JSON"]),
        ('{"text": 1' + "0" * 5000 + "}\n", ["line 1 is not JSON", "4300 digits"]),
        ('[{"text": "a"}]\n', ["row 0 (line 1): found a list", "write `format: json`"]),
        ('[\n{"text": "a"}]\n', ["line 1 is not JSON", "write `format: json`"]),
        ("[" * 100_000 + "\n", ["not readable", "RecursionError"]),
    ],
)
def test_what_is_not_one_json_value_per_line_is_refused_with_the_line(data, words):
    refused(data, *words, format="jsonl", group="who" if "who" in data else None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', ["write `format: jsonl`"]),
        ('{"text": {"0": "a"}}', ['to_json(path, orient="records")']),
        ('"text"', ["found a string; expected a list of objects"]),
        ('[{"text": "a"}, null]', ["row 1 (counted from 0): found null; expected an object"]),
        ("", ["not JSON"]),
        ("{}", ["expected a list of objects"]),
    ],
)
def test_h_a_json_file_of_another_form_is_told_what_to_write(data, words):
    refused(data, *words, format="json")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x7f", "\\u000a", "\\r", "\\u0000"])
def test_a_line_of_jsonl_ends_with_lf_alone(mark):
    data = f'{{"text": "a{mark}b"}}\r\n\n \t\r\n{{"text": "c"}}'
    meant = mark.encode().decode("unicode_escape") if mark.startswith("\\") else mark
    assert texts(data, format="jsonl") == [f"a{meant}b", "c"]


def test_numbers_that_json_writes_differently_are_other_ids():
    table, _ = make(jsonl({"text": "a", "id": 10**20}, {"text": "b", "id": 10**20 + 1}),
                    format="jsonl", id="id")  # fmt: skip
    assert table["id"].to_pylist() == [str(10**20), str(10**20 + 1)]


@pytest.mark.parametrize(
    "error", [KeyError("x"), OverflowError("x"), pa.ArrowNotImplementedError("x"), TypeError("x")]
)
def test_c4_whatever_a_library_raises_for_a_file_is_that_files_fault(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(columnar, "_values", fail)
    data = parquet(("text", ["a"]))
    refused(data, "not readable", "write it anew", type(error).__name__, format="parquet")


@pytest.mark.parametrize(
    "error", [MemoryError("x"), pa.ArrowMemoryError("x"), OSError(errno.EIO, "x")]
)
def test_c4_a_failing_machine_is_no_fault_of_the_file(error):
    with pytest.raises(type(error)), Place("d", "f").guard():
        raise error


def test_c4_dates_that_python_does_not_have_are_named_by_their_column():
    column = pa.array([2**62], pa.timestamp("us"))
    data = parquet(("text", ["a"]), ("when", column))
    words = ["column 'when' of type timestamp[us]", "OverflowError"]
    refused(data, *words, format="parquet", group="when")
    assert texts(data, format="parquet") == ["a"]
    with pytest.raises(BadInput, match="of type date; expected a string"):
        make(parquet(("text", ["a"]), ("when", pa.array([1], pa.date32()))),
             format="parquet", group="when")  # fmt: skip
