"""Half precision: rounding is no direction, no rank and no W; equal numbers give equal features."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import lora_tools as tools
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from actprobe.lora import features
from actprobe.lora.compute import Factors, columns, primitives
from actprobe.lora.families import product, sketch, spectral
from actprobe.lora.families.weights import Weights
from actprobe.lora.numbers import Rounding, roundings, to_float
from actprobe.lora.records import Sketch

KINDS = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
SIZES = Sketch(product=4, projector=8)


def _rounded(x: np.ndarray, kind: str) -> np.ndarray:
    return torch.from_numpy(x).float().to(KINDS[kind]).float().numpy()


def _weights(b: np.ndarray, a: np.ndarray, kind: str) -> Weights:
    """B and A as a file of this dtype holds them."""
    b, a = _rounded(b, kind), _rounded(a, kind)
    told = [roundings(x.ravel(), np.array([0]), kind)[0] for x in (a, b)]
    return Weights(b.T[None].astype(float), a[None].astype(float), np.ones(1), np.array([told]))


def _factors(seed: int, rank: int, true: int, n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """B and A of this rank whose product has the rank `true`, in a random gauge."""
    rng = np.random.default_rng(seed)
    gauge = rng.normal(size=(rank, rank)) / np.sqrt(rank) + 2 * np.eye(rank)
    b = np.zeros((n, rank))
    b[:, :true] = rng.normal(size=(n, true))
    return b @ gauge, np.linalg.solve(gauge, rng.normal(size=(rank, n)))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("rank", "true"), [(4, 1), (16, 3), (8, 0)])
def test_a13_projectors_count_no_rounding_as_directions(kind: str, rank: int, true: int) -> None:
    projector = Sketch(product=4, projector=32)
    for seed in range(5):
        b, a = _factors(seed, rank, true)
        if true == 0:  # PEFT's init "orthogonal": B·A = 0 between factors that are not
            rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]
            rng = np.random.default_rng(seed)
            a = (rng.normal(size=(64, rank // 2)) @ rows[::2]).T / 10
            b = rng.normal(size=(64, rank // 2)) @ rows[1::2] / 10
        w, exact = _weights(b, a, kind), _weights(b, a, "F32")
        assert (w.sigma > 0).sum() == true
        found, expected = (
            sketch.compute(["m"], x, projector.product, projector.projector)[0] for x in (w, exact)
        )
        dimension = projector.projector
        at = np.cumsum([0, *range(dimension, 1, -1)])  # the diagonal of an upper triangle
        for start in (16, 16 + dimension * (dimension + 1) // 2):
            trace, exact_trace = found[start + at].sum(), expected[start + at].sum()
            assert trace == pytest.approx(exact_trace, rel=0.05)
        values = product.compute(w)[0]
        names = columns("product", SIZES)
        if true:
            assert values[names.index("effective_rank")] <= true + 1e-3
        else:
            told = Rounding(*w.roundings[0, 0]), Rounding(*w.roundings[0, 1])
            lora = {"m": Factors(a.astype(np.float32), b.astype(np.float32), 1.0, told)}
            for x, mask in primitives([lora], ["m"], ["product", "sketch"], SIZES).values():
                assert mask.tolist() == [[0]] and not x.any()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a13_true_directions_are_kept(kind: str) -> None:
    rng = np.random.default_rng(0)
    for rank in (4, 16):
        b = rng.normal(size=(320, rank)) * np.linspace(1, 0.05, rank)
        w = _weights(b, rng.normal(size=(rank, 768)), kind)
        assert (w.sigma > 0).all()
        x = _rounded(b.T, kind)
        told = np.array(roundings(x.ravel(), np.array([0]), kind))
        assert (spectral.singular_values(x[None].astype(float), told) > 0).all()


@pytest.mark.parametrize("kind", ["F16", "BF16", "F8_E4M3"])
def test_a13_spectra_of_factors_count_no_rounding(kind: str) -> None:
    rng = np.random.default_rng(1)
    for rank, true in ((4, 1), (16, 3)):
        x = _rounded(rng.normal(size=(rank, true)) @ rng.normal(size=(true, 300)), kind)
        told = np.array(roundings(x.ravel(), np.array([0]), kind))
        assert (spectral.singular_values(x[None].astype(float), told) > 0).sum() == true


def test_the_gauge_of_a_column_moves_no_tolerance() -> None:
    b, a = _factors(0, 4, 1)
    size = 10.0 ** np.array([-3, 0, 2, 4])
    plain, scaled = _weights(b, a, "BF16"), _weights(b * size, a / size[:, None], "BF16")
    np.testing.assert_allclose(scaled.noise, plain.noise, rtol=0.01)


def test_numbers_tell_how_they_were_rounded_whatever_they_are_stored_in() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    for kind, digits in (("F32", 24), ("F16", 11), ("BF16", 8)):
        (told,) = roundings(_rounded(x, kind), np.array([0]), "F32")
        assert told.unit == 2.0**-digits, kind
    mixed = np.concatenate([_rounded(x, "BF16"), _rounded(x, "F16"), np.zeros(3, "f4")])
    units = [r.unit for r in roundings(mixed, np.array([0, 500, 1000]), "F32")]
    assert units == [2.0**-8, 2.0**-11, 2.0**-8]
    assert roundings(np.ones(4, "f4"), np.array([0]), "F16") == [Rounding(2.0**-8, 2.0**-14)]


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "BF16"])
def test_f_small_formats_are_read_exactly(kind: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    raw = codes.tobytes() * 2 if kind == "BF16" else codes.tobytes()
    tensor = torch.frombuffer(bytearray(raw), dtype=KINDS[kind]).float().numpy()
    np.testing.assert_array_equal(to_float(raw, kind), tensor)


def _write(path: Path, tensors: dict[str, np.ndarray], kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {k: torch.from_numpy(v).to(KINDS[kind]) for k, v in tensors.items()}
    save_file(kept, path)


def test_a13_equal_numbers_give_equal_features_in_every_format(tmp_path: Path) -> None:
    """What fits into 8 bits of float8 is the same LoRA in every format."""
    stem = f"unet.{tools.BLOCK}.attn1.to_q.lora"
    for n in range(3):
        b, a = _factors(n, 4, 1)
        tensors = {
            f"{stem}.down.weight": _rounded(a, "F8_E4M3"),
            f"{stem}.up.weight": _rounded(b, "F8_E4M3"),
        }
        for kind in ("F32", "F16", "BF16"):
            _write(tmp_path / kind / f"l{n}.safetensors", tensors, kind)
    names = ["stats", "spectral", "product", "left_projector"]
    found = {}
    for kind in ("F32", "F16", "BF16"):
        loras = {"c": {"files": str(tmp_path / kind), "representations": names}}
        made = tools.run(tools.resolved(tmp_path / f"run{kind}", loras))
        found[kind] = [
            features.load(tools.path_of(made, f"c/{n}")).x
            for n in ("stats", "spectral", "singular_values", "product_norms", "left_projector")
        ]
    for kind in ("F16", "BF16"):
        for x, y in zip(found["F32"], found[kind], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


def test_half_precision_of_the_same_weights_gives_the_same_features_but_for_its_rounding(
    tmp_path: Path,
) -> None:
    stem = f"unet.{tools.BLOCK}.attn1.to_q.lora"
    found = {}
    for kind in ("F32", "F16", "BF16"):
        for n in range(2):
            rng = np.random.default_rng(n)
            tensors = {
                f"{stem}.down.weight": rng.standard_normal((4, 40)).astype("f4"),
                f"{stem}.up.weight": rng.standard_normal((30, 4)).astype("f4") * 0.02,
            }
            _write(tmp_path / kind / f"l{n}.safetensors", tensors, kind)
        loras = {
            "c": {"files": str(tmp_path / kind), "representations": ["product", "left_projector"]}
        }
        made = tools.run(tools.resolved(tmp_path / f"run{kind}", loras))
        found[kind] = np.concatenate(
            [features.load(tools.path_of(made, f"c/{n}")).x
             for n in ("singular_values", "product_norms", "left_projector")], axis=1
        )  # fmt: skip
    np.testing.assert_allclose(found["F16"], found["F32"], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found["BF16"], found["F32"], rtol=2e-2, atol=2e-2)


def test_f_a_file_of_float8_goes_through_every_stage(tmp_path: Path) -> None:
    """safetensors for numpy writes none, so the file is put together by hand."""
    rng = np.random.default_rng(0)
    stem = f"unet.{tools.BLOCK}.attn1.to_q.lora"
    for n in range(2):
        header, data = {}, b""
        for side, shape in (("down", (2, 12)), ("up", (10, 2))):
            values = torch.from_numpy(rng.standard_normal(shape)).to(torch.float8_e4m3fn)
            raw = values.view(torch.uint8).numpy().tobytes()
            header[f"{stem}.{side}.weight"] = {
                "dtype": "F8_E4M3", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]
            }  # fmt: skip
            data += raw
        text = json.dumps(header).encode()
        (tmp_path / "f").mkdir(exist_ok=True)
        (tmp_path / "f" / f"l{n}.safetensors").write_bytes(
            struct.pack("<Q", len(text)) + text + data
        )
    loras = {"c": {"files": str(tmp_path / "f"), "representations": ["stats", "product"]}}
    made = tools.run(tools.resolved(tmp_path, loras))
    assert features.load(tools.path_of(made, "c/singular_values")).mask.all()


def test_equal_entries_have_no_skewness(tmp_path: Path) -> None:
    """All entries of W are equal: what is left of the variance is rounding."""
    values = product.compute(_weights(np.full((9, 3), 0.1), np.full((3, 7), 0.3), "F32"))[0]
    names = columns("product", SIZES)
    assert [values[names.index(n)] for n in ("std", "skew", "kurt")] == [0, 0, 0]
