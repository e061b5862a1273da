"""Text, tokens and labels arrive as they are written: hostile files against independent readers.

The oracles are Python's csv module in strict mode, json and pyarrow; none of them is what the
package reads with (json apart, whose leniency is checked). A file is read as the oracle reads it,
or refused by the dataset's name with a line or a row.
"""

from __future__ import annotations

import csv
import decimal
import io
import json
import math
import re

import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from texts_inputs import classes, make, parquet, texts

from actprobe.base.errors import BadInput

bounded = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# What readers trip over, and any other character but half a surrogate pair.
hostile = st.text(
    st.one_of(
        st.sampled_from("ab \"',;\t\\\0\ufeff" + BREAKS),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=8,
)
filled = hostile.filter(lambda s: s.strip())
plain = st.text(st.sampled_from("ab \"',;\\\u2028\x85"), min_size=1, max_size=6).filter(str.strip)
ends = st.sampled_from(["\n", "\r\n"])


def apart(rows):
    """True when no two groups (second cells) are spellings of one name."""
    names = {n for _, n in rows if n}
    digits = all(re.fullmatch(r"[\d.eE+-]+", n.strip()) for n in names)
    return len({n.strip() for n in names}) == len(names) and (len(names) < 2 or not digits)


def table_of(cells, others):
    return st.lists(st.tuples(cells, others), min_size=1, max_size=5).filter(apart)


def read(data, **spec):
    """(texts, groups) of a file, or None when it is refused, with its place."""
    try:
        table, _ = make(data, **{"group": "n"} | spec)
    except BadInput as e:
        message = str(e)
        assert message.startswith("dataset d, d.csv: ")
        assert re.search(r"line \d+|row \d+|no rows|is empty|no column|both called|JSON", message)
        return None
    return list(zip(table["text"].to_pylist(), table["group"].to_pylist(), strict=True))


def written(rows, separator, end, quoting):
    """A table as the csv module writes it; before Python 3.13 it forgot to quote a lone CR."""
    out = io.StringIO(newline="")
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL
    writer = csv.writer(out, quoting=quoting, lineterminator=end, delimiter=separator)
    writer.writerows([("text", "n"), *rows])
    return out.getvalue()


def strict(data, separator=","):
    """What the csv module sees in strict mode: rows below the header, or None."""
    reader = csv.reader(io.StringIO(data, newline=""), delimiter=separator, strict=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error:
        return None
    return (
        [(row[0], row[1] or None) for row in rows[1:]] if all(len(r) == 2 for r in rows) else None
    )


def by_lines(data):
    """What a reader without quotes sees in a tsv: one row per line, cells between tabs."""
    lines = [line.removesuffix("\r") for line in data.split("\n")]
    rows = [line.split("\t") for line in lines if line]
    return (
        [(row[0], row[1] or None) for row in rows[1:]] if all(len(r) == 2 for r in rows) else None
    )


@bounded
@given(
    rows=table_of(filled, hostile),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=ends,
    separator=st.sampled_from(",;|\t"),
    start=st.sampled_from(["", "\ufeff"]),
    packed=st.booleans(),
)
def test_what_the_csv_module_writes_is_what_is_stored(rows, quoting, end, separator, start, packed):
    data = (start + written(rows, separator, end, quoting)).encode()
    if packed:
        data = zstandard.ZstdCompressor().compress(data)
    format = "csv.zst" if packed else "csv"
    found = read(data, format=format, separator=None if separator == "," else separator)
    assert found == [(text, n or None) for text, n in rows]


@bounded
@given(body=st.text(st.sampled_from('ab,"\n\r \u2028\0'), max_size=30), end=ends)
def test_any_csv_is_read_as_the_csv_module_reads_it_or_refused(body, end):
    data = f"text,n{end}{body}"
    found = read(data)
    assert found is None or found == strict(data)


@bounded
@given(body=st.text(st.sampled_from('a,"\n'), max_size=12))
def test_a_csv_is_refused_only_for_a_reason_that_can_be_named(body):
    data = f"text,n\n{body}"
    rows, found = strict(data), read(data)
    if rows and found is None:
        # Quotes in the middle of a cell, a text without content: the oracle takes both.
        inside = any('"' in cell for row in rows for cell in row if cell)
        assert inside or any(not text.strip() for text, _ in rows) or not apart(rows)


@bounded
@given(body=st.text(st.sampled_from('ab\t"\n\r \u2028'), max_size=30), end=ends)
def test_any_tsv_is_read_by_one_of_the_two_rules_or_refused(body, end):
    data = f"text\tn{end}{body}"
    found = read(data, format="tsv")
    assert found is None or found in (strict(data, "\t"), by_lines(data))
    assert read(data, format="tsv", quotes=False) in (None, by_lines(data))
    assert read(data, format="tsv", quotes=True) in (None, strict(data, "\t"))


@bounded
@given(rows=table_of(plain, plain), end=ends)
def test_a_tsv_without_quoting_keeps_its_quotes_and_its_rows(rows, end):
    data = end.join("\t".join(row) for row in [("text", "n"), ("a", "[b]"), *rows])
    assert read(data, format="tsv", quotes=False) == [("a", "[b]"), *rows]
    stray = data + f'{end}say "hi"\t[c]'  # a writer that quotes would have quoted this
    assert read(stray, format="tsv") == [("a", "[b]"), *rows, ('say "hi"', "[c]")]


@bounded
@given(rows=table_of(filled, hostile), end=ends)
def test_a_tsv_with_quoting_is_read_back_or_refused_as_ambiguous(rows, end):
    data = written(rows, "\t", end, csv.QUOTE_MINIMAL)
    found = read(data, format="tsv")
    assert found in (None, [(text, n or None) for text, n in rows])
    assert found or by_lines(data) is not None


values = st.one_of(filled, st.integers(), st.booleans(), st.none())


@bounded
@given(
    rows=st.lists(st.fixed_dictionaries({"text": filled}, optional={"more": values}), min_size=1),
    end=ends,
    ascii=st.booleans(),
    packed=st.booleans(),
)
def test_what_json_writes_is_what_is_stored(rows, end, ascii, packed):
    expected = [row["text"] for row in rows]
    lines = end.join(json.dumps(r, ensure_ascii=ascii) for r in rows)
    for data, format in [
        (lines, "jsonl"),
        (json.dumps(rows, ensure_ascii=ascii, indent=1), "json"),
        (json.dumps({"text": expected}, ensure_ascii=ascii), "json"),
    ]:
        content = zstandard.ZstdCompressor().compress(data.encode()) if packed else data.encode()
        assert texts(content, format=format + ".zst" * packed) == expected


@bounded
@given(
    lines=st.lists(
        st.one_of(
            st.text(st.sampled_from('{}[]",: \r\u2028\x0c\ufeffn1'), max_size=6),
            st.builds(
                '{{"text":{}, "n":{}}}{}'.format,
                st.sampled_from(['"a"', '"\u2028"', '"b\\u0085"', "1", "NaN", "null", '"a\tb"']),
                st.sampled_from(
                    ['"x"', "null", "NaN", "-Infinity", '"y", "n": "z"', '"w", "m": 1']
                ),
                st.sampled_from(["", " ", "\r", ",", "\u2028", '{"text":"b"}']),
            ),
        ),
        max_size=3,
    )
)
def test_any_jsonl_is_read_as_a_strict_reader_reads_it_or_refused(lines):
    found = read("\n".join(lines), format="jsonl")
    if found is not None:
        rows = [strict_json(line) for line in lines if line.strip(" \t\r\n")]
        assert found == [(row["text"], row.get("n")) for row in rows]


def strict_json(line):
    """json without what JSON does not have: NaN, Infinity, a key that stands twice."""

    def once(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def never(_):
        raise AssertionError("JSON has no such constant")

    return json.loads(line, object_pairs_hook=once, parse_constant=never)


@bounded
@given(rows=st.lists(filled, min_size=1, max_size=6), data=st.data())
def test_what_pyarrow_writes_is_what_is_stored(rows, data):
    kinds = [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ]
    column = pa.array(rows).cast(data.draw(st.sampled_from(kinds)))
    numbers = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(),
                                 min_size=len(rows), max_size=len(rows)))  # fmt: skip
    content = parquet(("text", column), ("n", pa.array(numbers, pa.int64())))
    expected = [None if n is None else str(n) for n in numbers]
    assert read(content, format="parquet") == list(zip(rows, expected, strict=True))


SPELLINGS = [
    "0", "1", "01", "1.0", "1e0", "+1", " 1", "1 ", "-0", "-0.0", "0.5", "2", "10", "９", "9",
    "True", "true", "TRUE", "False", "false", "nan", "NaN", "NA", "None", "null", "", " ",
    "x", "x ", "X", "=x", "9007199254740993", "9007199254740993.0", "9007199254740992", "1e400",
]  # fmt: skip


@settings(bounded, max_examples=400)
@given(labels=st.lists(st.sampled_from(SPELLINGS), min_size=2, max_size=6))
def test_labels_of_a_csv_are_the_strings_that_are_written_or_refused(labels):
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("text", "label"), *(("t", v) for v in labels)])
    try:
        assert classes(out.getvalue(), label_kind="multiclass") == labels
    except BadInput as e:
        assert any(
            repr(v) in str(e) or f"label {v} " in str(e) for v in labels
        ) or "missing" in str(e)
        return
    different = set(labels)
    assert len({decimal.Decimal(v) for v in different if number(v)}) == sum(map(number, different))
    assert len({v.strip().lower() if truth(v) else v.strip() for v in different}) == len(different)
    assert not different & {"", " ", "nan", "NaN"}


def number(text):
    try:
        return decimal.Decimal(text.strip()).is_finite()
    except decimal.InvalidOperation:
        return False


def truth(text):
    return text.strip().lower() in ("true", "false")


@settings(bounded, max_examples=300)
@given(
    labels=st.lists(
        st.one_of(
            st.sampled_from([0, 1, 1.0, 0.0, -0.0, True, False, "1", "01", "", "nan", None, 0.5]),
            st.integers(2**53 - 1, 2**53 + 2), st.floats(2.0**53 - 1, 2.0**53 + 2), filled,
        ),
        min_size=2, max_size=5,
    )
)  # fmt: skip
def test_labels_of_json_are_apart_where_json_has_them_apart(labels):
    data = json.dumps([{"text": "t", "label": v} for v in labels])
    try:
        found = classes(data, format="json", label_kind="multiclass")
    except BadInput:
        return
    back = [v["label"] for v in json.loads(data)]
    assert [type(v) for v in back] == [type(v) for v in labels]
    pairs = {((type(v), v) if isinstance(v, str | bool) else float_free(v)) for v in back}
    assert len(pairs) == len(set(found))
    assert found == [str(int(v)) if isinstance(v, float) else str(v) for v in back]


def float_free(value):
    assert math.isfinite(value) and value == int(value)
    return int(value)


@pytest.mark.parametrize("format", ["csv", "tsv", "json", "jsonl", "parquet"])
@bounded
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_never_crash(format, data):
    try:
        make(data, format=format)
    except BadInput as e:
        assert str(e).startswith("dataset d, d.csv: ")
    try:
        make(b"text\tn\r\ntext,n\n" + data, format=format + (".zst" if format == "csv" else ""))
    except BadInput as e:
        assert str(e).startswith("dataset d, d.csv: ")
