"""Reading arrays by their headers, and refusing headers that lie."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from actprobe.errors import BadInput
from actprobe.wandb.arrays import open_arrays
from actprobe.wandb.chunks import as_float32
from actprobe.wandb.zips import members

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64]


def read(path: Path) -> dict[str, np.ndarray]:
    with open_arrays(path, path.suffix[1:]) as found:
        return {n: a.rows(0, a.shape[0]) for n, a in found.items()}


def refused(path: Path, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        read(path)
    assert path.name in str(error.value)


def example(dtype: torch.dtype, shape: tuple[int, ...] = (5, 3)) -> torch.Tensor:
    return (torch.arange(int(np.prod(shape))).reshape(shape) - 4).to(dtype)


def bits(t: torch.Tensor) -> np.ndarray:
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()


FORMATS = [
    (suffix, dtype)
    for suffix in ("pt", "safetensors", "npy", "h5")
    for dtype in DTYPES
    if dtype != torch.bfloat16 or suffix in ("pt", "safetensors")
]


@pytest.mark.parametrize(("suffix", "dtype"), FORMATS)
def test_every_format_gives_back_what_was_saved(tmp_path, suffix, dtype):
    t, path = example(dtype), tmp_path / f"a.{suffix}"
    if suffix == "pt":
        torch.save({"x": t, "meta": {"n": 3}, "more": [t[:2].clone()]}, path)
    elif suffix == "safetensors":
        save_file({"x": t, "more.0": t[:2].clone()}, path, {"format": "pt"})
    elif suffix == "npy":
        np.save(path, t.numpy())
    else:
        with h5py.File(path, "w") as f:
            f["x"] = t.numpy()
            f.create_dataset("more.0", data=t[:2].numpy(), compression="gzip")
    found = read(path)
    assert set(found) == ({""} if suffix == "npy" else {"x", "more.0"})
    got = found["" if suffix == "npy" else "x"]
    assert np.array_equal(got.view(bits(t).dtype), bits(t))
    name = str(dtype).removeprefix("torch.")
    assert np.array_equal(as_float32(got, name), t.float().numpy())


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    first=st.integers(0, 3),
    names=st.sampled_from(["dict", "ordered", "list", "lone", "nested"]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pt_files_agree_with_torch(tmp_path, shape, dtype, first, names):
    whole = example(dtype, (4, *shape))
    t = whole[first:]  # a slice drags its whole storage along
    content: Any = {
        "dict": {"x": t},
        "ordered": OrderedDict(x=t),
        "list": [t],
        "lone": t,
        "nested": {"a": {"b": (t,)}},
    }[names]
    path = tmp_path / "a.pt"
    torch.save(content, path)
    [got] = read(path).values()
    assert np.array_equal(got.view(bits(t).dtype), bits(t))


def test_rows_are_read_where_they_lie(tmp_path):
    torch.save({"x": example(torch.float32, (100, 4))}, tmp_path / "a.pt")
    with open_arrays(tmp_path / "a.pt", "pt") as found:
        assert found["x"].shape == (100, 4)
        assert found["x"].rows(40, 42).tolist() == [[156, 157, 158, 159], [160, 161, 162, 163]]


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/actprobe-was-here",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_code_runs(tmp_path, protocol):
    torch.save({"x": Bomb()}, tmp_path / "a.pt", pickle_protocol=protocol)
    refused(tmp_path / "a.pt", r"it wants \w+\.system, which is refused")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    refused(tmp_path / "b.pt", "which is refused")
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"x": Bomb()}))
    refused(tmp_path / "c.pt", "not a zip file")


def test_a_tensor_that_declares_more_than_it_has(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(1).expand(10**12)}, path)
    assert path.stat().st_size < 2000
    refused(path, r"\(1000000000000,\) is not contiguous")
    torch.save({"x": torch.as_strided(torch.zeros(8), (3, 4), (2, 1))}, path)
    refused(path, "not contiguous")
    torch.save({"x": torch.zeros(4, 4).T}, path)
    refused(path, "not contiguous")
    base = torch.zeros(8)
    torch.save({"x": base[:6], "y": base[2:]}, path)
    refused(path, "lies over another one")


def repacked(path: Path, change, **kind: Any) -> None:
    """Write a zip again with each member's content passed through `change(name, content)`."""
    with zipfile.ZipFile(path) as z:
        content = {i.filename: z.read(i) for i in z.infolist()}
    with zipfile.ZipFile(path, "w", **kind) as z:
        for name, data in content.items():
            for new, changed in change(name, data):
                z.writestr(new, changed)


def test_a_pickle_that_asks_for_more_than_its_storage(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3, 5)}, path)
    grown = b"\x8a\x06" + (2**40).to_bytes(6, "little")  # shape (3, 5) becomes (2^40, 5)

    def change(name: str, data: bytes):
        yield name, data.replace(b"K\x03K\x05", grown + b"K\x05", 1)

    repacked(path, change)
    refused(path, r"\(1099511627776, 5\) float32 needs .* its storage has 60")


def test_a_pickle_with_a_huge_memo_index(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3)}, path)
    repacked(path, lambda n, d: [(n, d.replace(b"}q\x00", b"}r\xff\xff\xff\x7f"))])
    refused(path, "memo entry out of range")


def text(s: str) -> bytes:
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def number(n: int) -> bytes:
    data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(data)) + data


def pickled_tensor(*shape: int, storage: bytes = b"") -> bytes:
    """A tensor over storage 0 with strides of 1."""
    pid = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"K\x01" * len(shape) + b"t"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or pid) + b"K\x00" + sizes + b"\x89NtR"
    )


CHANGED = b"}(" + text("shape") + b"(" + number(10**10) + number(-1) + b"tub"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled_tensor(2, 1) + CHANGED, "refused to read its pickle"),
        (pickled_tensor(2) + b"(N}(" + text("shape") + b"(K\x09tutb", "refused to read its pickle"),
        (pickled_tensor(1 << 40_000), "impossible shape"),
        (pickled_tensor(*[1 << 62] * 65), "impossible shape"),
        (pickled_tensor(*[1 << 62] * 64), "not contiguous"),
        (pickled_tensor(2, storage=b"(" + text("f8") + text("0") + b"t"), "not a storage"),
        (pickled_tensor(2, storage=b"(" + text("float32") + b"]t"), "not a storage"),
        (pickled_tensor(2, 1), None),
    ],
)
def test_crafted_tensors(tmp_path, content, message):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        z.writestr("archive/data/0", bytes(16))
    if message:
        refused(path, message)
    else:
        assert read(path)[""].shape == (2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: [(n, d), (n, d)] if n.endswith("/0") else [(n, d)], "two members"),
        (lambda n, d: [(n.replace("data/0", "../0"), d)], "not a safe file name"),
        (lambda n, d: [("/" + n, d)], "not a safe file name"),
        (lambda n, d: [] if n.endswith("data/0") else [(n, d)], "has no data"),
        (lambda n, d: [] if n.endswith("data.pkl") else [(n, d)], "not a file of torch.save"),
        (lambda n, d: [(n, b"big   " if n.endswith("byteorder") else d)], "not little-endian"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_crafted_archives(tmp_path, change, message):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(300)}, path)
    repacked(path, change)
    refused(path, message)


def test_compressed_members_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(100_000)}, path)
    repacked(path, lambda n, d: [(n, d)], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 5000
    refused(path, "compressed or encrypted")


def test_overlapping_members_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(300), "y": torch.ones(300)}, path)
    data = path.read_bytes()
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    with zipfile.ZipFile(path) as z:
        names = z.namelist()
        offsets = [i.header_offset for i in z.infolist()]
    a, b = names.index("a/data/0"), names.index("a/data/1")
    crafted = bytearray(data)
    struct.pack_into("<I", crafted, entries[b] + 42, offsets[a])
    path.write_bytes(crafted)
    refused(path, "another name in its own header")
    # With the name changed as well the two records claim the same bytes.
    crafted[entries[b] + 46 : entries[b] + 54] = b"a/data/0"
    path.write_bytes(crafted)
    refused(path, "two members are called")


def test_members_lie_where_torch_says(tmp_path):
    torch.save({"x": torch.zeros(30), "y": torch.ones(7)}, tmp_path / "a.pt")
    reader = torch._C.PyTorchFileReader(str(tmp_path / "a.pt"))
    found = members(tmp_path / "a.pt")
    for i in ("0", "1"):
        assert found[f"a/data/{i}"][0] == reader.get_record_offset(f"data/{i}")


def save_x(path: Path, x: torch.Tensor, **of_h5: Any) -> None:
    """One array, in the format that the file's name says."""
    match path.suffix:
        case ".pt":
            torch.save({"x": x}, path)
        case ".safetensors":
            save_file({"x": x}, path)
        case ".npy":
            np.save(path, x.numpy())
        case _:
            with h5py.File(path, "w") as f:
                f.create_dataset("x", data=x.numpy(), **of_h5)


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npy", "h5"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    x = torch.zeros(1000, 4)
    save_x(path, x)
    whole = path.read_bytes()
    for keep in (0, 5, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        refused(path, path.name)


def safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
        {"x": {"dtype": "Q8", "shape": [4], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [1 << 62] * 500, "data_offsets": [0, 16]}},
        {"x": 3},
        [],
        b"{",
        b"[" * 100_000,
        b"\xff\xff",
        {
            "x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "y": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
        },
    ],
)
def test_crafted_safetensors(tmp_path, header):
    path = tmp_path / "a.safetensors"
    safetensors(path, header, bytes(16))
    refused(path, r"a\.safetensors")


def test_a_safetensors_header_longer_than_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(path, "cut short")


def npy(path: Path, shape: str, dtype: str = "<f4", fortran: bool = False) -> None:
    text = f"{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))


def test_crafted_npy(tmp_path):
    path = tmp_path / "a.npy"
    npy(path, "(1000000000000,)")
    refused(path, "would end at byte 4,000,000,000,0")
    for shape in ("(10000000000, -1)", "(-5, -4)", "(1" + "0" * 4000 + ",)"):
        npy(path, shape)
        refused(path, "impossible shape")
    npy(path, "(4, 4)", fortran=True)
    refused(path, "Fortran order")
    npy(path, "(4,)", dtype="|O")
    refused(path, "dtype object")
    npy(path, "(4,)", dtype=">f4")
    refused(path, "expected one of float16")
    np.save(path, np.array([{}], dtype=object))
    refused(path, "dtype object")
    npy(path, "(__import__('os').getpid(),)")
    refused(path, "not a readable .npy header")


def test_hdf5_that_leads_elsewhere_or_holds_nothing(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "secret.h5"
    with h5py.File(other, "w") as f:
        f["x"] = np.zeros(3)
    cases = {
        "a link to somewhere else": lambda f: f.__setitem__(
            "x", h5py.ExternalLink(str(other), "/x")
        ),
        "a link to somewhere": lambda f: f.__setitem__("x", h5py.SoftLink("/y")),
        "data in other files": lambda f: f.create_dataset(
            "x", (3,), "f4", external=[(str(other), 0, 12)]
        ),
        "keeps its data in other": lambda f: f.create_virtual_dataset(
            "x", h5py.VirtualLayout((3,), "f4")
        ),
        "no data to fill it": lambda f: f.create_dataset("x", (10**12,), "f4", chunks=(1000,)),
        "has no data": lambda f: f.create_dataset("x", (10**12,), "f4"),
        "a second name": lambda f: f.create_group("g").__setitem__("back", f["/"]),
    }
    for message, craft in cases.items():
        with h5py.File(path, "w") as f:
            craft(f)
        refused(path, message)


def test_hdf5_chunks_that_unpack_to_far_more(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    monkeypatch.setattr("actprobe.wandb.arrays._MAX_UNPACKED", 4000)
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=np.zeros(1000, np.float32), chunks=(1000,), compression="gzip")
    assert read(path)["x"].shape == (1000,)
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=np.zeros(1001, np.float32), chunks=(1001,), compression="gzip")
    refused(path, r"compressed in chunks \(1001,\), over 4,000 bytes")
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=np.zeros(1001, np.float32), chunks=(1001,))
    assert read(path)["x"].shape == (1001,)


def test_a_type_kept_in_hdf5_is_no_array(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["kind"] = np.dtype("f4")
        f["x"] = np.zeros(3)
    assert list(read(tmp_path / "a.h5")) == ["x"]


def test_bfloat16_in_hdf5_is_said_by_an_attribute(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["x"] = np.array([0x3F80, 0xC000], np.uint16)
        f["counts"] = np.array([1, 2], np.uint16)
        f["x"].attrs["dtype"] = "bfloat16"
    with open_arrays(path, "h5") as found:
        assert list(found) == ["x"]
        assert as_float32(found["x"].rows(0, 2), found["x"].dtype).tolist() == [1.0, -2.0]


def test_an_unknown_extension_names_the_known_ones(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"")
    refused(tmp_path / "a.bin", r"expected one of pt, pth, safetensors, npy, h5")


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npy", "h5"])
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_random_damage_never_does_anything_but_raise(tmp_path, suffix):
    """Flip bytes of headers: the outcome is an array of a possible shape, or BadInput."""
    path = tmp_path / f"a.{suffix}"
    x = torch.arange(12.0).reshape(3, 4)
    save_x(path, x, compression="gzip")
    whole = path.read_bytes()
    chance = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[chance.integers(len(whole))] = chance.integers(256)
        path.write_bytes(damaged)
        try:
            sizes = [a.size for a in read(path).values()]
            assert sum(sizes) <= 1000
            outcomes["read"] += 1
        except BadInput:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes
