"""Files that cost far more than they hold (E2, E9): refused in a moment, with the number."""

from __future__ import annotations

import json
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from actprobe.base.errors import BadInput
from actprobe.files import limits, open_arrays
from actprobe.files.npy import read_npz_headers
from actprobe.files.safetensors import read_header
from actprobe.files.zips import members


@contextmanager
def cheap(seconds: float = 20.0) -> Iterator[None]:
    """Fails when the block takes long, or more than half a gigabyte."""
    begun = time.process_time()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert time.process_time() - begun < seconds


def refused(path: Path, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error, open_arrays(path):
        pass
    assert path.name in str(error.value) and len(str(error.value)) < 2000


def nested(kind: type, levels: int) -> Any:
    node: Any = kind([1])
    for _ in range(levels):
        node = kind([node, node])
    return node


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def with_pickle(folder: Path, data: bytes) -> Path:
    with zipfile.ZipFile(folder / "a.pt", "w") as z:
        z.writestr("a/data.pkl", data)
        z.writestr("a/version", b"3\n")
    return folder / "a.pt"


def test_e2_lists_that_refer_to_one_another_are_visited_once(tmp_path):
    path = saved(tmp_path, {"x": torch.zeros(3), "a": nested(list, 60)})
    assert path.stat().st_size < 3000
    with cheap(), open_arrays(path) as found:
        assert list(found.arrays) == ["x"]
        assert len(found.ignored) <= limits.TOLD
        assert "the same as another entry" in found.ignored.values()


def test_e2_a_list_that_holds_itself_and_a_dict_that_holds_it(tmp_path):
    a: list[Any] = [torch.ones(2)]
    b = {"a": a}
    a.append(b)
    with cheap(), open_arrays(saved(tmp_path, a)) as found:
        assert list(found.arrays) == ["0"]


def test_e2_tuples_whose_hash_takes_an_age(tmp_path):
    """A tuple that holds another one twice, sixty times over, is hashed in 2^60 steps."""
    deep = b"K\x01\x85q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60))
    with cheap():
        refused(with_pickle(tmp_path, b"\x80\x02}" + deep + b"K\x01s."), "more than 4,000,000")


def test_e2_a_long_string_copied_again_and_again(tmp_path):
    """Each copy in bytes makes a megabyte out of forty bytes."""
    word = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    copy = b"c_codecs\nencode\n(h\x00X\x07\x00\x00\x00latin-1tRa"
    with cheap():
        refused(with_pickle(tmp_path, b"\x80\x02]" + word + b"a" + copy * 5000 + b"."), "4,000,000")


def test_e2_containers_too_deep(tmp_path):
    node: Any = torch.zeros(2)
    for _ in range(150):
        node = [node]
    torch.save({"x": [torch.zeros(2)]}, tmp_path / "a.pt")
    with cheap():
        refused(saved(tmp_path, node), "containers inside each other: 101, more than the 100")


def test_more_objects_than_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "OBJECTS", 1000)
    refused(
        saved(tmp_path, {"x": torch.zeros(3), "a": list(range(2000))}), "more than 1,000 objects"
    )


def test_a_pickle_of_many_empty_lists(tmp_path):
    with cheap():
        refused(
            with_pickle(tmp_path, b"\x80\x02" + b"]" * (8 << 20)), "more than 4,000,000 objects"
        )


def test_a_pickle_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PICKLE", 1000)
    path = saved(tmp_path, {"x": torch.zeros(3), "s": "a" * 2000})
    refused(path, r"bytes of the pickle beside the tensors: 2,\d+, more than the 1,000")


def test_f_strings_of_megabytes_beside_the_tensor(tmp_path):
    path = saved(
        tmp_path, {"x": torch.ones(3, 2), "texts": [f"text {i}" * 9 for i in range(40_000)]}
    )
    assert path.stat().st_size > 2 << 20
    with open_arrays(path) as found:
        assert found.arrays["x"].rows(1, 3).tolist() == [[1, 1], [1, 1]]
        assert found.ignored == {"texts": "list of 40,000 str"}


def test_an_old_format_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    torch.save({"x": torch.zeros(3000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with open_arrays(tmp_path / "a.pt") as found:
        assert found.arrays["x"].shape == (3000,)
    monkeypatch.setattr(limits, "IN_MEMORY", 10_000)
    refused(tmp_path / "a.pt", r"cannot be mapped .*: 12,\d+, more than the 10,000")


def test_many_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TENSORS", 30)
    path = saved(tmp_path, [torch.zeros(1)] * 40)
    refused(path, "tensors: 31, more than the 30")
    path = saved(tmp_path, [torch.zeros(1) for _ in range(40)])
    refused(path, r"members of the archive: 4\d, more than the 30")


def test_a_name_that_is_too_long_or_stands_for_two(tmp_path):
    texts = {"text " * 400 + str(i): i for i in range(3)}
    with open_arrays(saved(tmp_path, {"x": torch.zeros(3), **texts})) as found:
        assert list(found.arrays) == ["x"] and "a name of 2,001 characters" in str(found.ignored)
    both = {"a.b": torch.zeros(3), "a": {"b": torch.ones(3)}}
    refused(saved(tmp_path, both), r"two tensors are called 'a\.b'")


def test_a_file_is_mapped_anew_after_a_while(tmp_path, monkeypatch):
    """What is read through a map stays in memory until the map is given back."""
    monkeypatch.setattr("actprobe.files.pt._MAPPED", 1000)
    x = torch.arange(4000.0).reshape(1000, 4)
    with open_arrays(saved(tmp_path, {"x": x, "n": np.arange(6)})) as found:
        for i in range(0, 1000, 50):
            assert np.array_equal(found.arrays["x"].rows(i, i + 50), x[i : i + 50].numpy())
        assert found.arrays["n"].rows(2, 4).tolist() == [2, 3]


# --- safetensors


def test_e9_a_header_of_a_million_names(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"tensor.number.{i}": entry for i in range(300_000)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with cheap(5):
        refused(path, r"bytes of the safetensors header: 2\d,\d+,\d+, more than the 16,777,216")
    short = json.dumps({str(i): entry for i in range(150_000)}, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(short)) + short)
    with cheap(10):
        refused(path, "tensors in the safetensors header: 150,000, more than the 100,000")


def test_a_name_that_stands_twice_in_a_header(tmp_path):
    text = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    text += b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    refused(path, "holds 'x' twice")
    many = b"{" + b",".join([b'"x":0'] * 200_000) + b"}"
    path.write_bytes(struct.pack("<Q", len(many)) + many)
    with cheap(5):
        refused(path, "holds 'x' twice")


def test_tensors_over_each_other_and_gaps_are_refused(tmp_path):
    for places in ([[0, 8], [4, 12]], [[0, 8], [12, 20]], [[0, 8], [0, 8]]):
        header = {
            n: {"dtype": "F32", "shape": [2], "data_offsets": p}
            for n, p in zip("xy", places, strict=True)
        }
        text = json.dumps(header).encode()
        path = tmp_path / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(places[1][1]))
        with pytest.raises(BadInput, match="do not fit its shape"):
            read_header(path)


# --- zip archives


def test_an_archive_that_lists_a_million_members(tmp_path):
    path = tmp_path / "a.npz"
    one = b"PK\x01\x02" + bytes(42)
    listed = one * 700_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(listed), 0, 0)
    path.write_bytes(listed + end)
    with cheap(5):
        refused(
            path, "bytes of the archive's list of members: 32,200,000, more than the 30,000,000"
        )
    path.write_bytes(one + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 65_000, 46, 0, 0))
    refused(path, "'' is not a safe file name")
    path.write_bytes(one[:40])
    refused(path, "not a NumPy archive, or cut short")


@pytest.mark.parametrize("name", ["../x.npy", "/etc/x.npy", "a\\..\\x.npy", "C:/x.npy", "a//b.npy"])
def test_members_that_lead_elsewhere(tmp_path, name):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3))
    with zipfile.ZipFile(path) as z:
        content = z.read("x.npy")
    info = zipfile.ZipInfo("x.npy")
    info.filename = name
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(info, content)
    refused(path, "is not a safe file name")


def test_a_compression_bomb_is_seen_in_its_list(tmp_path):
    """900 bytes that say they unpack to a gigabyte."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(250_000, np.float32))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 1 << 30)
    path.write_bytes(data)
    with cheap():
        refused(path, "unpack to 1,073,741,824, more than 1,100 times as many")


def test_a_member_that_unpacks_to_more_than_its_header_says(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(250_000, np.float32))
    whole = path.read_bytes()
    for at, name in ((24, b"PK\x01\x02"), (22, b"PK\x03\x04")):
        data = bytearray(whole)
        struct.pack_into("<I", data, data.index(name) + at, 500_128)
        path.write_bytes(data)
        if name == b"PK\x01\x02":
            refused(path, "do not fit")


def test_npz_arrays_are_streamed_forwards_and_backwards(tmp_path):
    x = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    np.savez_compressed(
        tmp_path / "a.npz", x=x, names=np.array(["a"]), things=np.array([{}], object)
    )
    with open_arrays(tmp_path / "a.npz") as found:
        assert list(found.arrays) == ["x"] and set(found.ignored) == {"names", "things"}
        for a, b in ((0, 100), (100, 230), (400, 500), (3, 4), (3, 4), (0, 500)):
            assert np.array_equal(found.arrays["x"].rows(a, b), x[a:b])
    assert [m.stored for _, m in read_npz_headers(tmp_path / "a.npz").values()] == [False] * 3


def test_a_stored_member_of_the_length_of_its_packed_form_is_told_apart(tmp_path):
    """Whether a member is packed is what the archive says, not a comparison of two lengths."""
    content = bytes(range(256))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("x.npy", content)
        z.writestr(zipfile.ZipInfo("y.npy"), content)
    found = members(tmp_path / "a.npz", deflated=True)
    assert (found["x.npy"].stored, found["y.npy"].stored) == (False, True)


# --- npy


HUGE = "9" * 4000


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},), }}", "impossible shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,), }", "not a readable"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 4000 + "3,), }", "not a"),
        ("-" * 9000 + "1", "not a readable"),
        ("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", "not a"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}", "not a readable"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", "with fields"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 70 + "), }", "impossible"),
        ("x" * 20_000, "bytes of the .npy header: 20,000, more than the 10,000"),
    ],
)
def test_npy_headers_are_read_by_their_grammar(tmp_path, header, message):
    path = tmp_path / "a.npy"
    text = header.encode()
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(64))
    with cheap(2):
        refused(path, message)


@pytest.mark.parametrize("header", [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
    "{'shape': (2L, 3L), 'descr': '<f4', 'fortran_order': False}",
    "{ 'descr':'<f4','fortran_order':False,'shape':(2,3)}  \n",
])  # fmt: skip
def test_headers_that_other_libraries_write(tmp_path, header):
    text = header.encode()
    x = np.arange(6, dtype=np.float32)
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    (tmp_path / "a.npy").write_bytes(head + x.tobytes())
    with open_arrays(tmp_path / "a.npy") as found:
        assert np.array_equal(found.arrays[""].rows(0, 2), x.reshape(2, 3))


# --- HDF5


def test_groups_inside_groups_and_many_entries(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_group("/".join("a" * 150))
    refused(tmp_path / "a.h5", "groups inside each other: 101, more than the 100")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        for i in range(40):
            f[f"x{i}"] = np.zeros(3)
    monkeypatch.setattr(limits, "TENSORS", 30)
    refused(tmp_path / "a.h5", "entries of a group: 40, more than the 30")


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "gzip", "scaleoffset": 3},
        {"compression": "lzf"},
        {"fletcher32": True},
    ],
    ids=str,
)
def test_compressed_datasets_are_read(tmp_path, how):
    x = np.round(np.random.default_rng(0).standard_normal((500, 7)), 3).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("x", data=x, chunks=(90, 4), **how)
        f.create_dataset("sparse", (500, 7), "f4", chunks=(90, 4), fillvalue=2, **how)[100:120] = 1
    with open_arrays(tmp_path / "a.h5") as found:
        for a, b in ((0, 100), (90, 91), (400, 500), (0, 500)):
            np.testing.assert_allclose(found.arrays["x"].rows(a, b), x[a:b], atol=1e-3)
        assert found.arrays["sparse"].rows(0, 500).sum() == 7 * (480 * 2 + 20)


def test_a_chunk_that_unpacks_to_far_more_than_its_shape(tmp_path):
    """HDF5 makes 600 MB of it before it looks at the shape of 4,000 bytes."""
    packed = zlib.compress(bytes(600 << 20))
    with h5py.File(tmp_path / "a.h5", "w") as f:
        d = f.create_dataset("x", (1000,), "f4", chunks=(1000,), compression="gzip")
        d.id.write_direct_chunk((0,), packed)
    with (
        cheap(),
        open_arrays(tmp_path / "a.h5") as found,
        pytest.raises(
            BadInput, match=r"a\.h5: /x: a chunk unpacks to more than its \(1000,\) float32"
        ),
    ):
        found.arrays["x"].rows(0, 10)


def test_datasets_compressed_twice_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((100,))
        how.set_deflate(4)
        how.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((100,))
        h5py.h5d.create(f.id, b"x", h5py.h5t.NATIVE_FLOAT, space, how)
        f["x"][:] = np.zeros(100)
    refused(tmp_path / "a.h5", "'x' is compressed twice")


def test_what_is_no_array_of_numbers_is_listed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = np.zeros(3)
        f["text"] = "a"
        f["one"] = 3
        f["nothing"] = h5py.Empty("f4")
        f["flags"] = np.array([True, False])
    with open_arrays(tmp_path / "a.h5") as found:
        assert {n: a.dtype for n, a in found.arrays.items()} == {"x": "float64", "flags": "bool"}
        assert found.ignored == {
            "text": "dtype object",
            "one": "a single int64",
            "nothing": "empty",
        }
