"""Folders as they are: links, folders and pipes called like files, what vanishes; what changes later."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import lora_tools as tools
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from configs import edited
from safetensors.numpy import load_file, save_file

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.lora import collection, features, index, listing


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for n in range(6):
        tools.write_lora(tmp_path / "loras" / f"l{n}.safetensors", n)
    return tmp_path / "loras"


def _config(tmp_path: Path, files: Path, **options) -> dict:
    shared = {"files": str(files), "representations": ["stats", "flat_vec"]}
    return tools.resolved(tmp_path, {"c": {**shared, **options}})


def _refused(made) -> dict[str, str]:
    found = index.Index.open(tools.path_of(made, "c"))
    return {i: r for i, r in zip(found["id"], found.refused, strict=True) if r}


def test_c8_what_is_no_file_is_named_and_the_rest_goes_on(tmp_path: Path, files: Path) -> None:
    (files / "nowhere.safetensors").symlink_to(tmp_path / "away.safetensors")
    (files / "itself.safetensors").symlink_to(files / "itself.safetensors")
    (files / "folder.safetensors").mkdir()
    (files / "empty.safetensors").touch()
    os.mkfifo(files / "pipe.safetensors")  # opening it would wait for ever
    (files / "peft").mkdir()
    tools.write_lora(files / "peft" / "adapter_model.safetensors")
    (files / "peft" / "adapter_config.json").symlink_to(tmp_path / "away.json")
    made = tools.run(_config(tmp_path, files))
    assert _refused(made) == {
        "nowhere": "a link to a file that is not there",
        "itself": "Too many levels of symbolic links",
        "folder": "a folder, not a file",
        "empty": "not a safetensors file: 0 bytes",
        "pipe": "not a regular file",
        "peft": "adapter_config.json: a link to a file that is not there",
    }
    assert len(features.load(tools.path_of(made, "c/stats")).id) == 6
    tools.write_lora(tmp_path / "away.safetensors", 9)
    assert "nowhere" not in _refused(tools.run(_config(tmp_path, files))), (
        "the link leads somewhere"
    )
    with pytest.raises(ActprobeError, match="5 files cannot be used"):
        tools.run(_config(tmp_path, files, on_bad_file="stop"))


def test_c8_explicit_items_and_patterns_name_them_too(tmp_path: Path, files: Path) -> None:
    (files / "x.safetensors").symlink_to(tmp_path / "away")
    (files / "d.safetensors").mkdir()
    one = [str(files / "l0.safetensors"), str(files / "x.safetensors")]
    for items in (one, [f"{files}/[lxd]*"]):
        cfg = _config(tmp_path / str(len(items)), files)
        cfg = edited(cfg, ["loras", "c", "files"], items)
        refused = _refused(tools.run(cfg))
        assert refused["x"] == "a link to a file that is not there"


def test_c8_links_round_and_round_end(tmp_path: Path, files: Path) -> None:
    (files / "again").symlink_to(files)
    (files / "sub").mkdir()
    (files / "sub" / "up").symlink_to(tmp_path)
    found = [m.id for m in tools.members(files)]
    assert sorted(i for i in found if "/" not in i) == [f"l{n}" for n in range(6)]
    assert len(found) == 6, "sub/up leads to the folder above"
    (files / "sub" / "m.safetensors").hardlink_to(files / "l0.safetensors")
    for pattern in ("**", "**/*", "**/*.safetensors"):
        found = [m.id for m in tools.members(files, files=f"{files}/{pattern}")]
        assert sorted(found) == [*(f"l{n}" for n in range(6)), "sub/m"], pattern


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_c8_folders_and_files_that_may_not_be_read(tmp_path: Path, files: Path) -> None:
    closed = files / "closed"
    tools.write_lora(closed / "a.safetensors")
    closed.chmod(0)
    (files / "l3.safetensors").chmod(0)
    refused = _refused(tools.run(_config(tmp_path, files)))
    assert refused == {"closed": "Permission denied", "l3": "Permission denied"}


def test_c8_rights_are_those_that_the_system_tells(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for root, to whom no file is closed."""
    denied = {str(files / "l3.safetensors"), str(files / "closed")}
    tools.write_lora(files / "closed" / "a.safetensors")
    access, scandir, listdir = os.access, os.scandir, os.listdir

    def closed(path: str) -> None:
        if os.fspath(path) in denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(listing.os, "access", lambda p, m: p not in denied and access(p, m))
    monkeypatch.setattr(listing.os, "scandir", lambda p: closed(p) or scandir(p))
    monkeypatch.setattr(listing.os, "listdir", lambda p: closed(p) or listdir(p))
    found = tools.members(files)
    digests = collection.digests(found, "content", keys.DigestMemo(tmp_path))
    told = zip([m.id for m in found], digests, strict=True)
    unreadable = {i: d for i, d in told if d.startswith(collection.UNREADABLE)}
    assert unreadable == dict.fromkeys(("closed", "l3"), "unreadable: Permission denied")


def test_c8_a_file_that_is_deleted_while_it_is_listed_is_named(tmp_path: Path, files: Path) -> None:
    found = tools.members(files)
    (files / "l2.safetensors").unlink()
    digests = collection.digests(found, "content", keys.DigestMemo(tmp_path))
    bad = {m.id: d for m, d in zip(found, digests, strict=True) if d.startswith("unreadable")}
    assert bad == {"l2": "unreadable: No such file or directory"}


def test_a_failing_disk_ends_the_plan_by_name(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tools.members(files)

    def fails(path: str) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(listing.os, "stat", fails)
    with pytest.raises(ActprobeError, match=r"l\d\.safetensors cannot be read now: Input/output"):
        collection.digests(found, "content", keys.DigestMemo(tmp_path))


def test_thousands_of_unrelated_files_are_passed_over(tmp_path: Path, files: Path) -> None:
    (files / "log").mkdir()
    for n in range(3000):
        (files / "log" / f"{n}.txt").touch()
    assert len(tools.members(files)) == 6


def test_a_base_model_beside_an_adapter_is_another_file(tmp_path: Path, files: Path) -> None:
    for name in ("adapter_model", "model", "lora"):
        tools.write_lora(files / "x" / f"{name}.safetensors", 7)
    save_file(
        {"model.embed_tokens.weight": np.ones((3, 3), "f4")}, files / "x" / "model.safetensors"
    )
    made = tools.run(_config(tmp_path, files))
    assert sorted(m.id for m in tools.members(files))[-3:] == ["x", "x/lora", "x/model"]
    assert _refused(made) == {
        "x/model": "unknown tensor model.embed_tokens.weight and no LoRA in it"
    }
    (files / "y").mkdir()
    both = [str(files), str(files / "x" / "lora.safetensors")]
    assert len(tools.members(files, files=both)) == 9, "a file that two items name is one"
    tools.write_lora(tmp_path / "other" / "l1.safetensors")
    with pytest.raises(ConfigError, match="both named 'l1'"):
        tools.members(files, files=[str(files), str(tmp_path / "other")])


def _swap_bytes(path: Path) -> None:
    """Change the weights; header, size and modification time stay."""
    st = path.stat()
    tensors = load_file(path)
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(next(iter(tensors.values())).flat[0] + 1).tobytes()
    with open(path, "r+b") as f:
        f.write(data)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert path.stat().st_size == st.st_size and path.stat().st_mtime_ns == st.st_mtime_ns


@pytest.mark.parametrize("stage", ["lora_index", "lora_primitives", "features"])
def test_b5_weights_that_change_after_the_plan_are_published_by_no_stage(
    tmp_path: Path, files: Path, stage: str
) -> None:
    cfg = _config(tmp_path, files)
    made = tools.planned(cfg)
    before = list(tools.RUN)[: list(tools.RUN).index(stage)]
    for earlier in before:
        for batch in made.of(earlier):
            tools.RUN[earlier](batch, cfg, 1)
    _swap_bytes(files / "l3.safetensors")
    with pytest.raises(ActprobeError, match=r"changed (since|after) the plan was made.*run again"):
        for batch in made.of(stage):
            tools.RUN[stage](batch, cfg, 1)
    assert not any(Path(p).exists() for p in made.paths(stage)), "flat_vec reads weights, too"
    again = tools.run(cfg)
    fresh = tools.run(_config(tmp_path / "fresh", files))
    for name in ("c/stats", "c/flat_vec", "c/order/all"):
        a, b = (Path(tools.path_of(m, name)).read_bytes() for m in (again, fresh))
        assert a == b, name


@pytest.mark.parametrize("change", ["gone", "config", "folder", "cut"])
def test_b5_files_that_vanish_or_break_after_the_plan_end_the_job(
    tmp_path: Path, files: Path, change: str
) -> None:
    path = files / "l3.safetensors"
    (files / "adapter_config.json").write_text("{}")
    for m in files.glob("*.safetensors"):  # every file has the config beside it
        save_file({k.replace(".lora.down", ".lora_down").replace(".lora.up", ".lora_up"): v
                   for k, v in load_file(m).items()}, m)  # fmt: skip
    cfg = _config(tmp_path, files, representations=["stats"], alpha="one")
    made = tools.planned(cfg)
    for batch in made.of("lora_index"):
        index.run(batch, cfg, 1)
    if change == "gone":
        path.unlink()
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        (files / "adapter_config.json").write_text('{"r": 2}')
    with pytest.raises(ActprobeError, match="run again"):
        for batch in made.of("lora_primitives"):
            tools.RUN["lora_primitives"](batch, cfg, 1)
    assert not any(Path(p).exists() for p in made.paths("lora_primitives"))


def test_b5_with_stat_size_and_time_are_compared(tmp_path: Path, files: Path) -> None:
    cfg = _config(tmp_path, files, identity="stat")
    made = tools.planned(cfg)
    index.run(made.of("lora_index")[0], cfg, 1)
    os.utime(files / "l3.safetensors", (5, 5))
    with pytest.raises(ActprobeError, match=r"l3\.safetensors was changed after the plan"):
        for batch in made.of("lora_primitives"):
            tools.RUN["lora_primitives"](batch, cfg, 1)
    assert len(features.load(tools.path_of(tools.run(cfg), "c/stats")).id) == 6


def test_b5_tables_that_change_after_the_plan_end_the_job(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / "t.parquet"
    stem = f"unet.{tools.BLOCK}.attn1.to_q.lora"

    def write(x: float) -> None:
        cells = [[[x, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]
        columns = {f"{stem}.down.weight": cells, f"{stem}.up.weight": [[[1.0], [2.0]]] * 2}
        pq.write_table(pa.table({**columns, "id": ["a", "b"]}), path)

    write(1.0)
    tables = {"tables": str(tmp_path / "tables"), "representations": ["stats"]}
    cfg = tools.resolved(tmp_path, {"c": tables})
    made = tools.planned(cfg)
    index.run(made.of("lora_index")[0], cfg, 1)
    st = path.stat()
    write(9.0)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    with pytest.raises(ActprobeError, match=r"t\.parquet was changed after the plan"):
        for batch in made.of("lora_primitives"):
            tools.RUN["lora_primitives"](batch, cfg, 1)
    assert features.load(tools.path_of(tools.run(cfg), "c/stats")).x.max() == 9


def test_large_tensors_beside_the_lora_are_digested_and_not_held(tmp_path: Path) -> None:
    """A head of 64 MB among 2,000 bytes of factors; in a process of its own, which is measured."""
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{stem}.lora_A.weight": np.ones((4, 60), "f4"),
        f"{stem}.lora_B.weight": np.ones((60, 4), "f4"),
        "base_model.model.embed_tokens.weight": np.zeros((1 << 14, 1 << 10), "f4"),
        "base_model.model.score.weight": np.ones((3, 60), "f4"),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    script = (
        "import resource, sys\n"
        "from actprobe.base import keys\n"
        "from actprobe.lora.records import Rules\n"
        "from actprobe.lora.collection import Member\n"
        "from actprobe.lora.read import read_lora\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "m = Member('x', sys.argv[1])\n"
        "read_lora(m, Rules(alpha='one'), ('content', keys.file_sha256(m.path)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 24_000, "KiB"
