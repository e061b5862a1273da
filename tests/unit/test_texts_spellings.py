"""One value, one spelling: labels, kept values, positive classes, ids and groups."""

from __future__ import annotations

import datetime
import decimal
import json

import numpy as np
import pyarrow as pa
import pytest
from texts_inputs import classes, jsonl, make, parquet, refused, texts

from actprobe.base.errors import BadInput
from actprobe.texts.checks import Place
from actprobe.texts.labels import encode


def csv(*labels):
    return "text,label\n" + "".join(f"t{i},{v}\n" for i, v in enumerate(labels))


def rows(*labels):
    return jsonl(*({"text": f"t{i}", "label": v} for i, v in enumerate(labels)))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (("01", "1", "0"), "number"),
        (("1.0", "1", "0"), "number"),
        (("1", "1e0", "0"), "number"),
        (("+1", "1", "0"), "number"),
        (("1", " 1", "0"), "number"),
        (("-0", "0", "1"), "number"),
        (("-0.0", "0.0", "1"), "number"),
        (("0", "1", "\u0661"), "number"),
        (("9007199254740993.0", "9007199254740993", "0"), "number"),
        (("True", "true", "false"), "boolean"),
        (("FALSE", "True", "false"), "boolean"),
        (("pos", "pos ", "neg"), "word"),
        (("a", "1", "01"), "number"),
    ],
)
def test_a2_two_spellings_of_one_label_are_refused_naming_both(labels, kind):
    (i, a), (j, b) = sorted(
        (i, v) for i, v in enumerate(labels)
        if sum(_alike(v, w) for w in labels) > 1
    )[:2]  # fmt: skip
    where = [f"row {j} (line {j + 2})", f"of row {i} (line {i + 2})", f"spellings of one {kind}"]
    refused(csv(*labels), repr(a), repr(b), *where, label="label")


def _alike(a, b):
    """Python's own words for what two labels share, not the package's."""
    for read in (lambda v: decimal.Decimal(v.strip()), lambda v: json.loads(v.strip().lower())):
        try:
            if read(a) == read(b):
                return True
        except (ValueError, decimal.InvalidOperation):
            continue
    return a.strip() == b.strip()


@pytest.mark.parametrize(
    "labels",
    [
        ("01", "02", "10"),
        ("1.0", "0.0"),
        ("true", "false"),
        ("FALSE", "TRUE"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("1" + "0" * 400, "1" + "0" * 399 + "1"),
        ("1e400", "1e401"),
        ("1e9999999999", "1"),
        ("NA", "None", "null", "nan."),
        ("=1", "'1", "1"),
        (" spaced", "out "),
        ("01-a", "1-a"),
        ("Pos", "pos"),
    ],
)
def test_a2_labels_are_classes_as_they_are_written(labels):
    assert classes(csv(*labels)) == list(labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("0", "1", "NA"), ["row 2 (line 4)", "'NA' stands among labels that are numbers",
                            "`keep: {label: ['0', '1']}`"]),
        (("True", "False", "None"), ["'None'", "booleans", "`keep: {label: ['True', 'False']}`"]),
        (("0", "1", "True"), ["'True' stands among labels that are numbers, such as '0'"]),
        (("yes", "nan"), ["row 1 (line 3): the label is missing (empty, or nan)"]),
        (("yes", "  "), ["row 1 (line 3): the label is missing"]),
    ],
)  # fmt: skip
def test_what_is_no_label_among_the_others_is_refused_with_its_row(labels, words):
    refused(csv(*labels), *words, label="label")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((9007199254740993, 9007199254740992), ["9007199254740993", "9007199254740992"]),
        ((10**30, 10**30 + 1), [str(10**30), str(10**30 + 1)]),
        ((1.0, 0.0, 2), ["1", "0", "2"]),
        ((True, False), ["True", "False"]),
        (("01", "1", "nan"), ["01", "1", "nan"]),  # strings stay strings
    ],
)
def test_a2_typed_labels_are_exact(labels, expected):
    assert classes(rows(*labels), format="jsonl") == expected


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((1, 1.0, 0), ["row 1 (line 2): the label 1.0 is also written 1"]),
        ((0, -0.0, 1), ["the label -0.0 is also written 0"]),
        ((9007199254740993.0, 0.0), ["9007199254740992.0", "too large to be exact"]),
        ((True, 0), ["labels of type bool, int"]),
        (("1", 1), ["labels of type int, str"]),
        (([1], [2]), ["labels of type list"]),
        (("a", "\ud800"), ["row 1 (line 2)", "surrogate"]),
        (("a", ""), ["row 1 (line 2): the label is missing"]),
        (("a", None), ["row 1 (line 2): the label is missing"]),
    ],
)
def test_a2_typed_labels_that_would_merge_are_refused(labels, words):
    refused(rows(*labels), *words, label="label", format="jsonl")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
        (pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
        (pa.array([2**53 + 1, 2**53], pa.int64()), [str(2**53 + 1), str(2**53)]),
        (pa.array([2**64 - 1, 2**64 - 2], pa.uint64()), [str(2**64 - 1), str(2**64 - 2)]),
        (pa.array([1, 0], pa.int8()), ["1", "0"]),
        (pa.array([np.float16(1), np.float16(0)], pa.float16()), ["1", "0"]),
        (pa.array([True, False]), ["True", "False"]),
    ],
)
def test_labels_of_a_parquet_file_keep_their_values(column, expected):
    data = parquet(("text", ["t", "u"]), ("label", column))
    assert classes(data, format="parquet") == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([decimal.Decimal("1"), decimal.Decimal("0")]),
        pa.array([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]),
        pa.array([b"a", b"b"]),
        pa.array([["a"], ["b"]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([1, 0, None]).slice(1),
        pa.array([None, None]),
    ],
)
def test_other_columns_of_a_parquet_file_are_no_labels(column):
    refused(parquet(("text", ["t", "u"]), ("label", column)), label="label", format="parquet")


def test_numpy_values_are_labels_like_others():
    labels, names = encode([np.bool(True), np.bool(False)], None, Place("d", "f", range(2)))
    assert labels.tolist() == [1, 0] and names == ["False", "True"]


@pytest.mark.parametrize(
    ("labels", "positive", "expected"),
    [
        (("true", "false"), "True", ["false", "true"]),
        (("TRUE", "FALSE"), "true", ["FALSE", "TRUE"]),
        (("1.0", "0.0"), "1", ["0.0", "1.0"]),
        ((" yes", " no"), "yes", [" no", " yes"]),
        (("0", "1"), "0", ["1", "0"]),
    ],
)
def test_h_the_positive_class_may_be_named_by_its_value(labels, positive, expected):
    assert make(csv(*labels), label="label", positive=positive)[1]["classes"] == expected
    refused(csv(*labels), "no label 'x' (config key `positive`)", label="label", positive="x")


def test_h_a_positive_class_that_could_be_two_strings_is_to_be_written_exactly():
    data = rows("01", "1", "0")
    refused(data, "write one of '01', '1'", label="label", format="jsonl", positive="1.0")
    found = make(data, label="label", format="jsonl", positive="1")[1]
    assert found["classes"] == ["not 1", "1"] and found["counts"] == [2, 1]


@pytest.mark.parametrize(
    ("cells", "wanted", "kept"),
    [
        (("true", "false", "true"), ["True"], ["t0", "t2"]),
        (("1.0", "2.0", "1.0"), ["1"], ["t0", "t2"]),
        (("en ", "de ", "en "), ["en"], ["t0", "t2"]),
        (("True", "true", "false"), ["True", "true"], ["t0", "t1"]),
        (("a", "", "b"), [None, "b"], ["t1", "t2"]),
    ],
)
def test_h_a_kept_value_means_the_cells_of_that_value(cells, wanted, kept):
    assert texts(csv(*cells), keep={"label": wanted}) == kept


def test_a2_a_kept_value_that_the_file_spells_in_two_ways_must_be_listed():
    words = ["column 'label' spells 'True' in 2 ways: 'true', 'True'",
             'write `keep: {label: ["true", "True"]}`']  # fmt: skip
    refused(csv("true", "True", "false"), *words, keep={"label": ["True"]})
    refused(csv("1", "1.0"), "in 2 ways", keep={"label": ["1"]})
    refused(csv("true", "false"), "its values are 'true', 'false'", keep={"label": ["yes"]})


@pytest.mark.parametrize("key", ["group", "split", "pair"])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1, "1"), ["row 1 (line 2): column 'label' holds '1'", "types int and str"]),
        ((True, "True"), ["types bool and str"]),
        ((1, 1.0), ["types float and int"]),
        ((2.0**60, 2.0**60 + 256), ["too large to be exact"]),
        (("a", "\ud800"), ["surrogate"]),
        (("a", ["b"]), ["of type list; expected a string"]),
        (("a", {"b": 1}), ["of type dict"]),
    ],
)
def test_a2_names_that_would_merge_or_part_by_their_type_are_refused(key, values, words):
    refused(rows(*values), *words, format="jsonl", **{key: "label"})


@pytest.mark.parametrize("key", ["group", "split", "pair"])
@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (
            ("1", "2", "1.0"),
            ["row 2 (line 4): column 'label' holds '1.0'", "'1' in row 0 (line 2)"],
        ),
        (("01", "", "1"), ["'1'", "'01'"]),
        (("True", "true"), ["'true'", "'True'"]),
        (("train", "test", "train "), ["'train '", "'train'"]),
        (("1e2", "100"), ["'100'", "'1e2'"]),
    ],
)
def test_a2_two_spellings_of_one_group_are_refused_naming_both(key, cells, found):
    refused(csv(*cells), *found, "two spellings of one name", **{key: "label"})


@pytest.mark.parametrize("cells", [("1e2", "100", "x"), ("01-a", "1-a"), ("NA", "nan"), ("1", "2")])
def test_a2_groups_are_names_as_they_are_written(cells):
    assert make(csv(*cells), group="label")[0]["group"].to_pylist() == list(cells)
    typed = make(rows("01", "1"), group="label", format="jsonl")[0]
    assert typed["group"].to_pylist() == ["01", "1"]


def test_a2_ids_of_two_types_are_refused_and_others_stay_as_they_are():
    refused(rows(1, "1"), "types int and str", format="jsonl", id="label")
    assert make(csv("01", "1", "1.0"), id="label")[0]["id"].to_pylist() == ["01", "1", "1.0"]


def test_texts_of_another_type_are_refused():
    for column in (pa.array([b"a"]), pa.array([1]), pa.array([["a"]]), pa.array([None])):
        refused(parquet(("text", column)), "row 0 (counted from 0): the text is", format="parquet")


def test_a_column_of_texts_taken_for_labels_is_refused_before_the_header_overflows():
    data = csv(*(f"{i}{'x' * 200}" for i in range(2000)))
    refused(data, "2000 different labels in 2000 rows", "right column", label="label")
    with pytest.raises(BadInput, match=r"101 different values.*expected the names of a few splits"):
        make(csv(*range(101)), split="label")
