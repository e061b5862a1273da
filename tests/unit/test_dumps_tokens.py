"""Lists of tokens, walked without unpickling them."""

from __future__ import annotations

import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actprobe.base.errors import BadInput
from actprobe.dumps.tokens import open_tokens


def read(path: Path) -> list[list[Any]]:
    """The rows as lists of strings, or of ids where the file holds ids."""
    with open_tokens([(path, path.suffix[1:])], path.parent) as t:
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
    np.save(tmp_path / "t.npy", ids.numpy() - 2)
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
        ([[-2]], "token id -2"),
        ([[-1]], "holds no tokens"),
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


# --- F: the forms in which tokens are kept


def padded(path: Path) -> tuple[list[list[int]], list[int], Any]:
    """Rows without padding, lengths with it, and whether the file says where rows begin."""
    with open_tokens([(path, path.suffix[1:])], path.parent) as t:
        rows = [t.ids[a:b].tolist() for a, b in itertools.pairwise(t.offsets)]
        return rows, np.diff(t.places).tolist(), t.cut


IDS = [[5, 6, 7], [8, 9, 0]]
MASK = [[1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("mask", [torch.int64, torch.bool, torch.float32])
def test_f_input_ids_and_attention_mask(tmp_path, kind, mask):
    content = {
        "input_ids": torch.tensor(IDS, dtype=kind),
        "attention_mask": torch.tensor(MASK).to(mask),
        "token_type_ids": torch.zeros(2, 3, dtype=torch.int64),
    }
    assert padded(saved(tmp_path, content)) == ([[5, 6], [9, 0]], [3, 3], True)


@pytest.mark.parametrize("pad", [-1, -100])
def test_f_padding_is_told_by_negative_ids(tmp_path, pad):
    rows = [[5, 6, pad], [pad, pad, 0]]
    expected = ([[5, 6], [0]], [3, 3], True)
    assert padded(saved(tmp_path, torch.tensor(rows))) == expected
    assert padded(saved(tmp_path, rows)) == expected
    np.save(tmp_path / "t.npy", np.array(rows))
    assert padded(tmp_path / "t.npy") == expected


def test_f_ids_in_one_dimension_are_one_row_that_may_be_cut(tmp_path):
    for content in (torch.arange(6), list(range(6)), torch.arange(6).to(torch.int32)):
        assert padded(saved(tmp_path, content)) == ([[0, 1, 2, 3, 4, 5]], [6], False)
    with open_tokens([(tmp_path / "all_token_ids.pt", "pt")], tmp_path) as t:
        assert t.by(2).offsets.tolist() == [0, 2, 4, 6] and t.by(2).files == (3,)
        assert t.by(4) is t


def test_f_a_list_of_tensors(tmp_path):
    assert padded(saved(tmp_path, [torch.arange(2), torch.arange(4), torch.arange(1)])) == (
        [[0, 1], [0, 1, 2, 3], [0]], [2, 4, 1], True,
    )  # fmt: skip
    rows = [torch.arange(2)[None], torch.arange(3)[None]]
    assert padded(saved(tmp_path, rows))[0] == [[0, 1], [0, 1, 2]]


def test_f_old_files_and_numpy_arrays(tmp_path):
    torch.save(torch.tensor(IDS), tmp_path / "t.pt", _use_new_zipfile_serialization=False)
    assert padded(tmp_path / "t.pt")[0] == IDS
    assert padded(saved(tmp_path, {"tokens": np.array(IDS), "text": ["a", "b"]}))[0] == IDS


def test_f_one_file_for_each_chunk(tmp_path):
    for i, rows in enumerate(([["a", "b"]], [["b", "c"], ["a"]])):
        torch.save(rows, tmp_path / f"t{i}.pt")
    with open_tokens([(tmp_path / f"t{i}.pt", "pt") for i in range(2)], tmp_path) as t:
        assert (t.files, t.vocabulary) == ((1, 2), ["a", "b", "c"])
        assert t.ids.tolist() == [0, 1, 1, 2, 0]
    torch.save([[1, 2]], tmp_path / "t1.pt")
    both = [(tmp_path / f"t{i}.pt", "pt") for i in range(2)]
    for order in (both, both[::-1]):
        with pytest.raises(BadInput, match="strings in one file of tokens, ids in another"), \
                open_tokens(order, tmp_path):  # fmt: skip
            pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"input_ids": torch.tensor(IDS), "attention_mask": torch.ones(3, 2)}, "attention_mask"),
        ({"input_ids": torch.tensor(IDS), "attention_mask": torch.ones(2, 3) * 2}, "does not fit"),
        (
            {"input_ids": torch.tensor([[-1, 2]]), "attention_mask": torch.ones(1, 2)},
            "does not fit",
        ),
        ({"input_ids": torch.tensor([[-7, 2]])}, "outside 0 to"),
        ({"a": torch.tensor(IDS), "b": torch.tensor(IDS)}, "expected integers"),
        ({"x": torch.zeros(2, 3)}, "expected integers"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), "expected integers"),
        ([torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)], "expected int"),
        ([[5], 5], "expected a list of lists"),
        ([5, [5]], "expected a list of lists"),
        (["a", "b"], "expected a list of lists"),
    ],
)
def test_tokens_that_do_not_fit_together(tmp_path, content, message):
    with pytest.raises(BadInput, match=message):
        padded(saved(tmp_path, content))


def test_a_long_list_whose_kind_changes_between_batches(tmp_path):
    """Pickle writes lists in batches of 1,000."""
    with pytest.raises(BadInput, match="expected a list of lists"):
        read(saved(tmp_path, [[i] for i in range(1000)] + [7] * 1000))
