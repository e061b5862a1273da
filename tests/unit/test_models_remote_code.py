"""Code that comes with a model is never run unless the config names its state (row E1)."""

# ruff: noqa: F401, F811

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import loopback
from models_tiny import make_config, model_entry, run, save_model, targets, write_texts

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import store

WANTED = {"sites": ["resid_post.0"], "positions": ["last"]}

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaModel
Path({ran!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaModel):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A model whose classes are in its folder; (folder, the file that shows that they were run)."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "mods")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [n for n in sys.modules if n.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    folder, ran = save_model("llama", tmp_path / "model"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text(CODE.format(ran=str(ran)))
    return folder, ran


def attempt(tmp_path, source, **changes):
    config = make_config(tmp_path, model_entry(source, **changes), WANTED)
    [t] = run(config, write_texts(tmp_path))
    with store.open_h5(t.path) as f:
        return f["x"][:]


def code_of(folder):
    return keys.spec_key({"modeling_own.py": keys.file_sha256(folder / "modeling_own.py")})


def test_e1_code_is_not_run_and_the_words_to_write_are_given(tmp_path, own):
    folder, ran = own
    with pytest.raises(
        ConfigError,
        match=rf"models\.m needs code of its own \(modeling_own\.py\), .* models\.m\.remote_code: "
        rf"{code_of(folder)}$",
    ):
        attempt(tmp_path, folder)
    assert not ran.exists()


def test_e1_code_of_a_tokenizer_is_not_run(tmp_path, own):
    folder, ran = own
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    (folder / "tokenizer.json").unlink()
    said = {"auto_map": {"AutoTokenizer": ["modeling_own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(ActprobeError):
        attempt(tmp_path, folder)
    assert not ran.exists()


def test_e1_nothing_asks_on_the_terminal(tmp_path, own):
    """transformers would: `yes |` on stdin ran the code."""
    folder, ran = own
    code = (
        "import sys, test_models_remote_code as t; from pathlib import Path;"
        f"t.attempt(Path({str(tmp_path)!r}), {str(folder)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="y\n" * 99, text=True, capture_output=True, check=False,
        env={**dict(__import__("os").environ), "PYTHONPATH": ":".join(sys.path)}, timeout=120,
    )  # fmt: skip
    assert "ConfigError" in done.stderr and "remote_code" in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr and not ran.exists()


def test_e1_code_that_is_named_is_run(tmp_path, own):
    folder, ran = own
    plain = attempt(tmp_path / "plain", save_model("llama", tmp_path / "plain" / "model"))
    assert not ran.exists()
    found = attempt(tmp_path, folder, remote_code=code_of(folder))
    assert ran.exists() and (found == plain).all()


def test_e1_other_code_than_was_named_is_refused_in_the_plan(tmp_path, own):
    folder, ran = own
    named = code_of(folder)
    (folder / "modeling_own.py").write_text("import os")
    with pytest.raises(
        ConfigError,
        match=rf"models\.m\.remote_code: {named}, but .* write remote_code: {code_of(folder)}",
    ):
        attempt(tmp_path, folder, remote_code=named)
    (folder / "modeling_own.py").unlink()
    with pytest.raises(ConfigError, match=r"models\.m\.remote_code: .* holds no code"):
        attempt(tmp_path, folder, remote_code=named)
    assert not ran.exists()


def test_e1_code_of_another_repository_is_never_run(tmp_path, own):
    folder, ran = own
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {k: f"org/other--{v}" for k, v in config["auto_map"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=r"takes its code from another repository \(org/other--model"
    ):
        attempt(tmp_path, folder, remote_code=code_of(folder))
    (folder / "modeling_own.py").unlink()
    with pytest.raises(ConfigError, match="needs code that is not among its files"):
        attempt(tmp_path, folder)
    assert not ran.exists()


def test_e1_code_on_the_hub_is_named_by_its_commit(tmp_path, own, loopback):
    folder, ran = own
    commit = loopback.add("org/name", folder)
    other = "0123456789" * 4
    with pytest.raises(ConfigError, match=rf"write models\.m\.remote_code: {commit}$"):
        attempt(tmp_path, "hub:org/name", revision=commit)
    with pytest.raises(
        ConfigError, match=rf"remote_code: {other}, but hub:org/name is read at {commit}"
    ):
        attempt(tmp_path, "hub:org/name", revision="main", remote_code=other)
    assert not ran.exists()
    assert len(attempt(tmp_path, "hub:org/name", revision="main", remote_code=commit))
    assert ran.exists()


def test_e1_whether_code_is_run_enters_the_key(tmp_path, own):
    folder, _ = own
    texts = write_texts(tmp_path)
    keys_ = [
        targets(make_config(tmp_path, model_entry(folder, remote_code=c), WANTED), texts)[0].key
        for c in (None, code_of(folder))
    ]
    assert keys_[0] != keys_[1]
    assert Path(texts.path).exists()
