"""What was computed is not computed again (fault rows G1, G8): equal tokens, equal rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models_tiny import TEXTS, by_name, make_config, model_entry, run, save_model, write_texts

from actprobe import models
from actprobe.cache import store
from actprobe.models import extract

POSITIONS = ["last", "mean", "tokens"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def passes(monkeypatch):
    """Rows of every forward pass, norms and self-check aside."""
    found: list[list[int]] = []
    forward = extract.forward

    def spy(model, tokens, rows, reductions, *rest):
        if "norms" not in reductions and len(rows):
            found.append(list(rows))
        return forward(model, tokens, rows, reductions, *rest)

    monkeypatch.setattr(extract, "forward", spy)
    return found


@pytest.fixture
def from_now_on_no_weights(request):
    return lambda: request.getfixturevalue("no_weights")


def make(tmp_path: Path, folder: Path, texts=None, name="tiny", reuse=False, again=False, **model):
    wanted = {"sites": ["resid_post.1"], "positions": POSITIONS, "reuse_rows": reuse}
    config = make_config(tmp_path, model_entry(folder, **model), wanted)
    return by_name(run(config, write_texts(tmp_path, name, texts), everything=again))


def content(t) -> dict[str, bytes]:
    with store.open_h5(t.path, t.key) as f:
        return {n: f[n][...].tobytes() for n in f if n != "header"}


@pytest.mark.parametrize("change", [{"max_length": 200}, {"prepend_bos": True}])
def test_g8_a_setting_that_changes_no_token_costs_no_pass(
    tmp_path, folder, from_now_on_no_weights, change
):
    before = make(tmp_path, folder)
    from_now_on_no_weights()
    after = make(tmp_path, folder, **change)
    for position in before:
        old, new = before[position], after[position]
        assert old.key != new.key and content(old) == content(new)
        header = store.verify(new.path)
        assert header["facts"]["copied_from"] == old.key and old.key in header["from"]


def test_a_target_is_never_copied_from_itself(tmp_path, folder, passes):
    """Another run made it since the plan, or everything is to be made again."""
    before = make(tmp_path, folder)
    passes.clear()
    after = make(tmp_path, folder, again=True)
    assert passes, "it was computed"
    for position, t in after.items():
        header = store.verify(t.path)
        assert t.key == before[position].key
        assert t.key not in header["from"] and "copied_from" not in header["facts"]


def test_g8_a_setting_that_cuts_a_row_is_computed(tmp_path, folder, passes):
    before = make(tmp_path, folder)
    passes.clear()
    after = make(tmp_path, folder, max_length=20)
    assert passes and content(before["resid_post.1.last"]) != content(after["resid_post.1.last"])


def test_g1_an_appended_row_costs_its_own_pass_where_that_is_allowed(tmp_path, folder, passes):
    make(tmp_path, folder)
    more = ["first of all", *TEXTS[::-1], "one row more"]
    fresh = make(tmp_path / "fresh", folder, more)
    passes.clear()
    grown = make(tmp_path, folder, more, reuse=True)
    assert {i for rows in passes for i in rows} >= {0, len(more) - 1}
    assert all({0, len(more) - 1} >= set(rows) for rows in passes[-1:])
    for position, t in grown.items():
        facts = store.verify(t.path)["facts"]
        assert facts["reused"]["rows"] == len(TEXTS) and len(facts["reused"]["from"]) == 64
        np.testing.assert_allclose(
            models.load_activations(t.path),
            models.load_activations(fresh[position].path),
            rtol=1e-4,
            atol=1e-4,
        )
        with store.open_h5(t.path) as mine, store.open_h5(fresh[position].path) as its:
            for name in {*its} - {"header", "x"}:
                assert np.array_equal(mine[name][...], its[name][...]), name


def test_g1_rows_are_computed_anew_by_default(tmp_path, folder, passes):
    make(tmp_path, folder)
    passes.clear()
    grown = make(tmp_path, folder, [*TEXTS, "one row more"])
    assert {i for rows in passes for i in rows} == set(range(len(TEXTS) + 1))
    assert "reused" not in store.read_header(grown["resid_post.1.last"].path)["facts"]


def test_g1_rows_that_are_all_there_in_another_order_load_no_model(
    tmp_path, folder, from_now_on_no_weights
):
    before = make(tmp_path, folder)
    from_now_on_no_weights()
    after = make(tmp_path, folder, TEXTS[5:2:-1], name="some", reuse=True)
    for position in ("resid_post.1.last", "resid_post.1.mean"):
        x = models.load_activations(before[position].path)
        assert np.array_equal(models.load_activations(after[position].path), x[5:2:-1])
    with models.open_activations(after["resid_post.1.tokens"].path) as a:
        assert a.offsets[-1] == a.shape[0] == len(a.token_ids)


def test_a_damaged_older_file_is_never_copied(tmp_path, folder):
    from actprobe.base.errors import Damaged

    before = make(tmp_path, folder)["resid_post.1.last"]
    path = Path(before.path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Damaged, match=r"set aside as \.bad"):
        make(tmp_path, folder, max_length=200)
