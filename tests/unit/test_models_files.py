"""Which files identify a local model, what a loader is shown, and what is refused by name.

Rows A6, B2, B3, B4, and the GGUF and `Org/Name` messages of H, of the fault file.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from models_tiny import make_config, model_entry, run, save_model, targets, write_texts

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import plan, store
from actprobe.models import files, located, sources, view
from actprobe.models.run import run as run_batch

WANTED = {"sites": ["resid_post.0"], "positions": ["last"]}


@pytest.fixture
def folder(tmp_path):
    """A local model folder as the planner sees it; the weights are never opened."""
    path = tmp_path / "model"
    path.mkdir()
    described = {"model_type": "llama", "num_hidden_layers": 6, "hidden_size": 32}
    write(path, "config.json", described)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def key(tmp_path, folder, **changes):
    config = make_config(tmp_path, model_entry(folder, **changes), WANTED)
    return targets(config, write_texts(tmp_path))[0].key


def shown(folder):
    """Names that a loader sees, weights included."""
    with located.located({"folder": str(folder)}, "m") as found:
        found.show_weights(view.everything)
        return sorted(
            p.relative_to(found.folder).as_posix() for p in found.folder.rglob("*") if p.is_file()
        )


# -- what belongs to the model


@pytest.mark.parametrize(
    "name",
    [
        "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
        "tokenizer.model", "spiece.model", "tekken.json", "my_words.tiktoken", "generation_config.json",
        "modeling_own.py", "configuration_own.py", "preprocessor_config.json", "unheard.of",
        "tokenizer.4.0.0.json", "CONFIG_OF_MINE.JSON",
    ],
)  # fmt: skip
def test_b4_every_file_that_a_loader_could_read_identifies_the_model(tmp_path, folder, name):
    found = [key(tmp_path, folder)]
    for content in ("1", "2"):
        write(folder, name, content)
        found.append(key(tmp_path, folder))
    assert len(set(found)) == 3
    assert name in shown(folder)


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "Readme.MD", "LICENSE", "license.txt", "USE_POLICY.md", "figure.png",
        ".gitattributes", ".DS_Store", "optimizer.pt", "scheduler.pt", "rng_state_0.pth",
        "trainer_state.json", "training_args.bin", "events.out.tfevents.123", "train.log",
        "model.onnx", "tf_model.h5", "flax_model.msgpack", "model.gguf", "checkpoint-5/config.json",
        "original/consolidated.00.pth", ".git/HEAD", "runs/a/b.json",
    ],
)  # fmt: skip
def test_b4_harmless_files_are_not_shown_and_change_nothing(tmp_path, folder, name):
    before = key(tmp_path, folder)
    write(folder, name, "x")
    assert key(tmp_path, folder) == before
    assert name not in shown(folder)


def test_b2_what_an_index_names_in_a_subfolder_is_digested(tmp_path, folder):
    (folder / "model.safetensors").unlink()
    shards = [f"weights/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    write(folder, "model.safetensors.index.json", index)
    write(folder, shards[0], "one")
    with pytest.raises(
        ConfigError, match=rf"index\.json names {shards[1]}, which is not there \(1 of"
    ):
        key(tmp_path, folder)
    write(folder, shards[1], "two")
    found = {key(tmp_path, folder)}
    write(folder, shards[1], "twotwo")
    found.add(key(tmp_path, folder))
    index["weight_map"]["c"] = shards[0]
    write(folder, "model.safetensors.index.json", index)
    found.add(key(tmp_path, folder))
    assert len(found) == 3
    assert set(shards) < set(shown(folder))


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", 3])
def test_b2_an_index_that_leaves_the_folder_is_refused(tmp_path, folder, shard):
    (folder / "model.safetensors").unlink()
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": shard}})
    with pytest.raises(ConfigError, match="names a file outside of the folder"):
        key(tmp_path, folder)


def test_b3_the_weights_that_are_loaded_are_what_is_digested(tmp_path, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    write(folder, "value_head.safetensors", "unrelated")
    before = key(tmp_path, folder)
    write(folder, "value_head.safetensors", "another")
    assert key(tmp_path, folder) == before
    write(folder, "pytorch_model.bin", "changed")
    assert key(tmp_path, folder) != before
    assert "value_head.safetensors" not in shown(folder)


@pytest.mark.parametrize(
    ("there", "read"),
    [
        (["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"],
         "model.safetensors"),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], "pytorch_model.bin"),
        (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["own.safetensors", "model.safetensors"], "own.safetensors"),
    ],
)  # fmt: skip
def test_b3_one_of_several_weights_is_shown(tmp_path, folder, there, read):
    (folder / "model.safetensors").unlink()
    for name in there:
        write(folder, name, {"weight_map": {"a": "shard.bin"}} if "index" in name else name)
    if "own" in read:  # as transformers writes it
        config = json.loads((folder / "config.json").read_text())
        write(folder, "config.json", {**config, "transformers_weights": read})
    found = sources.local_files(folder, None, "m")
    assert found.main == read
    assert [n for n in shown(folder) if n.endswith((".bin", ".safetensors", ".index.json"))] == [
        read
    ]


def test_b4_what_a_config_refers_to_by_path_belongs_to_the_model(tmp_path, folder):
    config = json.loads((folder / "config.json").read_text())
    write(folder, "parts/words/list.txt", "1")
    write(folder, "one/file.bpe", "1")
    before = key(tmp_path, folder)
    write(folder, "config.json", {**config, "lists": ["./parts/words/"], "bpe": "one/file.bpe"})
    found = {before, key(tmp_path, folder)}
    write(folder, "parts/words/list.txt", "2")
    found.add(key(tmp_path, folder))
    write(folder, "one/file.bpe", "2")
    found.add(key(tmp_path, folder))
    assert len(found) == 4
    assert {"parts/words/list.txt", "one/file.bpe"} < set(shown(folder))


def test_words_for_what_changed_name_the_group(tmp_path, folder):
    write(folder, "modeling_own.py", "1")
    write(folder, "generation_config.json", "{}")
    config = make_config(tmp_path, model_entry(folder), WANTED)
    spec = targets(config, write_texts(tmp_path))[0].spec["model"]
    assert set(spec) == {"weights", "config", "tokenizer", "code", "other"}


def test_c8_a_link_that_leads_nowhere_is_named(tmp_path, folder):
    (folder / "vocab.json").symlink_to("nowhere.json")
    with pytest.raises(
        ConfigError, match=r"vocab\.json points to .*nowhere\.json, which is not there"
    ):
        key(tmp_path, folder)
    (folder / "vocab.json").unlink()
    (folder / "README.md").symlink_to("nowhere.md")
    assert key(tmp_path, folder)


def test_a_folder_by_another_name_is_the_same_model(tmp_path, folder):
    (tmp_path / "link").symlink_to(folder)
    assert key(tmp_path, tmp_path / "link") == key(tmp_path, folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
def test_a_config_that_is_no_json_object_is_named(tmp_path, folder, name, content):
    write(folder, name, content)
    if (name, content) == ("tokenizer_config.json", "[1]"):
        return  # transformers says so itself
    with pytest.raises(
        ConfigError, match=rf"models\.m\.source: .*{name} (cannot be read as|holds no)"
    ):
        key(tmp_path, folder)


# -- subfolders


def test_i11_a_model_in_a_subfolder(tmp_path, folder):
    (tmp_path / "outer").mkdir()
    folder.rename(tmp_path / "outer" / "inner")
    with pytest.raises(
        ConfigError, match=r"config\.json is not there\), but in inner: write subfolder"
    ):
        key(tmp_path, tmp_path / "outer")
    assert key(tmp_path, tmp_path / "outer", subfolder="inner") == key(
        tmp_path, tmp_path / "outer" / "inner"
    )


# -- adapters


def adapter(folder):
    write(
        folder, "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    )
    write(folder, "adapter_model.safetensors", "lora")


def test_a6_an_adapter_beside_the_weights_is_refused_or_ignored(tmp_path, folder):
    before = key(tmp_path, folder)
    adapter(folder)
    with pytest.raises(
        ConfigError, match=r"models\.m: .*holds an adapter .*models\.m\.adapter: ignore"
    ):
        key(tmp_path, folder)
    assert key(tmp_path, folder, adapter="ignore") == before
    write(folder, "adapter_model.safetensors", "other")
    assert key(tmp_path, folder, adapter="ignore") == before
    with located.located({"folder": str(folder), "adapter": "ignore"}, "m") as found:
        assert not list(found.folder.glob("adapter*"))


def test_a6_an_adapter_is_not_applied_whatever_is_installed(tmp_path, monkeypatch):
    """transformers looks for one where it finds peft."""
    import transformers.integrations.peft as peft
    import transformers.models.auto.auto_factory as factory

    def digest(folder, name, **changes):
        config = make_config(tmp_path / name, model_entry(folder, **changes), WANTED)
        [t] = run(config, write_texts(tmp_path / name))
        with store.open_h5(t.path) as f:
            return keys.hashlib.sha256(f["x"][:].tobytes()).hexdigest()

    folder = save_model("llama", tmp_path / "m")
    alone = digest(folder, "a")
    adapter(folder)
    looked = []
    monkeypatch.setattr(factory, "is_peft_available", lambda: True)
    find = peft.find_adapter_config_file
    monkeypatch.setattr(
        factory, "find_adapter_config_file", lambda *a, **k: looked.append(find(*a, **k))
    )
    assert digest(folder, "b", adapter="ignore") == alone
    assert looked == [None]


# -- refusals that say what to write


def test_h_an_adapter_alone_is_no_model(tmp_path, folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    adapter(folder)
    with pytest.raises(
        ConfigError, match=r"holds a LoRA adapter alone: merge it .* or list it under"
    ):
        key(tmp_path, folder)


@pytest.mark.parametrize("way", ["folder", "with config"])
def test_h_a_folder_with_gguf_says_what_to_write(tmp_path, folder, way):
    (folder / "model.safetensors").unlink()
    write(folder, "model-Q4.gguf", "GGUF")
    if way == "folder":
        (folder / "config.json").unlink()
    with pytest.raises(
        ConfigError, match=r"holds model-Q4\.gguf, .*: write source: FOLDER/FILE\.gguf"
    ):
        key(tmp_path, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.fp16.safetensors", r"a variant of the weights: rename it"),
        ("model-00001-of-00002.safetensors", r"fetch model\.safetensors\.index\.json as well"),
        ("pytorch_model-00001-of-00002.bin", r"fetch pytorch_model\.bin\.index\.json as well"),
        ("consolidated.00.pth", r"the form of its maker's own code"),
        ("tf_model.h5", r"for TensorFlow"),
        ("flax_model.msgpack", r"for Flax"),
    ],
)
def test_other_weights_say_what_to_do(tmp_path, folder, name, message):
    (folder / "model.safetensors").unlink()
    write(folder, name, "x")
    with pytest.raises(
        ConfigError, match=rf"has no weights \(model\.safe.*holds {name}, .*{message}"
    ):
        key(tmp_path, folder)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Qwen/Qwen2.5-0.5B", r"for the hub write source: hub:Qwen/Qwen2\.5-0\.5B$"),
        (
            "https://huggingface.co/Org/Name/tree/v1",
            r"write source: hub:Org/Name and revision: v1$",
        ),
        ("hf://Org/Name", r"write source: hub:Org/Name$"),
        ("Hub:Org/Name", r"write source: hub:Org/Name$"),
        ("/nowhere/at/all", r"expected hub:ORG/NAME, wheel:NAME/FOLDER or a local folder$"),
        ("hub:https://huggingface.co/Org/Name", r"write source: hub:Org/Name$"),
    ],
)
def test_h_a_source_that_is_not_there_says_what_to_write(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^models\.m\.source: .*{words}"):
        key(tmp_path, source)


def test_h_a_file_instead_of_its_folder(tmp_path, folder):
    with pytest.raises(ConfigError, match=rf"is a file; write its folder, {folder}$"):
        key(tmp_path, folder / "model.safetensors")


# -- what a job reads


@pytest.mark.parametrize("name", ["model.safetensors", "modeling_own.py", "generation_config.json"])
def test_b5_a_job_compares_every_file_with_the_plan(tmp_path, name):
    save_model("llama", tmp_path / "model")
    write(tmp_path / "model", "modeling_own.py", "1") if name.endswith("py") else None
    config = make_config(tmp_path, model_entry(tmp_path / "model"), WANTED)
    [t] = targets(config, write_texts(tmp_path))
    planned = ("m", t.spec.model, t.args.place)
    sources.require_unchanged(config, *planned)
    path = tmp_path / "model" / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    with pytest.raises(ActprobeError, match=r"models\.m: .*was changed after the plan"):
        sources.require_unchanged(config, *planned)


def test_b5_a_tokenizer_that_changes_is_found_where_no_weights_are_loaded(tmp_path):
    """Rows whose tokens are equal are copied from an older file."""
    folder, texts = save_model("llama", tmp_path / "model"), write_texts(tmp_path)
    run(make_config(tmp_path, model_entry(folder, max_length=200), WANTED), texts)
    config = make_config(tmp_path, model_entry(folder, max_length=201), WANTED)
    planned = plan.make(config, found := targets(config, texts), [t.path for t in found])
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ActprobeError, match=r"models\.m: .*was changed after the plan"):
        run_batch(planned.batches[0], config, 1)
    assert not Path(found[0].path).exists()


def test_a_file_that_changes_while_it_is_loaded_is_named(tmp_path, folder):
    with located.located({"folder": str(folder)}, "m") as found:
        found.show_weights(view.everything)
        found.require_unchanged()
        (folder / "model.safetensors").write_bytes(b"others")
        with pytest.raises(
            ActprobeError, match=r"model\.safetensors was changed while it was read"
        ):
            found.require_unchanged()


def test_i1_a_truncated_weights_file_is_named(tmp_path):
    path = save_model("llama", tmp_path / "model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    config = make_config(tmp_path, model_entry(tmp_path / "model"), WANTED)
    with pytest.raises(ActprobeError, match=rf"models\.m cannot be loaded: {path}: .*deserializ"):
        run(config, write_texts(tmp_path))


def test_pickled_weights_run_nothing(tmp_path):
    """`pytorch_model.bin` is read with weights_only."""
    folder = save_model("llama", tmp_path / "model")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"norm.weight": Evil()}, folder / "pytorch_model.bin")
    config = make_config(tmp_path, model_entry(folder), WANTED)
    with pytest.raises(ActprobeError, match=r"pytorch_model\.bin is damaged, or holds more than"):
        run(config, write_texts(tmp_path))
    assert not (tmp_path / "ran").exists()


# -- fewer weights


def shard(folder, **options):
    """Save a model again in many small files."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder)
    for old in folder.glob("model*.safetensors"):
        old.unlink()
    model.save_pretrained(folder, max_shard_size="20KB", **options)
    assert (folder / "model.safetensors.index.json").exists()


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "neox", "opt", "bert", "gemma2", "phi", "mixtral"]
)
def test_i9_the_first_layers_need_a_part_of_the_weights(tmp_path, family):
    from models_tiny import tiny_run

    wanted = {"sites": ["resid_post.0", "embed"], "positions": ["last", "mean"]}
    whole = tiny_run(tmp_path / "a", family=family, wanted=wanted)
    folder = save_model(family, tmp_path / "b" / "model")
    shard(folder)
    before = {p.name for p in folder.glob("*.safetensors")}
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    keep = view.first_layers(index, 1)
    needed = {index[p] for p in index if keep(p)}
    assert len(needed) < len(before)
    for name in before - needed:  # never opened
        (folder / name).write_bytes(b"")
    part = tiny_run(tmp_path / "b", family=family, wanted=wanted)
    for name, t in whole.items():
        with store.open_h5(t.path) as f, store.open_h5(part[name].path) as g:
            assert (f["x"][:] == g["x"][:]).all()


def test_i9_pickled_weights_in_parts(tmp_path):
    from models_tiny import tiny_run
    from safetensors.torch import load_file

    whole = tiny_run(tmp_path / "a")["resid_post.1.last"]
    folder = save_model("llama", tmp_path / "b" / "model")
    shard(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    (folder / "model.safetensors.index.json").unlink()
    for path in list(folder.glob("*.safetensors")):
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    weight_map = {p: Path(s).stem + ".bin" for p, s in index["weight_map"].items()}
    write(folder, "pytorch_model.bin.index.json", {"weight_map": weight_map})
    keep = view.first_layers(weight_map, 2)
    for name in set(weight_map.values()) - {weight_map[p] for p in weight_map if keep(p)}:
        (folder / name).write_bytes(b"")
    part = tiny_run(tmp_path / "b")["resid_post.1.last"]
    with store.open_h5(whole.path) as f, store.open_h5(part.path) as g:
        assert (f["x"][:] == g["x"][:]).all()


def test_a_pointer_that_git_left_for_a_large_file_is_named(tmp_path, folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    write(folder, "model.safetensors", pointer)
    with pytest.raises(ConfigError, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull"):
        key(tmp_path, folder)


def test_i9_a_tied_head_stands_for_the_embedding():
    keep = view.first_layers(["lm_head.weight", "model.layers.0.a", "model.layers.1.a"], 1)
    assert keep("lm_head.weight") and keep("model.layers.0.a") and not keep("model.layers.1.a")
    names = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]
    keep = view.first_layers(names, 1)
    assert [n for n in names if keep(n)] == ["model.embed_tokens.weight"]


def test_names_are_matched_in_any_case():
    assert files.matches("ReadMe.TXT", files.HARMLESS)
    assert not files.matches("vocab.txt", files.HARMLESS)
