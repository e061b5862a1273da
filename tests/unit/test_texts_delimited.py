"""csv and tsv, cell by cell: quotes, line breaks, separators; what breaks the rules has a line."""

from __future__ import annotations

import pytest
from texts_inputs import classes, make, refused, texts

from actprobe.base.errors import BadInput

STRAY = 'text\tlabel\n"Hello, she said\t1\nb\t0\nc\t1\n"Hi again\t0\nd\t1\ne\t0\n'


def test_a1_a_quote_that_opens_no_closed_field_is_text_in_a_tsv():
    table, facts = make(STRAY, format="tsv", label="label")
    assert table["text"].to_pylist() == ['"Hello, she said', "b", "c", '"Hi again', "d", "e"]
    assert table["label"].to_pylist() == [1, 0, 1, 0, 1, 0]
    assert facts["quoting"] == "none" and facts["multiline"] == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('text\tn\n"never closed\t1\nb\t2\n', ['"never closed', "b"]),
        ('text\tn\n"a" b\t1\n"c"\t2\n', ['"a" b', '"c"']),  # one proof that quotes are text
        ('text\tn\nsay "hi"\t1\n"c"\t2\n', ['say "hi"', '"c"']),
        ('text\tn\r\n"open\t1\r\nb\t2\r\n', ['"open', "b"]),
        ('text\tn\n5" nails\t1\n', ['5" nails']),
        ('text\tn\n""\t1\n"a\t2\n', ['""', '"a']),
    ],
)
def test_a1_one_quote_out_of_place_makes_all_quotes_of_a_tsv_text(data, expected):
    assert texts(data, format="tsv") == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('text\tn\n"a ""b"", c"\t1\nd\t2\n', ['a "b", c', "d"]),
        ('text\tn\n"two\nlines"\t1\n', ["two\nlines"]),
        ('text\tn\n"a\tb"\t1\n', ["a\tb"]),
        ('"text"\t"n"\n"a"\t"1"\n', ["a"]),
    ],
)
def test_a_tsv_whose_quotes_all_keep_the_rules_is_read_by_them(data, expected):
    assert texts(data, format="tsv") == expected
    assert texts(data, format="csv", separator="\t") == expected


def test_a1_a_tsv_that_can_be_read_both_ways_is_refused_with_the_line():
    data = 'text\tn\nx\t0\n"Hello\t1\nb\t2\nc"\t3\n'
    refused(data, "line 3", "2 rows", "4", "`quotes: true`", "`quotes: false`", format="tsv")
    assert texts(data, format="tsv", quotes=True) == ["x", "Hello\t1\nb\t2\nc"]
    assert texts(data, format="tsv", quotes=False) == ["x", '"Hello', "b", 'c"']
    refused('text\n"a\nb"\n', "line 2", format="tsv")  # one column: every line could be a row
    refused('text\tn\n"\t1\n"\t2\n', "line 2", format="tsv")


def test_a1_texts_that_span_lines_are_counted():
    _, facts = make('text,n\n"a\nb",1\nc,2\n"d\re",3\n')
    assert facts["multiline"] == 2 and facts["quoting"] == "rfc4180"
    assert make('[{"text": "a\\nb"}, {"text": "c"}]', format="json")[1]["multiline"] == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('text,n\n"Hello,1\nb,2\n"Hi,3\n', ["line 2", "'H' after the closing quote"]),
        ('text,n\na,1\n"b,2\nc,3\n', ["line 3", "never closed"]),
        ('text,n\na,1\n"b ""c"" d,2\n', ["line 3", "never closed"]),
        ('text,n\n"a"b,1\n', ["line 2", "'b' after the closing quote of the cell 'a'"]),
        ('text,n\n"a" ,1\n', ["line 2", "' ' after the closing quote"]),
        ('text,n\nsay "a, b",1\n', ["line 2", "a quote in a cell that does not begin with one"]),
        ('text,n\n "a",1\n', ["line 2", "a quote in a cell that does not begin with one"]),
        ('text,n\n"two\nlines",1\nb"c,2\n', ["line 4", "each quote in it twice", "quotes: false"]),
        ('text,n\n"two\nlines","1"2\n', ["line 3", "after the closing quote"]),
    ],
)
def test_a1_a_quote_out_of_place_in_a_csv_is_refused_with_the_line(data, words):
    refused(data, *words)


def test_quotes_can_be_text_in_a_csv():
    assert texts('text,n\nsay "a" b,1\n"c,2\n', quotes=False) == ['say "a" b', '"c']


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("text,n\na\nb,1\n", ["line 2: 1 cell, the header has 2"]),
        ("text,n\na,1\n\nb,1,2\n", ["line 4: 3 cells, the header has 2"]),
        ("text,n\na,1\n  \n", ["line 3: 1 cell"]),
        ("text\na\n,\n", ["line 3: 2 cells"]),
    ],
)
def test_rows_with_too_few_or_too_many_cells_are_refused_with_the_line(format, rows, words):
    refused(rows.replace(",", "\t" if format == "tsv" else ","), *words, format=format)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\0"])
@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_only_lf_and_crlf_end_a_line(mark, format):
    data = f"text,n\na{mark}b,1\r\n{mark}c,2\n".replace(",", "\t" if format == "tsv" else ",")
    if mark == "\0":
        data = data.replace("\0c", "c\0")
    assert texts(data, format=format) == [f"a{mark}b", f"{mark}c" if mark != "\0" else "c\0"]


def test_a_lone_carriage_return_is_text_in_quotes_and_refused_elsewhere():
    assert texts('text,n\n"a\rb",1\n"c\r\nd",2\r\n') == ["a\rb", "c\r\nd"]
    for format in ("csv", "tsv"):
        data = "text,n\na,1\nb\rc,2\n".replace(",", "\t" if format == "tsv" else ",")
        refused(data, "line 3", "a carriage return without a line feed", format=format)
    refused("text,n\ra,1\rb,2\r", "line 1", "a line ends with LF or CRLF")
    refused('text,n\n"a"\r,1\n', "line 2")


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n", "\r\n\r\n"])
def test_the_end_of_the_file_is_no_row(end):
    assert texts(f"text,n\na,1\nb,2{end}") == ["a", "b"]
    assert texts(f'text,n\na,1\n"b","2"{end}') == ["a", "b"]
    assert texts(f"text\tn\na\t1\nb\t2{end}", format="tsv") == ["a", "b"]


def test_spaces_and_an_empty_last_cell_are_kept():
    table, _ = make("text,n\n a  ,\n", group="n")
    assert table["text"].to_pylist() == [" a  "] and table["group"].to_pylist() == [None]


def test_a_row_is_named_by_the_line_in_which_it_begins():
    refused('text,n\n"two\nlines",1\n\n"",2\n', "row 1 (line 5): the text is empty")


def test_e8_a_label_that_looks_like_a_formula_is_data():
    data = "text,label\na,=cmd|'/c calc'!A0\nb,+1\nc,@x\n"
    assert classes(data) == ["=cmd|'/c calc'!A0", "+1", "@x"]


@pytest.mark.parametrize(
    ("header", "spec", "words"),
    [
        ("text\tlabel", {}, "write `format: tsv`"),
        ('"text"\t"label"', {}, "write `format: tsv`"),
        ("text;label", {}, 'write `format: csv` and `separator: ";"`'),
        ('"text";"label"', {}, 'write `format: csv` and `separator: ";"`'),
        ("text|label", {"format": "tsv"}, 'write `format: csv` and `separator: "|"`'),
        ("text,label", {"format": "tsv"}, "write `format: csv`"),
        ("text,label", {"separator": ";"}, "write `format: csv` and no `separator`"),
    ],
)
def test_h_another_separator_is_recognised_and_named(header, spec, words):
    refused(f"{header}\na\n", words, **{"label": "label"} | spec)


def test_h_a_separator_of_ones_own():
    assert classes('text;label\n"a;b";0\nc,d;1\n', separator=";") == ["0", "1"]


@pytest.mark.parametrize(
    ("header", "spec", "words"),
    [
        (" text,n", {}, 'write `" text"`'),
        ("Text,n", {}, 'write `"Text"`'),
        (",text", {"id": "Unnamed: 0"}, 'that column has no name: write `""`'),
        ("txt,n", {}, "did you mean 'txt'"),
    ],
)
def test_h_a_column_of_nearly_that_name_is_named_as_it_must_be_written(header, spec, words):
    refused(f"{header}\na,b\n", words, **spec)


def test_a_column_without_a_name_can_be_named():
    table, _ = make(",text\nx,a\ny,b\n", id="", group="")
    assert table["id"].to_pylist() == table["group"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("text\na".encode("utf-16"), ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("text\na".encode("utf-16-le"), ["UTF-16"]),
        ("text\na".encode("utf-16-be"), ["UTF-16"]),
        ("text\na".encode("utf-32"), ["UTF-32"]),
        (b"PK\x03\x04\xff", [".xlsx", "CSV in UTF-8"]),
        (b"\x1f\x8b\xff", ["gunzip"]),
        (b"\x28\xb5\x2f\xfd\xff", ["`format: csv.zst`"]),
        (b"PAR1\xff", ["`format: parquet`"]),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(data, words):
    refused(data, *words)


def test_messages_stay_short_whatever_is_in_the_file():
    for data, spec in [
        (",".join(f"column {i}" for i in range(9999)) + "\na\n", {}),
        (f'text\n"{"a" * 99999}"b\n', {}),
        (f"text,label\na,{'x' * 99999}\n", {"label": "label"}),
        (f"text,label\na,{'x' * 99999}\n", {"keep": {"label": ["y"]}}),
    ]:
        with pytest.raises(BadInput) as e:
            make(data, **spec)
        assert len(str(e.value)) < 700
