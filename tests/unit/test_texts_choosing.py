"""Several columns in one text, rows chosen by comparison, and samples."""

from __future__ import annotations

from collections import Counter

import pytest
from texts_inputs import CHAT, build, jsonl, loaded, parquet, unusable

from actprobe import texts
from actprobe.base.errors import ConfigError

ROWS = [
    {"premise": "It rains.", "claim": "It is wet.", "score": 0.9, "day": "2024-03-01", "y": "yes"},
    {"premise": "{claim}", "claim": "", "score": 0.5, "day": "2024-01-31", "y": "no"},
    {"premise": "Sun.", "claim": "Wet.", "score": -1, "day": "2023-12-31", "y": "no"},
]


def read(folder, rows=ROWS, **entry):
    return loaded(folder, jsonl(*rows), **entry)


def refused(folder, entry, words):
    with pytest.raises(ConfigError, match="dataset d") as e:
        read(folder, **entry)
    assert words in str(e.value)


# -- templates of several columns


def test_a_template_takes_any_columns_and_reads_them_once(tmp_path):
    template = "{premise} Hence: {claim} ({score}) {{text}}"
    assert read(tmp_path, template=template).text.tolist() == [
        "It rains. Hence: It is wet. (0.9) {text}",
        "{claim} Hence:  (0.5) {text}",
        "Sun. Hence: Wet. (-1) {text}",
    ]


def test_text_in_a_template_is_the_text_column_and_must_hold_one(tmp_path):
    found = read(tmp_path, text="premise", template="{text}\n{claim}")
    assert found.text.tolist() == ["It rains.\nIt is wet.", "{claim}\n", "Sun.\nWet."]
    data = jsonl({"text": "a", "more": "x"}, {"text": " ", "more": "x"})
    unusable(tmp_path, data, "row 1 (line 2)", "only white space", template="{text} {more}")


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "column 'more' has no value"), ([1], "column 'more' holds a list")],
)
def test_a_cell_that_is_no_text_is_refused_with_its_row(tmp_path, value, words):
    data = jsonl({"text": "a", "more": "x"}, {"text": "b", "more": value})
    unusable(tmp_path, data, "row 1 (line 2)", words, template="{text} {more}")


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    unusable(tmp_path, jsonl(*ROWS), "no column 'claims'", "template: {claims}", "claim",
             template="{premise} {claims}")  # fmt: skip


@pytest.mark.parametrize("template", ["{", "a } b", "{text} {}", "{{text}}", "plain"])
def test_a_template_that_is_none_is_refused_before_files_are_read(tmp_path, template):
    refused(tmp_path, {"template": template}, "template")


# -- rows by comparison


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"score": ">= 0.5"}, [0, 1]),
        ({"score": "<.5"}, [2]),
        ({"score": "== 0.50"}, [1]),
        ({"score": "!= 0.5"}, [0, 2]),
        ({"score": [">= -1", "< 0.9"]}, [1, 2]),
        ({"day": ">= 2024-01-01"}, [0, 1]),  # not numbers: by code point
        ({"y": "== no", "score": "> 0"}, [1]),
        ({"premise": "~ ^(It|Sun)"}, [0, 2]),
        ({"premise": r"!~ \.$"}, [1]),
    ],
)
def test_where_compares(tmp_path, where, rows):
    found = read(tmp_path, text="premise", where=where)
    assert found.text.tolist() == [ROWS[i]["premise"] for i in rows]


def test_a_cell_without_a_value_fulfils_no_condition(tmp_path):
    rows = [{"text": "a", "n": None}, {"text": "b", "n": 1}]
    for sign in ("!= 1", "!~ x", "< 5"):
        assert len(read(tmp_path, [*rows, {"text": "c", "n": 2}], where={"n": sign})) in (1, 2)
    assert read(tmp_path, [*rows, {"text": "c", "n": 2}], where={"n": "!= 1"}).text.tolist() == [
        "c"
    ]


def test_csv_and_parquet_numbers_are_compared_alike(tmp_path):
    csv = "text,n\na,10\nb,9\nc,1e1\n"
    assert loaded(tmp_path, csv, format="csv", where={"n": ">= 10"}).text.tolist() == ["a", "c"]
    data = parquet(("text", ["a", "b"]), ("n", [10, 9]))
    assert loaded(tmp_path, data, format="parquet", where={"n": "> 9"}).text.tolist() == ["a"]


def test_a_word_among_numbers_and_a_condition_nothing_fulfils_are_refused(tmp_path):
    data = jsonl({"text": "a", "n": "1"}, {"text": "b", "n": "many"})
    unusable(tmp_path, data, "row 1 (line 2)", "column 'n' holds 'many'; expected a number",
             where={"n": "> 0"})  # fmt: skip
    unusable(tmp_path, data, "no row with n == 3", "its values are", where={"n": "== 3"})


@pytest.mark.parametrize(
    ("condition", "words"),
    [("0.5", "'0.5' is no condition"), ("=> 1", "is no condition"), ("~ (", "no regular expression")],
)  # fmt: skip
def test_what_is_no_condition_is_refused_before_files_are_read(tmp_path, condition, words):
    refused(tmp_path, {"text": "premise", "where": {"score": condition}}, words)


# -- samples

MANY = [{"text": f"text {i}", "label": "ab"[i % 3 == 0], "n": i} for i in range(60)]


def sample(folder, rows=MANY, label="label", **how):
    return read(folder, rows, label=label, sample=how)


def test_a_sample_is_the_same_every_time_and_another_with_another_seed(tmp_path):
    first = sample(tmp_path, n=20).id.tolist()
    assert len(first) == 20 and first == sorted(first, key=int)
    assert sample(tmp_path, n=20).id.tolist() == first
    assert sample(tmp_path, n=20, seed=1).id.tolist() != first


def test_a_sample_hangs_on_what_rows_say_not_on_their_places(tmp_path):
    first = set(sample(tmp_path, n=20).text.tolist())
    more = [*MANY[::-1], {"text": "new", "label": "a", "n": 0}]
    assert len(set(sample(tmp_path, more, n=20).text.tolist()) & first) >= 19


def test_classes_keep_their_shares_or_are_equal(tmp_path):
    by = sample(tmp_path, n=30, by="label")
    assert by.facts["counts"] == [20, 10]
    assert by.facts["sample"] == {
        "n": 30, "of": 60, "seed": 0, "by": "label", "equal": False, "rows": {"a": 20, "b": 10},
    }  # fmt: skip
    assert sample(tmp_path, n=30, by="label", equal=True).facts["counts"] == [15, 15]


def test_every_value_has_a_row_and_a_column_may_be_named(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "kind": "odd" if i == 7 else "even"}
            for i in range(50)]  # fmt: skip
    found = sample(tmp_path, rows, n=10, by="kind")
    assert found.facts["sample"]["rows"] == {"even": 9, "odd": 1}


def test_equal_rows_and_chats_can_be_sampled(tmp_path):
    rows = [{"text": "same", "label": "ab"[i % 2]} for i in range(10)]
    assert len(sample(tmp_path, rows, n=6)) == 6
    chats = [{"messages": [*CHAT[:2], {"role": "assistant", "content": str(i)}]} for i in range(9)]
    found = read(tmp_path, chats, messages="messages", sample={"n": 4})
    assert found.chats is not None and len(found.chats) == 4


def test_filters_come_before_the_sample(tmp_path):
    found = read(tmp_path, MANY, sample={"n": 5}, where={"n": "< 8"})
    assert set(found.id.tolist()) <= set("01234567")
    assert found.facts["sample"]["of"] == 8


def test_how_many_of_how_many_stands_in_the_tables(tmp_path):
    (tmp_path / "d.jsonl").write_text(jsonl(*MANY))
    [t] = build(tmp_path, {"name": "d", "path": str(tmp_path / "d.jsonl"), "sample": {"n": 9}})
    [told] = texts.describe([t.path])
    assert (told["n"], told["sampled_from"]) == (9, 60)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"n": 61}, "sample: n: 61, and there are 60 rows; expected 60 at most"),
        ({"n": 1, "by": "label"}, "label has 2 different values; expected a row of each"),
        ({"n": 50, "by": "label", "equal": True}, "expected n: 40 at most, or `equal: false`"),
    ],
)
def test_a_sample_larger_than_the_data_is_refused(tmp_path, how, words):
    unusable(tmp_path, jsonl(*MANY), words, label="label", sample=how)


def test_a_sample_by_what_the_dataset_lacks_is_refused(tmp_path):
    refused(tmp_path, {"sample": {"n": 2, "by": "group"}}, "the dataset has no `group`")
    unusable(tmp_path, jsonl(*MANY), "no column 'kind' (config key `sample.by`)",
             sample={"n": 2, "by": "kind"})  # fmt: skip


def test_counts_are_exact_whatever_the_shares(tmp_path):
    rows = [{"text": f"t{i}", "k": "abcdefg"[min(6, i // 7)]} for i in range(100)]
    for n in (7, 8, 13, 50, 99):
        found = read(tmp_path, rows, sample={"n": n, "by": "k"})
        kinds = Counter(rows[int(i)]["k"] for i in found.id)
        assert len(found) == n and len(kinds) == 7
