"""Models on the hub: what the plan asks, what a job fetches, and what stops which (section I)."""

# ruff: noqa: F401, F811

import logging
import shutil
import time
from pathlib import Path

import pytest
from hub_server import TOKEN, Fault, loopback
from models_tiny import make_config, model_entry, run, save_model, targets, write_texts
from test_models_files import shard

from actprobe.base.errors import ConfigError, Damaged, Unreachable
from actprobe.cache import store
from actprobe.experiment import shapes
from actprobe.files import hub
from actprobe.files.hub import asking, layout

WANTED = {"sites": ["resid_post.0"], "positions": ["last"]}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(asking, "ANSWER", 1.0)
    monkeypatch.setattr(asking, "WHOLE", 2.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = save_model("llama", tmp_path_factory.mktemp("hub") / "model")
    shard(folder)
    return folder


def config(tmp_path, source="hub:org/name", wanted=WANTED, **changes):
    return make_config(tmp_path / "cache", model_entry(source, **changes), wanted)


def plan(tmp_path, source="hub:org/name", wanted=WANTED, acts=True, **changes):
    """The targets of a config, as a run (or a dry run) accepts them."""
    found = targets(config(tmp_path, source, wanted, **changes), write_texts(tmp_path / "cache"))
    hub.require_reachable([t.args for t in found], acts)
    return found


def made(tmp_path, source="hub:org/name", wanted=WANTED, **changes):
    [t] = run(config(tmp_path, source, wanted, **changes), write_texts(tmp_path / "cache"))
    with store.open_h5(t.path) as f:
        return t, f["x"][:], store.read_header(t.path)["facts"]


def wipe(tmp_path):
    shutil.rmtree(tmp_path / "home" / "hub", ignore_errors=True)


# -- the same numbers, and how they are told


def test_a_model_of_the_hub_gives_the_numbers_of_its_folder(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    t, found, facts = made(tmp_path, revision=commit)
    _, local, local_facts = made(tmp_path / "local", tiny)
    assert (found == local).all()
    assert t.spec["model"] == {"hub": "org/name", "revision": commit}
    assert facts["model"] == {"hub": "org/name", "revision": commit, "commit": commit}
    assert "model" not in local_facts


def test_i5_the_commit_of_a_branch_stands_in_the_file(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny, branch="feature/x")
    t, _, facts = made(tmp_path, revision="feature/x")
    assert facts["model"] == {"hub": "org/name", "revision": "feature/x", "commit": commit}
    assert (t.args["place"]["asked"], t.args["place"]["revision"]) == ("feature/x", commit)
    pinned = plan(tmp_path, revision=commit)
    assert pinned[0].key == t.key


def test_i4_a_branch_that_moves_makes_other_files(tmp_path, loopback, tiny):
    old = loopback.add("org/name", tiny)
    first, _, _ = made(tmp_path)
    (ref := layout.storage("org/name") / "refs" / "main").parent.mkdir(exist_ok=True)
    ref.write_text(old)
    new = loopback.add(
        "org/name", {p.name: p.read_bytes() for p in tiny.iterdir()} | {"x.json": b"1"}
    )
    second, _, _ = made(tmp_path)
    assert [t.spec["model"]["revision"] for t in (first, second)] == [old, new]


def test_transformers_asks_for_nothing_itself(tmp_path, loopback, tiny):
    """It would list templates and look for adapters at every load, without a time limit."""
    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    asked = [a for a in loopback.requests() if "agent-harnesses" not in a]
    assert len(asked) == len(set(asked)) and not loopback.requests("/tree/")
    assert {a.rpartition("/")[2] for a in asked if "/resolve/" in a} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


# -- I2, I3: without a network


@pytest.mark.parametrize("state", ["refuses", "silent", "drips", "offline"])
def test_i2_what_is_here_needs_no_hub(tmp_path, loopback, tiny, state, monkeypatch, caplog):
    from huggingface_hub import constants

    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    loopback.reset()
    if state == "refuses":
        loopback.close()
    elif state == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        loopback.faults.append(Fault(state.removesuffix("s"), times=99))
    begun = time.monotonic()
    assert plan(tmp_path / "fresh", revision=commit)
    assert time.monotonic() - begun < 5
    made(tmp_path / "fresh", revision=commit)
    assert not loopback.requests() and not caplog.text


@pytest.mark.parametrize("way", ["snapshot", "files", "transformers"])
def test_i2_what_other_tools_fetched_needs_no_hub(tmp_path, loopback, tiny, way, monkeypatch):
    """As `hf download` and from_pretrained leave it, for nodes without a network."""
    import transformers
    from huggingface_hub import constants, hf_hub_download, snapshot_download

    commit = loopback.add("org/name", tiny)
    if way == "snapshot":
        snapshot_download("org/name", revision=commit)
    elif way == "files":
        for path in tiny.iterdir():
            hf_hub_download("org/name", path.name, revision=commit)
    else:
        transformers.AutoTokenizer.from_pretrained("org/name", revision=commit)
        transformers.AutoModel.from_pretrained("org/name", revision=commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert plan(tmp_path, revision=commit)
    _, found, _ = made(tmp_path, revision=commit)
    assert found.any()


def test_i3_a_branch_works_offline_once_it_was_seen(tmp_path, loopback, tiny, caplog):
    commit = loopback.add("org/name", tiny)
    t, _, _ = made(tmp_path, revision="main")
    loopback.close()
    assert [p.key for p in plan(tmp_path, revision="main")] == [t.key]
    assert f"going on with commit {commit[:8]}, which it was on" in caplog.text


def test_i3_a_branch_that_was_never_seen_is_refused_by_cause(tmp_path, loopback, tiny):
    loopback.close()
    with pytest.raises(
        Unreachable,
        match=r"models\.m\.revision: hub:org/name at revision 'main': .*ConnectError.*pin",
    ):
        plan(tmp_path)


def test_i2_a_snapshot_that_was_never_listed_is_taken_as_it_is(tmp_path, loopback, tiny, caplog):
    """As another tool left it; the hub is tried once, by the job alone."""
    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    shutil.rmtree(layout.storage("org/name") / "trees")
    loopback.faults.append(Fault("silent", times=99))
    loopback.asked.clear()
    plan(tmp_path / "fresh", revision=commit)
    assert not loopback.requests()
    begun = time.monotonic()
    _, _, facts = made(tmp_path / "fresh", revision=commit)
    assert time.monotonic() - begun < 20
    assert facts["model"]["commit"] == commit
    assert "no answer within 1 s; what is here of it is taken as complete" in caplog.text


def test_i2_a_snapshot_that_is_not_whole_is_completed(tmp_path, loopback, tiny):
    """Killed between two files: what is missing could be a chat template."""
    files = {p.name: p.read_bytes() for p in tiny.iterdir()} | {"chat_template.jinja": b"{{ x }}"}
    commit = loopback.add("org/name", files)
    made(tmp_path, revision=commit)
    for name in ("chat_template.jinja", "model.safetensors"):
        (layout.snapshot("org/name", commit) / name).unlink()
        made(tmp_path / name, revision=commit)
        assert (layout.snapshot("org/name", commit) / name).exists()


# -- I7: in the plan, by cause


def test_i7_a_repository_that_is_missing(tmp_path, loopback):
    with pytest.raises(
        ConfigError, match=r"hub:org/none .*there is no such repository, or it is priv"
    ):
        plan(tmp_path, "hub:org/none", revision="0123456789" * 4)
    with pytest.raises(ConfigError, match=r"models\.m\.revision: hub:org/none at revision 'main'"):
        plan(tmp_path, "hub:org/none")


@pytest.mark.parametrize("kind", ["gated", "private"])
@pytest.mark.parametrize("acts", [True, False])
def test_i7_a_repository_that_is_closed(tmp_path, loopback, tiny, kind, acts, monkeypatch):
    commit = loopback.add("org/name", tiny, access=kind)
    says = "it is gated .* accept its conditions at" if kind == "gated" else "not logged in"
    with pytest.raises(ConfigError, match=rf"cannot be had from the hub:\n  hub:org/name.*{says}"):
        plan(tmp_path, revision=commit, acts=acts)
    if kind == "gated":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
        with pytest.raises(
            ConfigError, match=r"gated \(HTTP 403\): with the account of your token"
        ):
            plan(tmp_path, revision=commit, acts=acts)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert plan(tmp_path, revision=commit, acts=acts)


def test_i7_weights_that_are_refused_although_the_config_is_here(tmp_path, loopback, tiny):
    """The hub lists, and shows the config of, what it may still refuse to give."""
    commit = loopback.add("org/name", tiny)
    plan(tmp_path, revision=commit)
    loopback.repos["org/name"].access = "gated"
    with pytest.raises(ConfigError, match=r"hub:org/name/tokenizer\.json at .*: it is gated"):
        plan(tmp_path, revision=commit)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", status=429, headers={"Retry-After": "300"}), "it asks to wait 300 s"),
        (Fault("status", status=502), r"trouble \(HTTP 502\)"),
        (Fault("silent"), "no answer within 1 s"),
        (None, r"cannot be reached \(ConnectError"),
    ],
)
def test_i7_what_cannot_be_had_now_stops_a_run_and_is_told_by_a_dry_run(
    tmp_path, loopback, tiny, fault, message, caplog
):
    commit = loopback.add("org/name", tiny)
    if fault is None:
        loopback.close()
    else:
        fault.times = 99
        loopback.faults.append(fault)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=rf"from the hub now:\n  hub:org/name at .*{message}"):
        plan(tmp_path, revision=commit)
    assert plan(tmp_path, revision=commit, acts=False)
    assert "(a run would end here)" in caplog.text
    assert time.monotonic() - begun < 25


def test_i7_what_is_made_already_needs_no_hub(tmp_path, loopback, tiny):
    """Results outlive the repository that they were made from."""
    commit = loopback.add("org/name", tiny)
    t, _, _ = made(tmp_path, revision=commit)
    wipe(tmp_path)
    del loopback.repos["org/name"]
    found = targets(config(tmp_path, revision=commit), write_texts(tmp_path / "cache"))
    assert [p.key for p in found] == [t.key] and Path(t.path).exists()


def test_i7_a_guessed_number_of_layers(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    with pytest.raises(ConfigError, match=r"models\.m\.n_layers: 9, but its config\.json says 4"):
        plan(tmp_path, revision=commit, n_layers=9)
    with pytest.raises(ConfigError, match="the model has 4 layers, expected 0 to 3"):
        plan(tmp_path, revision=commit, wanted={**WANTED, "sites": ["resid_post.4"]})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"model-Q4.gguf": b"GGUF"},
            r"no model here: it holds model-Q4\.gguf, which is read as a file",
        ),
        (
            {"config.json": b"{}", "x-Q4.gguf": b"G"},
            r"has no weights .*holds x-Q4\.gguf, which is read as a file of its own",
        ),
        ({"sub/config.json": b"{}"}, r"but in sub: write subfolder: sub"),
        ({"config.json": b"{}", "model.fp16.safetensors": b"1"}, "a variant of the weights"),
        (
            {"config.json": b"nonsense", "model.safetensors": b"1"},
            "config.json cannot be read as JSON",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_the_plan(tmp_path, loopback, files, message):
    commit = loopback.add("org/name", files)
    with pytest.raises(ConfigError, match=rf"hub:org/name at {commit[:8]}.*{message}"):
        plan(tmp_path, revision=commit)


def test_a6_an_adapter_on_the_hub(tmp_path, loopback, tiny):
    files = {p.name: p.read_bytes() for p in tiny.iterdir()}
    files |= {"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora"}
    commit = loopback.add("org/name", files)
    with pytest.raises(
        ConfigError, match=r"models\.m: hub:org/name at .* models\.m\.adapter: ignore"
    ):
        plan(tmp_path, revision=commit)
    made(tmp_path, revision=commit, adapter="ignore")
    assert loopback.sent["adapter_model.safetensors"] == 0


# -- I1: damage


def test_i1_a_flipped_byte_in_a_cached_blob_is_never_part_of_a_result(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    blob = (layout.snapshot("org/name", commit) / "model.safetensors").resolve()
    good = blob.read_bytes()
    blob.write_bytes(good[:-9] + bytes([good[-9] ^ 4]) + good[-8:])
    with pytest.raises(Damaged, match=rf"{blob} in the local hub cache is damaged: .*rm {blob}"):
        made(tmp_path / "again", revision=commit)
    # The same as a local folder: its files are those blobs.
    with pytest.raises(Damaged, match=rf"rm {blob}"):
        made(tmp_path / "local", layout.snapshot("org/name", commit))
    blob.unlink()
    made(tmp_path / "again", revision=commit)


def test_i1_a_truncated_blob_is_found_in_the_plan(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    blob = (layout.snapshot("org/name", commit) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(Damaged, match=rf"{blob} .* bytes, expected .*rm {blob}"):
        plan(tmp_path / "again", revision=commit)


def test_a_snapshot_as_a_local_folder(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    made(tmp_path, revision=commit)
    loopback.close()
    t, _, facts = made(tmp_path / "local", layout.snapshot("org/name", commit))
    assert "weights" in t.spec["model"] and "model" not in facts


# -- I9, I11


def test_i9_only_the_files_of_the_wanted_layers_are_fetched(tmp_path, loopback, sharded, caplog):
    commit = loopback.add("org/name", sharded)
    whole = sum(p.stat().st_size for p in sharded.glob("*.safetensors"))
    with caplog.at_level(logging.INFO):
        _, found, _ = made(tmp_path, revision=commit)
    sent = sum(n for name, n in loopback.sent.items() if name.endswith(".safetensors"))
    assert sent < whole / 2
    _, local, _ = made(tmp_path / "local", sharded)
    assert (found == local).all()
    loopback.reset()
    _, last, _ = made(
        tmp_path / "more", revision=commit, wanted={**WANTED, "sites": ["resid_post.3"]}
    )
    assert last.any()
    more = sum(n for name, n in loopback.sent.items() if name.endswith(".safetensors"))
    assert sent + more == whole


def test_i9_the_first_layers_need_no_hub_once_their_files_are_here(tmp_path, loopback, sharded):
    """Of a large model the other files may never have been fetched."""
    commit = loopback.add("org/name", sharded)
    made(tmp_path, revision=commit)
    loopback.close()
    assert plan(tmp_path / "fresh", revision=commit)
    made(tmp_path / "fresh", revision=commit)
    with pytest.raises(
        Unreachable, match=r"org/name/model-\d+-of-\d+\.safetensors at .*ConnectError"
    ):
        plan(tmp_path / "more", revision=commit, wanted={**WANTED, "sites": ["resid_post.2"]})
    index = layout.snapshot("org/name", commit) / "model.safetensors.index.json"
    index.unlink()
    with pytest.raises(Unreachable, match=r"model\.safetensors\.index\.json at"):
        plan(tmp_path / "index", revision=commit)


def test_weights_in_other_forms_are_not_fetched(tmp_path, loopback, tiny):
    files = {p.name: p.read_bytes() for p in tiny.iterdir()}
    other = (
        "pytorch_model.bin",
        "model.onnx",
        "x.gguf",
        "original/consolidated.00.pth",
        "README.md",
    )
    commit = loopback.add("org/name", files | dict.fromkeys(other, b"large"))
    made(tmp_path, revision=commit)
    assert not any(loopback.sent[name.rpartition("/")[2]] for name in other)


@pytest.mark.parametrize("way", ["source", "key"])
def test_i11_a_model_in_a_folder_of_a_repository(tmp_path, loopback, tiny, way):
    files = {f"a/b/{p.name}": p.read_bytes() for p in tiny.iterdir()} | {"README.md": b"x"}
    commit = loopback.add("org/name", files)
    source, below = ("hub:org/name/a/b", None) if way == "source" else ("hub:org/name", "a/b")
    t, found, facts = made(tmp_path, source, revision="main", subfolder=below)
    assert t.spec["model"] == {"hub": "org/name", "revision": commit, "folder": "a/b"}
    assert facts["model"]["hub"] == "org/name/a/b"
    _, local, _ = made(tmp_path / "local", tiny)
    assert (found == local).all()
    with pytest.raises(ConfigError, match=r"has no folder a/c; did you mean 'a/b'"):
        plan(tmp_path, "hub:org/name/a/c", revision=commit)


# -- the rest


def test_estimates_read_what_is_here(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", tiny)
    given = config(tmp_path, revision=commit)
    assert shapes.model(given, "m").layers == shapes.LAYERS
    plan(tmp_path, revision=commit)
    assert shapes.model(given, "m").layers == 4


def test_a_hub_cache_in_a_place_that_cannot_be_written(tmp_path, loopback, tiny, monkeypatch):
    from huggingface_hub import constants

    commit = loopback.add("org/name", tiny)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ConfigError, match=r"local hub cache .* cannot be written .*set HF_HOME"):
        plan(tmp_path, revision=commit)


def test_names_decide_as_on_the_hub(tmp_path, loopback, tiny, monkeypatch):
    """transformers picks a tokenizer's class for some models by what the hub calls them."""
    import transformers

    commit, seen = loopback.add("org/name", tiny), []
    load = transformers.AutoTokenizer.from_pretrained

    def spy(**options):
        seen.append(options)
        return load(**options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", spy)
    made(tmp_path, revision=commit)
    [options] = seen
    assert options["config"]._name_or_path == "org/name"
    assert options["mistral_format"] is False and options["trust_remote_code"] is False
