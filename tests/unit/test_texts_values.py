"""Labels that are values of a continuous quantity: told by the values, or by `label_kind`."""

from __future__ import annotations

import numpy as np
import pytest
from texts_inputs import build, jsonl, make, parquet, refused

from actprobe.base.errors import ConfigError
from actprobe.cache import store
from actprobe.texts.table import load


def csv(*labels):
    return "text,label\n" + "".join(f"t{i},{v}\n" for i, v in enumerate(labels))


def kind(data, **spec):
    table, facts = make(data, label="label", **spec)
    return facts.get("kind", "classes"), (
        table["value"].to_pylist() if "value" in table.column_names else facts["classes"]
    )


def test_fractions_are_values():
    assert kind(csv("0.5", "1", "-2e-3")) == ("continuous", [0.5, 1.0, -0.002])


def test_many_whole_numbers_are_values_and_few_are_classes():
    years = [1990 + i for i in range(21)]
    assert kind(csv(*years)) == ("continuous", [float(y) for y in years])
    assert kind(csv(*years[:20])) == ("classes", list(map(str, years[:20])))


def test_the_config_overrules_the_values():
    assert kind(csv(1, 2, 3), label_kind="continuous")[0] == "continuous"
    assert kind(csv(*range(40)), label_kind="multiclass")[0] == "classes"
    assert kind(csv(*range(40)), positive="7")[1] == ["not 7", "7"]


def test_numbers_in_every_format():
    rows = [{"text": f"t{i}", "label": v} for i, v in enumerate((1, 2.5, 4))]
    assert kind(jsonl(*rows), format="jsonl") == ("continuous", [1.0, 2.5, 4.0])
    typed = parquet(("text", ["a", "b"]), ("label", np.array([1.5, 2], np.float32)))
    assert kind(typed, format="parquet") == ("continuous", [1.5, 2.0])


def test_numbers_that_json_holds_as_strings_are_words():
    rows = [{"text": f"t{i}", "label": v} for i, v in enumerate(("0.5", "1.5"))]
    assert kind(jsonl(*rows), format="jsonl") == ("classes", ["0.5", "1.5"])


def test_two_spellings_of_a_value_are_one_value():
    assert kind(csv("01.50", "1.5", "+2"))[1] == [1.5, 1.5, 2.0]


@pytest.mark.parametrize(
    ("labels", "spec", "words"),
    [
        (
            ("0.5", "nan", "1"),
            {},
            ["row 1 (line 3): the label is missing", "`where` leave rows out"],
        ),
        (("0.5", "", "1"), {}, ["the label is missing"]),
        (("0.5", "high"), {"label_kind": "continuous"}, ["row 1 (line 3)", "'high' is no number"]),
        (("0.5", "True"), {"label_kind": "continuous"}, ["'True' is no number"]),
        (("0.5", "1e999"), {}, ["'1e999' is too large"]),
        (("2", "2"), {"label_kind": "continuous"}, ["all 2 labels are 2"]),
        (("0.5", "1"), {"label_kind": "multiclass"}, ["the label 0.5 is not a class"]),
        (("a", "b", "c"), {"label_kind": "binary"}, ["binary", "3 different labels"]),
    ],
)
def test_what_is_no_value_is_refused_with_its_row(labels, spec, words):
    refused(csv(*labels), *words, label="label", **spec)


def test_words_among_numbers_are_classes_as_before():
    refused(csv("0", "1", "NA"), "'NA' stands among labels that are numbers", label="label")


def test_the_artefact_holds_the_values(tmp_path):
    (tmp_path / "d.csv").write_text(csv("0.5", "1.25", "9"))
    [t] = build(tmp_path, {"name": "d", "path": str(tmp_path / "d.csv")})
    read = load(t.path)
    assert read.label is None and read.value.tolist() == [0.5, 1.25, 9.0]
    facts = store.read_header(t.path)["facts"]
    assert facts["values"] == {"least": 0.5, "most": 9.0} and facts["classes"] == []


def test_a_changed_value_changes_the_content(tmp_path):
    path = tmp_path / "d.csv"
    found = []
    for last in ("9", "8"):
        path.write_text(csv("0.5", "1.25", last))
        [t] = build(tmp_path, {"name": "d", "path": str(path)})
        found.append(store.read_header(t.path)["facts"])
    assert found[0]["rows"] == found[1]["rows"] and found[0]["content"] != found[1]["content"]


def test_a_positive_class_and_a_kind_contradict_each_other(tmp_path):
    (tmp_path / "d.csv").write_text(csv("1", "2"))
    entry = {
        "name": "d",
        "path": str(tmp_path / "d.csv"),
        "positive": 1,
        "label_kind": "continuous",
    }
    with pytest.raises(ConfigError, match="dataset d: `positive` makes two classes"):
        build(tmp_path, entry)
