"""Lists of tokens, walked without unpickling them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actprobe.errors import BadInput
from actprobe.wandb.tokens import open_tokens


def read(path: Path) -> list[list[Any]]:
    """The rows as lists of strings, or of ids where the file holds ids."""
    with open_tokens(path, path.suffix[1:], path.parent) as t:
        words: Any = t.vocabulary
        ids = [t.ids[a:b].tolist() for a, b in zip(t.offsets, t.offsets[1:], strict=False)]
        return ids if words is None else [[words[i] for i in row] for row in ids]


def saved(folder: Path, content: Any, protocol: int = 2) -> Path:
    torch.save(content, folder / "all_token_ids.pt", pickle_protocol=protocol)
    return folder / "all_token_ids.pt"


def pickled(folder: Path, data: bytes) -> Path:
    """A `.pt` file whose pickle is exactly this."""
    with zipfile.ZipFile(folder / "all_token_ids.pt", "w") as z:
        z.writestr("archive/data.pkl", data)
    return folder / "all_token_ids.pt"


@pytest.mark.parametrize("protocol", [2, 4, 5])
@given(
    rows=st.lists(st.lists(st.text(min_size=0, max_size=5), max_size=6), min_size=1, max_size=30)
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_of_strings_of_any_length(tmp_path, protocol, rows):
    rows = [[str(t.encode("utf-8", "ignore"), "utf-8") for t in row] for row in rows] + [["end"]]
    assert read(saved(tmp_path, rows, protocol)) == rows


@given(rows=st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), min_size=1, max_size=30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_of_ids(tmp_path, rows):
    rows = [*rows, [7]]
    assert read(saved(tmp_path, rows)) == rows


def test_many_windows_with_shared_and_long_strings(tmp_path):
    word = "x" * 300
    rows = [[word, f"Ġ{i % 17}", "é▁", word] for i in range(2500)]  # more than one batch of a list
    assert read(saved(tmp_path, rows)) == rows


def test_an_array_of_ids(tmp_path):
    ids = torch.arange(12).reshape(3, 4)
    torch.save(ids, tmp_path / "t.pt")
    np.save(tmp_path / "t.npy", ids.numpy().astype(np.int32))
    assert read(tmp_path / "t.pt") == read(tmp_path / "t.npy") == ids.tolist()
    np.save(tmp_path / "t.npy", ids.numpy() - 1)
    with pytest.raises(BadInput, match="token ids outside 0 to"):
        read(tmp_path / "t.npy")
    np.save(tmp_path / "t.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(BadInput, match=r"expected integers \[rows, length\]"):
        read(tmp_path / "t.npy")


def test_an_array_of_rows_without_tokens(tmp_path):
    np.save(tmp_path / "t.npy", np.zeros((3, 0), np.int64))
    header = (tmp_path / "t.npy").read_bytes()
    (tmp_path / "t.npy").write_bytes(header.replace(b"(3, 0), }          ", b"(1000000000, 0), } "))
    with pytest.raises(BadInput, match="holds no tokens"):
        read(tmp_path / "t.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a", 1]], "strings and numbers mixed"),
        ([["a"], "b"], "expected a list of lists"),
        ([[["a"]]], "not a list of lists of tokens"),
        ([[-1]], "token id -1"),
        ([[2**40]], "pickle operation 0x8a"),
        ([[1.5]], "pickle operation 0x47"),
        ([[None]], "pickle operation 0x4e"),
        ([{"a": 1}], "pickle operation 0x7d"),
        ([], "holds no tokens"),
        ([[]], "holds no tokens"),
    ],
)
def test_what_is_not_a_list_of_lists_of_tokens_is_refused(tmp_path, content, message):
    with pytest.raises(BadInput, match=message):
        read(saved(tmp_path, content))


def test_one_list_that_occurs_twice_is_refused(tmp_path):
    row = ["a", "b"]
    with pytest.raises(BadInput, match="occurs twice"):
        read(saved(tmp_path, [row, row]))


def test_a_list_that_holds_itself_is_refused(tmp_path):
    rows: list[Any] = []
    rows.append(rows)
    with pytest.raises(BadInput, match="occurs twice"):
        read(saved(tmp_path, rows))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]q\x00(",
        b"\x80\x02](X\xff\xff\xff\x7fab",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x02]h\x07.",
        b"\x80\x02]e.",
        b"\x80\x02]a.",
        b"\x80\x02].]",
        b"\x80\x02]cos\nsystem\n(X\x01\x00\x00\x00atR.",
        b"\x80\x02]",
    ],
)
def test_crafted_pickles(tmp_path, data):
    with pytest.raises(BadInput, match=r"all_token_ids\.pt"):
        read(pickled(tmp_path, data))


def test_random_damage_never_does_anything_but_raise(tmp_path):
    whole = pickle.dumps([[f"w{i}", "a", "b"] for i in range(20)], 2)
    chance = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[chance.integers(len(whole))] = chance.integers(256)
        try:
            read(pickled(tmp_path, bytes(damaged)))
        except BadInput:
            refused += 1
    assert refused > 100
