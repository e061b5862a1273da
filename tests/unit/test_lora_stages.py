"""Index, primitives and representations as artefacts: content, refusals, reuse, resuming."""

from __future__ import annotations

import shutil
from pathlib import Path

import lora_reference as reference
import lora_tools as tools
import numpy as np
import pytest
from configs import edited
from safetensors.numpy import load_file, save_file

from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.lora import effort, features, index, primitives, synthetic
from actprobe.lora.catalog import REPRESENTATIONS

FACTOR = ["simple_stats", "stats", "spectral", "matrix_norms", "frequency"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Twelve LoRAs of ranks 1 to 3; number 5 has only one of the two modules."""
    folder = tmp_path / "loras"
    for i in range(12):
        tools.write_lora(folder / f"l{i:02d}.safetensors", i, 1 + i % 3, modules=1 if i == 5 else 2)
    return folder


def _config(tmp_path: Path, files: Path, **options) -> dict:
    shared = {"files": str(files), "shard_size": 5, "representations": FACTOR}
    return tools.resolved(tmp_path, {"c": {**shared, **options}})


def _load(made, name: str, **options) -> features.Features:
    return features.load(tools.path_of(made, name), **options)


def test_representations_equal_the_plain_definitions(tmp_path: Path, files: Path) -> None:
    made = tools.run(_config(tmp_path, files))
    for name in FACTOR:
        found = _load(made, f"c/{name}")
        assert len(found.units) == 4 and found.x.shape[0] == 12
        row = found.id.tolist().index("l07")
        tensors = load_file(files / "l07.safetensors")
        for side in ("down", "up"):
            unit = found.units.index(f"unet_{tools.BLOCK.replace('.', '_')}_attn1_to_q:{side}")
            x = tensors[f"unet.{tools.BLOCK}.attn1.to_q.lora.{side}.weight"].astype(float)
            expected = np.array(reference.FACTOR[name](x))
            values = found.x[row, found.unit == unit]
            rtol = 1e-3 if name == "spectral" else 1e-5  # its gaps divide by singular values
            np.testing.assert_allclose(values, expected, rtol=rtol, atol=1e-12, err_msg=name)


def test_missing_modules_are_masked_and_layers_are_columns(tmp_path: Path, files: Path) -> None:
    made = tools.run(_config(tmp_path, files, representations=["stats"]))
    found = _load(made, "c/stats")
    row = found.id.tolist().index("l05")
    assert found.mask[row].tolist() == [True, True, False, False]
    assert found.mask.sum() == 4 * 12 - 2
    assert not found.x[row, np.isin(found.unit, [2, 3])].any()
    attn1 = _load(made, "c/stats", layers=["*.attn1.*"])
    np.testing.assert_array_equal(attn1.x, found.x[:, found.unit < 2])
    assert attn1.units == found.units[:2] and attn1.unit.max() == 1
    with pytest.raises(BadInput, match=r"no module matches \*attn9\*"):
        _load(made, "c/stats", layers=["*attn9*"])
    with pytest.raises(BadInput, match="GB are allowed"):
        _load(made, "c/stats", max_bytes=10)


def test_the_cut_into_shards_changes_no_bit_of_the_features(tmp_path: Path, files: Path) -> None:
    names = [*FACTOR, "singular_values", "product_sketch", "left_projector"]
    one = tools.run(_config(tmp_path / "a", files, shard_size=100, representations=names))
    many = tools.run(_config(tmp_path / "b", files, shard_size=2, representations=names))
    for name in names:
        a, b = tools.path_of(one, f"c/{name}"), tools.path_of(many, f"c/{name}")
        assert Path(a).name == Path(b).name
        with store.open_h5(a) as one_file, store.open_h5(b) as other:
            arrays = {*one_file} - {"header"}  # which names the primitives
            assert arrays == {*other} - {"header"}
            for array in arrays:
                assert one_file[array][...].tobytes() == other[array][...].tobytes(), name


def test_broken_files_are_refused_with_a_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    synthetic.write(tmp_path, per_class=3)
    cfg = _config(tmp_path, tmp_path / "files", representations=["stats", "product_norms"])
    made = tools.run(cfg)
    found = index.Index.open(tools.path_of(made, "c"))
    refused = {
        i.removeprefix("broken/"): r for i, r in zip(found["id"], found.refused, strict=True) if r
    }
    words = {"dora": "DoRA", "lokr": "LoKr", "unknown": "unknown tensor", "no_partner": "no partner",
             "truncated": "cut short", "other_base": "in most files"}  # fmt: skip
    assert refused.keys() == words.keys()
    assert all(word in refused[name] for name, word in words.items())
    assert str(tmp_path) not in " ".join(refused.values()), "an artefact knows no path"
    stats = _load(made, "c/stats")
    assert len(stats.id) == 12 and "broken/nan" not in stats.id
    with store.open_h5(tools.path_of(made, "c/stats")) as f:
        reasons = dict(zip(f["id"][:].astype(str), f["reason"][:].astype(str), strict=True))
    assert reasons["broken/nan"].startswith("NaN or infinity in unet_")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_weights_whose_product_has_no_float32_are_left_out(tmp_path: Path) -> None:
    """Each number is finite; the squares of W's norms are not."""
    for n in range(3):
        path = tools.write_lora(tmp_path / "files" / f"l{n}.safetensors", seed=n)
        if n == 1:
            save_file({k: v * np.float32(1e15) for k, v in load_file(path).items()}, path)
    wanted = {"representations": ["stats", "product_norms"]}
    made = tools.run(_config(tmp_path, tmp_path / "files", on_bad_file="skip", **wanted))
    assert len(_load(made, "c/stats").id) == 3
    norms = _load(made, "c/product_norms")
    assert sorted(norms.id) == ["l0", "l2"] and np.isfinite(norms.x).all() and norms.mask.all()
    with store.open_h5(tools.path_of(made, "c/product_norms")) as f:
        at = f["id"][:].tolist().index(b"l1")
        assert b"weights are too large" in f["reason"][at] and not f["x"][at].any()
    stopped = _config(tmp_path / "stop", tmp_path / "files", on_bad_file="stop", **wanted)
    with pytest.raises(ActprobeError, match=r"l1: a feature is not finite"):
        tools.run(stopped)


def test_files_of_other_base_models_leave_no_trace(tmp_path: Path, files: Path) -> None:
    """flux shares no module with the others, wide has one of another shape and one of its own."""
    names = ["stats", "singular_values", "recipe_only"]
    alone = tools.run(_config(tmp_path / "a", files, representations=names))
    flat = tools.run(_config(tmp_path / "b", _one_rank(tmp_path), representations=["flat_vec"]))
    ones, stem = np.ones, "lora_{}.weight"
    for folder in (files, tmp_path / "one_rank"):
        tensors = {f"transformer.x.to_q.{stem.format(s)}": ones((3, 3), "f4") for s in "AB"}
        save_file(tensors, folder / "flux.safetensors")
        more = {f"unet.{tools.BLOCK}.attn1.to_q.lora.down.weight": ones((2, 99), "f4")}
        more |= {f"unet.up.to_q.lora.{s}.weight": ones((2, 2), "f4") for s in ("down", "up")}
        tools.write_lora(folder / "wide.safetensors", 0, 2, **more)
        for i in range(20):  # unreadable files are nobody's majority
            (folder / f"noise{i}.safetensors").write_bytes(b"noise")
    mixed = tools.run(_config(tmp_path / "a", files, representations=names))
    found = index.Index.open(tools.path_of(mixed, "c"))
    refused = {i: r for i, r in zip(found["id"], found["mismatch"], strict=True) if r}
    assert refused.keys() == {"flux", "wide"} and "in most files" in refused["wide"]
    assert refused["flux"] == "no module in common with most files; it has transformer_x_to_q, …"
    again = tools.run(_config(tmp_path / "b", tmp_path / "one_rank", representations=["flat_vec"]))
    pairs = [(alone, mixed, name) for name in names] + [(flat, again, "flat_vec")]
    for first, second, name in pairs:
        a, b = _load(first, f"c/{name}"), _load(second, f"c/{name}")
        assert a.units == b.units and a.id.tolist() == b.id.tolist(), name
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.mask, b.mask)


def _one_rank(tmp_path: Path) -> Path:
    for i in range(3):
        tools.write_lora(tmp_path / "one_rank" / f"l{i}.safetensors", i)
    return tmp_path / "one_rank"


def test_on_bad_file_stop_names_every_bad_file(tmp_path: Path) -> None:
    synthetic.write(tmp_path, per_class=2)
    with pytest.raises(ActprobeError) as e:
        tools.run(_config(tmp_path, tmp_path / "files", on_bad_file="stop"))
    assert "6 files cannot be used" in str(e.value) and "broken/lokr: LoKr" in str(e.value)


def test_weights_that_are_not_finite_are_logged_and_stop_the_run_where_files_must_be_fine(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"unet.{tools.BLOCK}.attn1.to_q.lora.up.weight"
    tools.write_lora(files / "l05.safetensors", 5, 2, **{key: np.full((10, 2), np.nan, "f4")})
    for i in range(12):  # one rank, for flat_vec
        if i != 5:
            tools.write_lora(files / f"l{i:02d}.safetensors", i)
    names = ["stats", "flat_vec", "norm_only"]
    cfg = _config(tmp_path, files, representations=names)
    assert [len(_load(tools.run(cfg), f"c/{name}").id) for name in names] == [11, 11, 11]
    reason = "NaN or infinity in unet_" + f"{tools.BLOCK}.attn1.to_q:up".replace(".", "_")
    assert f"left out l05: {reason}" in caplog.messages

    cfg = edited(cfg, ["loras", "c", "on_bad_file"], "stop")
    assert tools.to_make(cfg) == {"lora_index": 1, "features": 3}, "primitives are shared"
    for _ in range(2):  # nothing is sealed that the next run would take over
        with pytest.raises(ActprobeError) as e:
            tools.run(cfg)
        assert "3 of 3 targets cannot be made" in str(e.value)
        assert f"\n  loras.c: 1 files cannot be used:\n  l05: {reason}\n(" in str(e.value)
    made = tools.run({**cfg, "on_bad_dataset": "skip"})
    for name in names:
        with pytest.raises(BadInput, match="l05: NaN or infinity"):
            _load(made, f"c/{name}")
    tools.write_lora(files / "l05.safetensors", 5)
    assert len(_load(tools.run(cfg), "c/stats").id) == 12
    cfg = edited(cfg, ["loras", "c", "on_bad_file"], "skip")
    assert len(_load(tools.run(cfg), "c/stats").id) == 12


def test_a_new_file_recomputes_its_shard_and_what_is_over_it(tmp_path: Path, files: Path) -> None:
    cfg = _config(tmp_path, files, shard_size=8)
    made = tools.run(cfg)
    shards = len({t.item for t in made.targets.values() if t.stage == "lora_primitives"})
    assert shards >= 2 and tools.to_make(cfg) == {}
    tools.write_lora(files / "new.safetensors", 99)
    todo = tools.to_make(cfg)
    assert todo["lora_primitives"] == 3, "one shard of three families"
    assert todo == {"lora_index": 1, "lora_primitives": 3, "features": 5}
    reasons = {s.why for s in tools.planned(cfg).states.values() if s.why}
    assert "files changed; n 12 → 13" in reasons


def test_an_index_opens_new_files_only(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = _config(tmp_path, files)
    first = index.Index.open(tools.path_of(tools.run(cfg), "c"))
    opened = []
    read = index.read_adapter
    monkeypatch.setattr(
        index, "read_adapter", lambda path, *a: opened.append(Path(path).name) or read(path, *a)
    )
    tools.write_lora(files / "new.safetensors", 99)
    again = index.Index.open(tools.path_of(tools.run(cfg), "c"))
    assert opened == ["new.safetensors"] and len(again) == len(first) + 1
    fresh = index.Index.open(tools.path_of(tools.run(_config(tmp_path / "fresh", files)), "c"))
    for column in ("id", "digest", "bytes", "rank", "scale", "module"):
        np.testing.assert_array_equal(again[column], fresh[column])


def test_a_new_representation_costs_its_family_and_one_view(tmp_path: Path, files: Path) -> None:
    made = tools.run(_config(tmp_path, files))
    shards = len({t.item for t in made.targets.values() if t.stage == "lora_primitives"})
    by_view = tools.to_make(_config(tmp_path, files, representations=[*FACTOR, "rank_based"]))
    assert by_view == {"features": 1}
    by_family = tools.to_make(_config(tmp_path, files, representations=[*FACTOR, "product_norms"]))
    assert by_family == {"lora_primitives": shards, "features": 1}


def test_the_scale_matters_to_products_alone(tmp_path: Path, files: Path) -> None:
    names = ["stats", "product_norms"]
    cfg = _config(tmp_path, files, representations=names, shard_size=100)
    tools.run(cfg)
    cfg = edited(cfg, ["loras", "c", "alpha"], "one")
    assert tools.to_make(cfg) == {"lora_index": 1, "lora_primitives": 1, "features": 2}


def test_a_killed_shard_resumes_and_ends_bit_identical(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primitives, "BLOCK_BYTES", 1)  # one LoRA per block
    cfg = _config(tmp_path / "a", files, shard_size=100, representations=["stats", "spectral"])
    compute, calls = primitives.primitives, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(primitives, "primitives", dying)
    with pytest.raises(KeyboardInterrupt):
        tools.run(cfg)
    for part in list(store.files._claims):  # the locks of the process that died
        store.release(part)
    made = tools.run(cfg)
    assert len(calls) == 4 + 12 - 3, "blocks that were done are not computed again"
    monkeypatch.setattr(primitives, "primitives", compute)
    whole = tools.run(_config(tmp_path / "b", files, shard_size=100,
                              representations=["stats", "spectral"]))  # fmt: skip
    for name in ("c/order/all", "c/spectral/all"):
        a, b = tools.path_of(made, name), tools.path_of(whole, name)
        assert Path(a).read_bytes() == Path(b).read_bytes()


def test_a_file_that_changes_between_plan_and_job_stops_the_index(
    tmp_path: Path, files: Path
) -> None:
    cfg = _config(tmp_path, files)
    made = tools.planned(cfg)
    tools.write_lora(files / "l00.safetensors", 123)
    with pytest.raises(ActprobeError, match="files changed since the plan was made"):
        index.run(made.of("lora_index")[0], cfg, 1)


def test_flat_vectors_are_the_factors_and_need_one_rank(tmp_path: Path, files: Path) -> None:
    with pytest.raises(ActprobeError, match=r"one rank is needed, unet_.* has 1, 2, 3"):
        tools.run(_config(tmp_path / "mixed", files, representations=["flat_vec"]))
    same = tmp_path / "same"
    for i in range(3):
        tools.write_lora(same / f"l{i}.safetensors", i, 2)
    made = tools.run(_config(tmp_path, same, representations=["flat_vec"]))
    found = _load(made, "c/flat_vec")
    assert found.x.shape == (3, 2 * (2 * 12 + 10 * 2))
    row = found.id.tolist().index("l1")
    tensors = load_file(same / "l1.safetensors")
    down, up = (
        tensors[f"unet.{tools.BLOCK}.attn1.to_q.lora.{s}.weight"].ravel() for s in ("down", "up")
    )
    np.testing.assert_array_equal(found.x[row, found.unit == 0], down)
    np.testing.assert_array_equal(found.x[row, found.unit == 1], up)


def test_names_of_files_may_have_any_letters(tmp_path: Path) -> None:
    for name in ("über", "猫", "b"):
        tools.write_lora(tmp_path / "loras" / f"{name}.safetensors")
    names = ["stats", "flat_vec"]
    made = tools.run(_config(tmp_path, tmp_path / "loras", representations=names))
    for name in names:
        assert sorted(_load(made, f"c/{name}").id) == ["b", "über", "猫"]


def test_a_tombstone_of_the_index_passes_down(tmp_path: Path) -> None:
    save_file({"some.weight": np.ones(3, np.float32)}, _touch(tmp_path / "x" / "a.safetensors"))
    made = tools.run({**_config(tmp_path, tmp_path / "x"), "on_bad_dataset": "skip"})
    with pytest.raises(
        BadInput, match=r"no file can be used; the first is a: unknown tensor some\.weight"
    ):
        _load(made, "c/stats")


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_unknown_names_in_the_config_are_told_with_the_nearest_one(
    tmp_path: Path, files: Path
) -> None:
    with pytest.raises(ConfigError, match=r"loras\.c\.representations.*did you mean 'spectral'"):
        tools.planned(_config(tmp_path, files, representations=["spectrall"]))


def test_every_default_representation_can_be_made(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = _config(tmp_path, files, representations=None, sketch={"product": 3, "projector": 4})
    made = tools.run(cfg)
    names = {t.name.partition("/")[2] for t in made.targets.values() if t.stage == "features"}
    assert names == {r.name for r in REPRESENTATIONS.values() if r.default and not r.parts}
    widths = {n: _load(made, f"c/{n}").x.shape[1] for n in names}
    factor = {"simple_stats": 5, "rank_based": 11, "stats": 7, "spectral": 32, "matrix_norms": 7,
              "distribution": 12, "frequency": 14, "info_theoretic": 2}  # fmt: skip
    product = {"singular_values": 19, "product_norms": 13, "product_moments": 4,
               "product_sketch": 9, "left_projector": 10, "right_projector": 10}  # fmt: skip
    assert widths == {n: 4 * w for n, w in factor.items()} | {n: 2 * w for n, w in product.items()}
    monkeypatch.setattr(effort, "MODULES", 2)
    assert widths == {n: effort.columns(n, cfg["loras"]["c"]["sketch"]) for n in names}


def test_a_deleted_file_is_forgotten(tmp_path: Path, files: Path) -> None:
    cfg = _config(tmp_path, files, representations=["stats"])
    tools.run(cfg)
    shutil.move(files / "l03.safetensors", tmp_path / "away")
    assert "l03" not in _load(tools.run(cfg), "c/stats").id


def test_a_shard_of_refused_files_alone_is_empty(tmp_path: Path, files: Path) -> None:
    (files / "broken.safetensors").write_bytes(b"nothing")
    made = tools.run(_config(tmp_path, files, shard_size=1, representations=["stats", "product"]))
    assert _load(made, "c/stats").x.shape[0] == 12


def test_one_lora_alone(tmp_path: Path) -> None:
    tools.write_lora(tmp_path / "loras" / "only.safetensors", modules=1)
    made = tools.run(_config(tmp_path, tmp_path / "loras", representations=["stats"]))
    assert _load(made, "c/stats").x.shape == (1, 14)
