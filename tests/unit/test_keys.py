"""Keys are a pure function of the spec."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprobe.base import keys

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_canonical_json_sorts_and_keeps_unicode():
    assert keys.canonical_json({"b": 1, "a": [1.5, "ü", None]}) == '{"a":[1.5,"ü",null],"b":1}'


def test_known_key_never_changes():
    spec = {"stage": "texts", "version": 1, "sha256": "ab", "label": None}
    assert keys.short(keys.spec_key(spec)) == "2bab175ebde0"


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_key_ignores_the_order_of_keys(spec):
    assert keys.spec_key(spec) == keys.spec_key(dict(reversed(spec.items())))


@given(json_values, json_values)
def test_different_values_have_different_json(a, b):
    same = keys.canonical_json(a) == keys.canonical_json(b)
    assert same == (repr(a) == repr(b) or (a == b and type(a) is type(b) and same))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match="cannot hold"):
        keys.canonical_json({"x": value})


@pytest.mark.parametrize("value", [{1, 2}, Path("x"), {1: "int key"}, b"bytes"])
def test_what_has_no_single_json_form_is_refused(value):
    with pytest.raises(TypeError):
        keys.canonical_json({"x": value})


def test_key_is_the_same_in_another_process():
    spec = {"z": [1, 2.5, "é"], "a": {"y": True, "x": None}}
    code = f"from actprobe.base import keys; print(keys.spec_key({spec!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == keys.spec_key(spec)


@pytest.fixture
def later(monkeypatch):
    """Three seconds from now, when files written now have stood long enough."""
    now = time.time_ns
    monkeypatch.setattr(keys.time, "time_ns", lambda: now() + 3 * 10**9)


def test_digest_memo_reads_a_file_once_and_notices_a_change(tmp_path, monkeypatch, later):
    file = tmp_path / "data.csv"
    file.write_text("a")
    memo = keys.DigestMemo(tmp_path)
    first = memo.sha256(file)
    memo.save()

    again = keys.DigestMemo(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "file_sha256", lambda *_: pytest.fail("read again"))
        assert again.sha256(file) == first

    file.write_text("ab")
    assert again.sha256(file) == keys.file_sha256(file) != first


def test_digest_memo_notices_another_file_of_the_same_size_and_time(tmp_path, later):
    file, other = tmp_path / "model", tmp_path / "other"
    file.write_text("a")
    os.utime(file, (1e9, 1e9))
    memo = keys.DigestMemo(tmp_path)
    first = memo.sha256(file)
    time.sleep(0.05)  # more than a tick of the file system's clock
    other.write_text("b")
    os.utime(other, (1e9, 1e9))
    os.replace(other, file)  # as `rsync -t` and archives with fixed times do
    assert memo.sha256(file) == keys.file_sha256(file) != first


def test_digest_memo_does_not_remember_a_file_that_may_yet_change_unseen(tmp_path, monkeypatch):
    file = tmp_path / "data.csv"
    file.write_text("a")
    memo, stamp = keys.DigestMemo(tmp_path), keys._stamp(str(file))
    monkeypatch.setattr(keys, "_stamp", lambda _: stamp)  # a coarse clock
    first = memo.sha256(file)
    file.write_text("b")
    assert memo.sha256(file) == keys.file_sha256(file) != first
    memo.save()
    assert not memo.file.exists()


def test_digest_memo_does_not_remember_a_file_that_changed_under_it(tmp_path, monkeypatch, later):
    file = tmp_path / "data.csv"
    file.write_text("a")
    memo, take = keys.DigestMemo(tmp_path), keys.file_sha256

    def slow(path, progress):
        digest = take(path, progress)
        file.write_text("other words")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(keys, "file_sha256", slow)
        first = memo.sha256(file)
    assert memo.sha256(file) == take(file) != first


def test_digest_memo_survives_a_damaged_file(tmp_path):
    (tmp_path / "digests.json").write_text("{not json")
    file = tmp_path / "x"
    file.write_text("x")
    assert keys.DigestMemo(tmp_path).sha256(file) == keys.file_sha256(file)


def test_the_memo_can_be_read_by_whom_the_umask_lets(tmp_path, later):
    before = os.umask(0o002)
    try:
        memo = keys.DigestMemo(tmp_path)
        memo.sha256(__file__)
        memo.save()
    finally:
        os.umask(before)
    assert memo.file.stat().st_mode & 0o777 == 0o664
    assert [p.name for p in tmp_path.iterdir()] == [memo.file.name]
