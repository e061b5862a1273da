"""Tables as CSV files: a spreadsheet runs nothing that stands in them, and they read back exactly."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actprobe.results import csvs

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "=1\n=2",
]


def there_and_back(path: Path, values: list[str]) -> list[str]:
    table = pd.DataFrame({"name": pd.Series(values, dtype="str"), "n": np.arange(len(values)) / 3})
    csvs.write(table, path)
    back = csvs.read(path, ["name"])
    assert back["n"].tolist() == table["n"].tolist()
    return back["name"].tolist()


@pytest.mark.parametrize("text", HOSTILE)
def test_e8_what_a_spreadsheet_would_run_begins_with_an_apostrophe(tmp_path, text):
    csvs.write(pd.DataFrame({"=label": [text, "plain"]}), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as f:
        cells = [cell for row in csv.reader(f) for cell in row]
    assert cells == ["'=label", f"'{text}", "plain"]
    assert there_and_back(tmp_path / "t.csv", [text, f"'{text}"]) == [text, f"'{text}"]


def test_e8_numbers_stay_numbers(tmp_path):
    csvs.write(pd.DataFrame({"delta": [-0.5, 1e-9], "class": ["-1", "+1.5e3"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "delta,class\n-0.5,-1\n1e-09,+1.5e3\n"


def test_words_for_nothing_are_text_and_empty_cells_are_not(tmp_path):
    words = ["NA", "null", "nan", "None", "", "007", "1e5", "True"]
    assert there_and_back(tmp_path / "t.csv", words) == words
    csvs.write(pd.DataFrame({"x": [1.5, np.nan], "yes": [True, False]}), tmp_path / "n.csv")
    back = csvs.read(tmp_path / "n.csv")
    assert back["yes"].tolist() == [True, False] and np.isnan(back["x"][1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_reads_back_as_it_was(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("c") / "t.csv"
    assert there_and_back(path, values) == values
    with open(path, newline="", encoding="utf-8") as f:
        cells = [cell for row in csv.reader(f) for cell in row]
    assert not any(
        cell[:1] in {"=", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"} for cell in cells
    )
