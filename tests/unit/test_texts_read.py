"""Reading, checking and encoding: the same rows in every format, and every way to be bad."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from sklearn.preprocessing import LabelEncoder
from texts_inputs import make

from actprobe.base.errors import BadInput
from actprobe.texts.checks import Place, duplicates
from actprobe.texts.labels import encode, encode_written

TEXTS = [
    "a plain text",
    'quotes ", and\na new line',
    "NA",
    "null",
    " Ünïcödé \u2028 ",
    "a plain text",
]
LABELS = [1, 0, 1, 0, 0, 0]


def as_bytes(format: str, columns: dict) -> bytes:
    frame = pd.DataFrame(columns)
    if format.endswith(".zst"):
        return zstandard.ZstdCompressor().compress(as_bytes(format.removesuffix(".zst"), columns))
    if format == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        return buffer.getvalue()
    if format == "json":
        return json.dumps(columns).encode()
    if format == "jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return "\n".join(json.dumps(r, ensure_ascii=False) for r in rows).encode()
    return frame.to_csv(index=False, sep="\t" if format == "tsv" else ",").encode()


def table(data: bytes | str, **spec):
    return make(data, **{"label": "label"} | spec)


FORMATS = ("csv", "tsv", "csv.zst", "json", "jsonl", "jsonl.zst", "parquet")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_rows(format):
    rows, facts = table(as_bytes(format, {"text": TEXTS, "label": LABELS}), format=format)
    assert rows["text"].to_pylist() == TEXTS
    assert rows["label"].to_pylist() == LABELS
    assert rows["id"].to_pylist() == ["0", "1", "2", "3", "4", "5"]
    assert rows["digest"][2].as_py() == hashlib.sha256(b"NA").hexdigest()
    assert (facts["n"], facts["texts"], facts["multiline"]) == (6, 5, 1)
    assert facts["classes"] == ["0", "1"] and facts["counts"] == [4, 2]
    assert facts["duplicates"] == {"rows": 1, "conflicting": 2}


def test_json_may_be_a_list_of_objects():
    data = json.dumps([{"text": "a", "label": "n"}, {"text": "b", "label": "y"}])
    rows, facts = table(data, format="json")
    assert rows["label"].to_pylist() == [0, 1] and facts["classes"] == ["n", "y"]


def test_a_byte_order_mark_and_blank_lines_are_not_data():
    assert table("\ufefftext,label\na,0\n\nb,1\n")[1]["n"] == 2


def test_optional_columns_are_text_and_empty_cells_are_null():
    data = "text,label,who,part,uid\na,0,7,train,x\nb,1,,test,y\n"
    rows, _ = table(data, group="who", split="part", id="uid")
    assert rows["group"].to_pylist() == ["7", None]
    assert rows["split"].to_pylist() == ["train", "test"]
    assert rows["pair"].to_pylist() == [None, None]
    assert rows["id"].to_pylist() == ["x", "y"]


def test_texts_without_labels():
    rows, facts = table("text\na\nb\n", label=None)
    assert rows["label"].null_count == 2 and facts["classes"] == facts["counts"] == []


def test_keep_filters_rows_and_leaves_their_numbers():
    data = "text,label,lang,n\na,0,en,1\nb,1,de,1\nc,1,en,2\nd,0,,1\n"
    rows, _ = table(data, keep={"lang": ["en", None]})
    assert rows["text"].to_pylist() == ["a", "c", "d"] and rows["id"].to_pylist() == ["0", "2", "3"]
    with pytest.raises(BadInput, match=r"no row with lang in \['fr'\].*its values are"):
        table(data, keep={"lang": ["fr"]})
    with pytest.raises(BadInput, match=r"row 3 \(line 5\): the text is empty"):
        table(data.replace("\nd,", "\n,"), keep={"n": ["1"]})


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        ("txt,label\na,0\n", {}, r"no column 'text' \(config key `text`\) among 'txt', "
         r"'label'; did you mean 'txt'"),
        ("text,label\na,0\n", {"keep": {"lang": ["en"]}}, r"no column 'lang' .*`keep.lang`"),
        ("text,label\n", {}, "no rows; expected at least one"),
        ("", {}, "the file is empty; expected a header row"),
        ("\ufeff\n\r\n", {}, "the file is empty; expected a header row"),
        ("[]", {"format": "json"}, "no rows; expected at least one"),
        ("text,label\na,0\n,1\n", {}, r"row 1 \(line 3\): the text is empty; expected a text"),
        ("text,label\na,0\n  ,1\n \t,1\n", {}, r"row 1 \(line 3\): .* only white space.*\(2 such"),
        ("text,label,id\na,0,x\nb,1,y\nc,1,x\n", {"id": "id"}, r"row 2 \(line 4\): the id 'x' is "
         r"also that of row 0 \(line 2\)"),
        ("text,label,id\na,0,x\nb,1,\n", {"id": "id"}, r"row 1 \(line 3\): the id is missing"),
        ("text,label\na,0\nb,0\n", {}, "all 2 labels are '0'; expected two classes or more"),
        ("text,label\na,0\nb,\nc,nan\n", {}, r"row 1 \(line 3\): the label is missing.*\(2 such"),
        ("text,label\na,0.5\nb,1\n", {"label_kind": "multiclass"}, "the label 0.5 is not a class"),
        ('[{"text": null, "label": 0}]', {"format": "json"}, r"row 0 \(counted from 0\): the text is "
         "missing"),
        ('[{"text": 3, "label": 0}]', {"format": "json"}, "text is of type int; expected a string"),
        ('[{"text": "\\ud800", "label": 0}]', {"format": "json"}, "row 0 .*surrogate"),
        ("[{]", {"format": "json"}, "not JSON: .*line 1 column 3"),
        ('{"text": "a"}', {"format": "json"}, "expected a list of objects, or an object of"),
        ('{"text": "a", "label": 1}\n{', {"format": "jsonl"}, "line 2 is not JSON"),
        ('{"text": "a", "label": 1}\n\n3', {"format": "jsonl"}, r"row 1 \(line 3\): found a number; "
         "expected an object"),
        ("text,label\n", {"format": "csv.zst"}, "not a zstandard file .*write `format: csv` for"),
        ("text,label\n", {"format": "parquet"}, "not a readable parquet file"),
    ],
)  # fmt: skip
def test_bad_data_is_named_by_dataset_file_and_row(data, spec, message):
    with pytest.raises(BadInput, match=rf"(?s)^dataset d, d.csv: .*{message}"):
        table(data, **spec)


def test_bytes_that_are_not_utf8_are_located():
    with pytest.raises(
        BadInput, match=r"byte 17 \(0xfc, line 3\) is not UTF-8; expected a file.*iconv"
    ):
        table(b"text,label\na,0\nb \xfc,1\n")
    column = pa.array([b"ok", b"\xfc"], pa.binary()).view(pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": column, "label": [0, 1]}), buffer)
    with pytest.raises(BadInput, match=r"row 1 .*byte 0 \(0xfc\) of column 'text' is not UTF-8"):
        table(buffer.getvalue(), format="parquet")


def test_a_zstandard_file_may_hold_several_frames():
    data = as_bytes("csv.zst", {"text": TEXTS, "label": LABELS})
    more = zstandard.ZstdCompressor().compress(b"one more,1\n")
    assert table(data + more, format="csv.zst")[0]["text"].to_pylist() == [*TEXTS, "one more"]


def test_a_truncated_zstandard_file_is_refused():
    data = as_bytes("csv.zst", {"text": TEXTS, "label": LABELS})
    with pytest.raises(BadInput, match="the zstandard file is cut short"):
        table(data[:-9], format="csv.zst")


PLACE = Place("d", "f", range(99))


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True],
        [10, 9, -1],
        [2.0, 1.0, 10.0],
        ["b", "B", "ä", "a"],
        ["10", "9", "x"],
    ],
)
def test_classes_are_numbered_as_sklearn_does(values):
    labels, classes = encode(values, None, PLACE)
    reference = LabelEncoder().fit(values)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, reference.transform(values))
    assert classes == [str(int(c) if isinstance(c, float) else c) for c in reference.classes_]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["10", "9", "10", "-1"], ["-1", "9", "10"]),
        (["1.0", "2", "1e1"], ["1.0", "2", "1e1"]),
        (["true", "False", "true"], ["False", "true"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        ([" 1", " 0"], [" 0", " 1"]),
        (["NA", "null", "None", "x"], ["NA", "None", "null", "x"]),
        (["9007199254740993", "9007199254740992"], ["9007199254740992", "9007199254740993"]),
    ],
)
def test_labels_of_a_table_are_ordered_by_what_they_are_and_named_as_they_are_written(
    values, classes
):
    labels, names = encode_written(values, None, PLACE)
    assert names == classes and [names[y] for y in labels] == values


def test_positive_names_the_class_that_becomes_one():
    labels, classes = encode(["no", "yes", "no"], "no", PLACE)
    assert labels.tolist() == [1, 0, 1] and classes == ["yes", "no"]
    labels, classes = encode([1, 2, 3], "2", PLACE)
    assert labels.tolist() == [0, 1, 0] and classes == ["not 2", "2"]
    with pytest.raises(BadInput, match=r"no label 'yess' .*did you mean 'yes'"):
        encode(["no", "yes"], "yess", PLACE)


def test_labels_of_several_types_are_refused():
    with pytest.raises(BadInput, match="labels of type int, str"):
        encode([1, "a"], None, PLACE)
    with pytest.raises(BadInput, match="labels of type bool, int"):
        encode([True, 0], None, PLACE)


def test_duplicates_and_conflicts():
    # "a" stands three times with both labels, "b" twice with one.
    assert duplicates(["a", "b", "a", "b", "a", "c"], [0, 1, 1, 1, 0, 0]) == {
        "rows": 3,
        "conflicting": 3,
    }
    assert duplicates(["a", "a"], None) == {"rows": 1, "conflicting": 0}
