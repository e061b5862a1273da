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

from actprobe.base.errors import BadInput
from actprobe.files import as_float32, open_arrays
from actprobe.files.zips import members

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64]
OTHER = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
IN_NUMPY = [d for d in DTYPES if d != torch.bfloat16] + OTHER


def read(path: Path) -> dict[str, np.ndarray]:
    with open_arrays(path, path.suffix[1:]) as found:
        return {n: a.rows(0, a.shape[0]) for n, a in found.arrays.items()}


def refused(path: Path, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        read(path)
    assert path.name in str(error.value)


def example(dtype: torch.dtype, shape: tuple[int, ...] = (5, 3)) -> torch.Tensor:
    return (torch.arange(int(np.prod(shape))).reshape(shape) - 4).to(dtype)


def bits(t: torch.Tensor) -> np.ndarray:
    kinds = {torch.bfloat16: torch.int16, **dict.fromkeys(FLOAT8, torch.uint8)}
    return (t.view(kinds[t.dtype]) if t.dtype in kinds else t).numpy()


FORMATS = [(suffix, d) for suffix in ("pt", "safetensors") for d in DTYPES + OTHER + FLOAT8]
FORMATS += [(suffix, d) for suffix in ("npy", "npz", "h5") for d in IN_NUMPY]


@pytest.mark.parametrize(("suffix", "dtype"), FORMATS)
def test_every_format_gives_back_what_was_saved(tmp_path, suffix, dtype):
    t, path = example(dtype), tmp_path / f"a.{suffix}"
    if suffix == "pt":
        torch.save({"x": t, "meta": {"n": 3}, "more": [t[:2].clone()]}, path)
    elif suffix == "safetensors":
        save_file({"x": t, "more.0": t[:2].clone()}, path, {"format": "pt"})
    elif suffix == "npy":
        np.save(path, t.numpy())
    elif suffix == "npz":
        np.savez_compressed(path, **{"x": t.numpy(), "more.0": t[:2].numpy()})
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


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.bfloat16, torch.float16])
def test_every_bit_pattern_has_the_value_that_torch_gives_it(dtype):
    whole = torch.arange(256, dtype=torch.uint8).view(dtype)
    if dtype not in FLOAT8:
        whole = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    got = as_float32(bits(whole).view(np.uint8 if dtype in FLOAT8 else bits(whole).dtype),
                     str(dtype).removeprefix("torch."))  # fmt: skip
    want = whole.float().numpy()
    assert np.array_equal(got, want, equal_nan=True)
    numbers = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


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
        assert found.arrays["x"].shape == (100, 4)
        assert found.arrays["x"].rows(40, 42).tolist() == [
            [156, 157, 158, 159],
            [160, 161, 162, 163],
        ]


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/actprobe-was-here",)


@pytest.mark.parametrize("old", [False, True])
def test_no_code_runs(tmp_path, old):
    kind = {"_use_new_zipfile_serialization": not old}
    torch.save({"x": Bomb()}, tmp_path / "a.pt", **kind)
    refused(tmp_path / "a.pt", r"it wants \w+\.system, which is refused")
    torch.save({"x": Bomb()}, tmp_path / "a.pt", pickle_protocol=4)
    refused(tmp_path / "a.pt", r"pickle protocol 4, .* save it again with torch\.save")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt", **kind)
    refused(tmp_path / "b.pt", r"it wants torch\.nn\.modules\.linear\.Linear, which is refused")
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"x": Bomb()}))
    refused(tmp_path / "c.pt", "not a file of torch.save")
    assert not Path("/tmp/actprobe-was-here").exists()


def test_torchs_advice_to_run_the_code_is_not_passed_on(tmp_path):
    for content in ({"x": Bomb()}, torch.nn.Linear(2, 2), {"x": slice(3)}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(BadInput) as error:
            read(tmp_path / "a.pt")
        assert "weights_only" not in str(error.value) and "trust" not in str(error.value)


def test_a_tensor_that_declares_more_than_it_has(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(1).expand(10**12)}, path)
    assert path.stat().st_size < 2000
    refused(path, r"\(1000000000000,\): bytes that the file does not hold: 3,999,999,999,996, more")


@pytest.mark.parametrize(
    "x",
    [
        torch.as_strided(torch.arange(8.0), (3, 4), (2, 1)),
        torch.arange(16.0).reshape(4, 4).T,
        torch.arange(16.0)[::3],
        torch.ones(1, 3).expand(5, 3),
        torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1).to(torch.bfloat16),
        torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
    ],
)
def test_f_views_and_parameters_are_what_torch_loads(tmp_path, x):
    torch.save({"x": x, "again": x}, tmp_path / "a.pt")
    for got in read(tmp_path / "a.pt").values():
        assert np.array_equal(got, bits(x.detach()).astype(got.dtype))


def test_f_two_views_of_one_storage(tmp_path):
    base = torch.arange(8.0)
    torch.save({"x": base[:6], "y": base[2:]}, tmp_path / "a.pt")
    assert {n: a.tolist() for n, a in read(tmp_path / "a.pt").items()} == {
        "x": [0, 1, 2, 3, 4, 5], "y": [2, 3, 4, 5, 6, 7],
    }  # fmt: skip


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
    refused(path, "refused to read its pickle: .*storage")


def test_a_pickle_with_a_huge_memo_index(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3)}, path)
    repacked(path, lambda n, d: [(n, d.replace(b"}q\x00", b"}r\xff\xff\xff\x7f"))])
    assert read(path)["x"].shape == (3,)  # a number of a dict, and no size


def text(s: str) -> bytes:
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def number(n: int) -> bytes:
    data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    size = (
        b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data))
    )
    return size + data


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
        (pickled_tensor(1 << 40_000), "refused to read its pickle"),
        (pickled_tensor(*[1 << 62] * 65), "refused to read its pickle"),
        (pickled_tensor(2, storage=b"(" + text("f8") + text("0") + b"t"), "refused to read its"),
        (pickled_tensor(2, storage=b"(" + text("float32") + b"]t"), "refused to read its pickle"),
        (pickled_tensor(2, 1), None),
    ],
)
def test_crafted_tensors(tmp_path, content, message):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        z.writestr("archive/data/0", bytes(16))
        z.writestr("archive/version", b"3\n")
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
        (lambda n, d: [] if n.endswith("data/0") else [(n, d)], "failed locating file data/0"),
        (lambda n, d: [] if n.endswith("data.pkl") else [(n, d)], "not a file of torch.save"),
        (lambda n, d: [(n, b"big   " if n.endswith("byteorder") else d)], "Unknown endianness"),
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
    refused(path, r"dtype \|O; expected one of")
    npy(path, "(4,)", dtype=">f4")
    refused(path, "dtype >f4; expected one of")
    np.save(path, np.array([{}], dtype=object))
    refused(path, r"dtype \|O; expected one of")
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
    monkeypatch.setattr("actprobe.files.limits.UNPACKED", 4000)
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
        x = found.arrays["x"]
        assert {n: a.dtype for n, a in found.arrays.items()} == {
            "x": "bfloat16",
            "counts": "uint16",
        }
        assert as_float32(x.rows(0, 2), x.dtype).tolist() == [1.0, -2.0]


def test_an_unknown_extension_names_the_known_ones(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"")
    refused(tmp_path / "a.bin", "expected one of safetensors, npy, npz, pt, pth, h5, hdf5")


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
