"""C12 and D15: what the header says is enough to refuse a dataset before a model is loaded."""

from __future__ import annotations

import json

from texts_inputs import jsonl, make

from actprobe.cache import store

ROWS = [
    {"text": "a", "y": "n", "who": "ann", "part": "train", "p": 1},
    {"text": "a", "y": "n", "who": "ann", "part": "test", "p": 1},
    {"text": "b", "y": "n", "who": "bob", "part": None, "p": 2},
    {"text": "a", "y": "y", "who": None, "part": "train", "p": None},
]


def test_c12_the_least_class_is_told_with_its_rows_and_different_texts():
    _, facts = make(jsonl(*ROWS), format="jsonl", label="y")
    assert facts["classes"] == ["n", "y"] and facts["counts"] == [3, 1]
    assert facts["least"] == {"class": "y", "rows": 1, "texts": 1}
    assert facts["duplicates"] == {"rows": 2, "conflicting": 3}


def test_d15_rows_texts_groups_splits_and_pairs_are_counted():
    _, facts = make(jsonl(*ROWS), format="jsonl", group="who", split="part", pair="p")
    assert (facts["n"], facts["texts"], facts["least"]) == (4, 2, None)
    assert facts["groups"] == {"number": 2, "rows": 3, "largest": 2}
    assert facts["pairs"] == {"number": 2, "rows": 3, "largest": 2}
    assert facts["splits"] == {"test": 1, "train": 2}


def test_d15_what_is_not_there_is_none():
    _, facts = make(jsonl(*ROWS), format="jsonl")
    assert facts["groups"] is facts["pairs"] is facts["splits"] is facts["quoting"] is None
    _, facts = make("text,who\na,\n", group="who")
    assert facts["groups"] is None


def test_c1_a_dataset_of_one_text_is_told():
    _, facts = make("text,label\n" + "identical text,0\nidentical text,1\n" * 100, label="label")
    assert (facts["n"], facts["texts"]) == (200, 1)


def test_contrastive_pairs_have_the_same_facts():
    data = jsonl({"q": "a\nb", "yes": "1", "no": "0"}, {"q": "c", "yes": "0", "no": "1"})
    pairs = {"answers": ("no", "yes"), "positive": "yes", "template": "{text}\n{answer}"}
    _, facts = make(data, format="jsonl", text="q", **pairs)
    assert facts["pairs"] == facts["groups"] == {"number": 2, "rows": 4, "largest": 2}
    assert (facts["n"], facts["texts"], facts["multiline"]) == (4, 4, 1)
    assert facts["least"] == {"class": "negative", "rows": 2, "texts": 2}
    assert facts["answers"] == {"0": [1, 1], "1": [1, 1]}


def test_facts_are_plain_and_fit_in_a_header(tmp_path):
    lines = "".join(f"t{i},class {i:05} {'x' * 10}\n" for i in range(9000))
    table, facts = make("text,label\n" + lines, label="label")
    json.dumps(facts)
    part = store.write_table(str(tmp_path / "d.0.parquet"), table, {}, facts)
    assert store.read_header(part)["facts"]["classes"] == facts["classes"]
