"""A job with more targets than files that may be open at once."""

import os
import resource
from itertools import pairwise

import pytest
from models_tiny import make_config, model_entry, run, save_model, targets, tiny_run, write_texts

from actprobe.base import keys
from actprobe.cache import store
from actprobe.models import open_files

SITES = ["resid_pre.*", "attn_out.*", "resid_mid.*", "mlp_out.*", "resid_post.*"]
WANTED = {"sites": SITES, "positions": ["last", "first", "mean", "tokens"]}  # 80 targets


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The model's folder, and the digests of all files without a limit that matters."""
    folder = tmp_path_factory.mktemp("whole")
    found = tiny_run(folder, wanted=WANTED)
    return folder / "model", {name: keys.file_sha256(t.path) for name, t in found.items()}


@pytest.mark.parametrize(("soft", "hard"), [(100, 4096), (150, 150)])
def test_c3_too_many_targets_for_the_limit_of_open_files(tmp_path, expected, soft, hard, caplog):
    model, digests = expected
    config = make_config(tmp_path, model_entry(model), WANTED)
    texts = write_texts(tmp_path)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            found = run(config, texts)
            names = [f"{t.args.site}.{t.args.position}" for t in found]
            same = {n: keys.file_sha256(t.path) for n, t in zip(names, found, strict=True)}
            told = [r.message for r in caplog.records if "go through the model" in r.message]
            assert same == digests
            assert bool(told) == (soft == hard)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_groups_hold_every_target_once_with_lower_layers_first(tmp_path, monkeypatch):
    save_model("llama", tmp_path / "model")
    config = make_config(tmp_path, model_entry(tmp_path / "model"), WANTED)
    wanted = targets(config, write_texts(tmp_path))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (open_files._SPARE + 60, 1 << 20))
    groups = open_files.in_turn(wanted, "tiny")
    assert len(groups) > 1 and sorted(t.path for g in groups for t in g) == sorted(
        t.path for t in wanted
    )
    layers = [{int(t.args.site[-1]) for t in g} for g in groups]
    assert all(max(a) <= min(b) for a, b in pairwise(layers))
    assert not store.part_path(wanted[0].path).exists()
