"""A model in a GGUF file gives the numbers of the model that it was written from."""

# ruff: noqa: F401, F811

import base64
import hashlib
import json
import zipfile
from pathlib import Path

import gguf_files as files
import gguf_models as models
import numpy as np
import pytest
import transformers
from configs import edited
from gguf import GGMLQuantizationType as Kind
from hub_server import loopback
from models_tiny import make_config, write_texts
from tokenizers import pre_tokenizers

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, ConfigError, Damaged
from actprobe.cache import plan, store
from actprobe.experiment import costs, shapes
from actprobe.experiment import targets as experiment
from actprobe.files import gguf as headers
from actprobe.models import gguf as stage
from actprobe.models.gguf import artefact
from actprobe.models.gguf.opened import VOCABULARY, open_parts
from actprobe.models.gguf.parts import Part
from actprobe.models.gguf.tokenizer import write as write_tokenizer


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in `model`, the same in `tiny.gguf`, and its activations read from the folder."""
    found = tmp_path_factory.mktemp("gguf")
    models.tiny(found)
    return found


@pytest.fixture(scope="module")
def expected(folder):
    return models.activations(folder / "as a folder", folder / "model")


@pytest.fixture
def tiny(folder, tmp_path):
    """A copy of the file in a folder of its own."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes((folder / "tiny.gguf").read_bytes())
    return path


def test_a_file_gives_the_numbers_of_its_folder(tmp_path, tiny, expected):
    equal(models.activations(tmp_path, tiny), expected)


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.F16, Kind.BF16], ids=str)
def test_quantised_matrices_are_what_the_type_leaves_of_them(tmp_path, folder, kind):
    model = models.load(folder)
    path = files.write(tmp_path / "q.gguf", files.values_of(model), files.tensors_of(model), kind)
    rounded = models.rounded(folder / "model", tmp_path / "rounded", kind)
    equal(models.activations(tmp_path, path), models.activations(tmp_path / "expected", rounded))


def test_bfloat16_rounds_once(tmp_path, folder, tiny):
    found = models.activations(tmp_path, tiny, dtype="bfloat16")
    equal(found, models.activations(tmp_path / "b", folder / "model", dtype="bfloat16"))


def test_a_file_in_pieces(tmp_path, tiny, expected):
    pieces = [str(p) for p in files.cut(tiny, 3)]
    equal(models.activations(tmp_path, pieces), expected)


def test_a_file_that_llama_cpp_has_split(tmp_path, folder, expected):
    model = models.load(folder)
    first, _ = files.split(files.values_of(model), files.tensors_of(model), tmp_path)
    equal(models.activations(tmp_path, first), expected)


def wheel_with(folder, members, name="carrier"):
    """A wheel with these members, and its target."""

    def digest(data):
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    record = f"{name}-1.0.dist-info/RECORD"
    lines = [f"{n},sha256={digest(c)},{len(c)}" for n, c in members.items()] + [f"{record},,"]
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for n, content in members.items():
            z.writestr(n, content)
        z.writestr(record, "\n".join(lines))
    return {"package": name, "version": "1.0", "members": ["*"],
            "sha256": keys.file_sha256(path)}  # fmt: skip


def in_wheels(tmp_path, monkeypatch, source, **wheels):
    """A config whose model lies in wheels, and the targets of these."""
    from actprobe.texts import wheel_targets

    monkeypatch.setenv("ACTPROBE_WHEELS", str(tmp_path))
    config = make_config(tmp_path / "cache", models.entry(source), models.WANTED)
    config = edited(config, ["wheels"], wheels)
    config = edited(config, ["datasets"], [])
    return config, wheel_targets(config)


def made(config, wheels):
    found = models.run(
        config,
        write_texts(config["cache_dir"], texts=["ab 12", "The quick brown fox", "½ né"]),
        wheels=wheels,
    )
    return {
        f"{t.args.site}.{t.args.position}": models.room.load_activations(t.path)
        for t in found
        if t.stage == "activations"
    }


@pytest.mark.parametrize("inside", ["carrier/tiny.gguf", "tiny.gguf"])
def test_a_file_in_a_wheel(tmp_path, monkeypatch, tiny, expected, inside):
    w = wheel_with(tmp_path, {inside: tiny.read_bytes()})
    config, wheels = in_wheels(tmp_path, monkeypatch, f"wheel:w/{inside}", w=w)
    equal(made(config, wheels), expected)


def test_pieces_in_several_wheels(tmp_path, monkeypatch, tiny, expected):
    pieces = [p.read_bytes() for p in files.cut(tiny, 2)]
    ws = {f"w{n}": wheel_with(tmp_path, {"x/part.bin": c}, f"p{n}") for n, c in enumerate(pieces)}
    source = [f"wheel:{n}/x/part.bin" for n in ws]
    config, wheels = in_wheels(tmp_path, monkeypatch, source, **ws)
    equal(made(config, wheels), expected)


def test_a_file_that_a_wheel_does_not_have(tmp_path, monkeypatch, tiny):
    w = wheel_with(tmp_path, {"x/tiny.gguf": tiny.read_bytes()})
    config, wheels = in_wheels(tmp_path, monkeypatch, "wheel:w/x/tyni.gguf", w=w)
    plan_ = plan.make(config, wheels, [t.path for t in wheels])
    for batch in plan_.in_order():
        experiment.run(batch, config, 1)
    with pytest.raises(ConfigError, match=r"has no x/tyni\.gguf; did you mean 'x/tiny\.gguf'"):
        models.targets(config, write_texts(tmp_path / "cache"), wheels=wheels)


def test_a_file_on_the_hub(tmp_path, loopback, tiny, expected):
    commit = loopback.add("org/name", {"q/tiny.gguf": tiny.read_bytes()})
    source = "hub:org/name/q/tiny.gguf"
    equal(models.activations(tmp_path, source, revision=commit, n_layers=4), expected)
    asked = len(loopback.asked)
    equal(models.activations(tmp_path, source, revision=commit, n_layers=4), expected)
    assert len(loopback.asked) == asked, "all that is here is asked for no more"


def test_a_file_that_the_hub_does_not_have(tmp_path, loopback, tiny):
    commit = loopback.add("org/name", {"tiny-Q8.gguf": tiny.read_bytes()})
    with pytest.raises(ConfigError, match=r"hub:org/name at .* has no tiny-Q4\.gguf; did you mean"):
        models.activations(tmp_path, "hub:org/name/tiny-Q4.gguf", revision=commit, n_layers=4)


# -- keys, the artefact


def keys_of(tmp_path, source, **changes):
    config = make_config(tmp_path / "cache", models.entry(source, **changes), models.WANTED)
    found = models.targets(config, write_texts(tmp_path / "cache"))
    return [t for t in found if t.stage == "weights"], [t for t in found if t.stage != "weights"]


def test_the_file_decides_the_key_and_not_its_place(tmp_path, tiny):
    other = tmp_path / "elsewhere" / "other name.gguf"
    other.parent.mkdir()
    other.write_bytes(tiny.read_bytes())
    (a,), acts = keys_of(tmp_path, tiny)
    (b,), more = keys_of(tmp_path, other)
    assert a.key == b.key and [t.key for t in acts] == [t.key for t in more]
    (c,), changed = keys_of(tmp_path, tiny, dtype="bfloat16")
    assert a.key != c.key and acts[0].key != changed[0].key
    files.number_at(tiny, "llama.context_length", 255)
    (d,), changed = keys_of(tmp_path, tiny)
    assert a.key != d.key and acts[0].key != changed[0].key


def test_a_file_that_changed_after_the_plan(tmp_path, tiny):
    config = make_config(tmp_path / "cache", models.entry(tiny), models.WANTED)
    found = models.targets(config, write_texts(tmp_path / "cache"))
    made_ = plan.make(config, found, [t.path for t in found])
    files.number_at(tiny, "llama.context_length", 255)
    with pytest.raises(ActprobeError, match=r"models\.m\.source: .*tiny\.gguf.*changed"):
        experiment.run(made_.in_order()[0], config, 1)
    assert not list((tmp_path / "cache" / "weights").glob("*.safetensors"))


def test_the_artefact_is_sealed_and_opens_as_safetensors(tmp_path, tiny):
    from safetensors import safe_open

    models.activations(tmp_path, tiny)
    (path,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    header = store.verify(path)
    assert header["facts"]["tensors"] == {"F32": 38} and header["bad"] is None
    with safe_open(path, "np") as f:
        assert f.get_tensor("model.embed_tokens.weight").shape == (300, 32)
        assert json.loads(bytes(f.get_tensor("file/config.json")))["model_type"] == "llama"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        store.verify(path)


def test_two_models_of_one_file_share_its_weights(tmp_path, tiny):
    config = make_config(
        tmp_path / "cache", models.entry(tiny), models.WANTED, {**models.WANTED, "model": "n"}
    )
    config = edited(config, ["models", "n"], models.entry(tiny, max_length=5))
    found = models.targets(config, write_texts(tmp_path / "cache"))
    assert len([t for t in found if t.stage == "weights"]) == 1


def test_layers_and_widths_are_known_while_planning(tmp_path, tiny):
    (w,), acts = keys_of(tmp_path, tiny)
    assert {t.args.site for t in acts} == {"embed", "resid_post.0", "resid_post.3"}
    config = make_config(tmp_path, models.entry(tiny))
    found = shapes.model(config, "m")
    assert (found.layers, found.d, found.mlp, found.file_bytes) == (4, 32, 48, 4)
    assert w.args.bytes == tiny.stat().st_size


def test_what_a_job_asks_for(tmp_path, tiny):
    config = make_config(tmp_path / "cache", models.entry(tiny), models.WANTED)
    config = edited(config, ["max_memory"], 1 << 30)
    found = models.targets(config, write_texts(tmp_path / "cache"))
    made_ = plan.make(config, found, [t.path for t in found])
    cost = costs.Estimator(made_).cost(made_.in_order()[0])
    assert 500 < cost.mem_mb < 1500 and 100_000 < cost.disk_bytes < 400_000


# -- the tokenizer


def tokenizer_of(tmp_path, folder, **changes):
    path = files.write(tmp_path / "t.gguf", files.values_of(models.load(folder), **changes),
                       files.tensors_of(models.load(folder)))  # fmt: skip
    opened = open_parts([Part({"file": str(path)})], VOCABULARY)
    write_tokenizer(opened.header, "t.gguf", tmp_path / "tokenizer")
    return transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


def pieces(tokenizer, text):
    return [p for p, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("pre", "cuts"),
    [
        ("smollm", ["it", "'s", "Ġ", "1", "2", "3", "4", "ĊĠĠ", "Ġx"]),
        ("gpt-2", ["it", "'s", "Ġ1234", "ĊĠĠ", "Ġx"]),
        ("llama-bpe", ["it", "'s", "Ġ", "123", "4", "Ċ", "ĠĠ", "Ġx"]),
        ("qwen2", ["it", "'s", "Ġ", "1", "2", "3", "4", "Ċ", "ĠĠ", "Ġx"]),
        ("deepseek-v3", ["it", "'s", "Ġ", "123", "4", "Ċ", "ĠĠ", "Ġx"]),
        ("tekken", ["it", "'s", "Ġ", "1", "2", "3", "4", "Ċ", "ĠĠ", "Ġx"]),
    ],
)
def test_the_pre_tokenizer_that_the_file_names(tmp_path, folder, pre, cuts):
    tokenizer = tokenizer_of(tmp_path, folder, **{"tokenizer.ggml.pre": pre})
    assert pieces(tokenizer, "it's 1234\n   x") == cuts


def test_smollm_cuts_what_transformers_builder_does_not():
    """`½` is a number (\\p{N}) and no decimal digit; both are cut off."""
    from tokenizers import Regex

    from actprobe.models.gguf.pre_tokenizers import PRE

    split = [pre_tokenizers.Split(Regex(p), "isolated") for p in PRE["smollm"].patterns]
    cut = pre_tokenizers.Sequence(split).pre_tokenize_str("a½2")
    assert [p for p, _ in cut] == ["a", "½", "2"]


@pytest.mark.parametrize(("adds", "begins"), [(True, True), (False, False), (None, False)])
def test_a_bos_where_the_file_says_so(tmp_path, folder, adds, begins):
    tokenizer = tokenizer_of(tmp_path, folder, **{"tokenizer.ggml.add_bos_token": adds})
    ids = tokenizer("ab")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == begins
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<s>",
        "</s>",
        "<pad>",
    )


def test_special_tokens_are_found_whole_in_a_text(tmp_path, folder):
    tokenizer = tokenizer_of(tmp_path, folder)
    assert tokenizer("a</s>b", add_special_tokens=False)["input_ids"].count(1) == 1
    assert (
        tokenizer.decode(tokenizer("né ½ 漢")["input_ids"], skip_special_tokens=True) == "né ½ 漢"
    )


def test_the_chat_template_of_the_file(tmp_path, folder):
    values = files.values_of(models.load(folder), **{"tokenizer.chat_template": files.TEMPLATE})
    path = files.write(tmp_path / "t.gguf", values, files.tensors_of(models.load(folder)))
    found = models.activations(tmp_path, path, chat={})
    template = transformers.AutoTokenizer.from_pretrained(folder / "model")
    template.chat_template = files.TEMPLATE
    copy = tmp_path / "copy"
    transformers.AutoModel.from_pretrained(folder / "model").save_pretrained(copy)
    template.save_pretrained(copy)
    equal(found, models.activations(tmp_path / "b", copy, chat={}))


def test_a_chat_without_a_template_is_refused_in_the_plan(tmp_path, tiny):
    with pytest.raises(
        ConfigError, match=r"models\.m\.chat: .*its GGUF file has no tokenizer\.chat"
    ):
        keys_of(tmp_path, tiny, chat={})


def test_a_sentencepiece_vocabulary(tmp_path, folder):
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        "▁",
        "a",
        "b",
        "ab",
        "▁ab",
    ]
    words += [f"x{n}" for n in range(300 - len(words))]
    tokenizer = tokenizer_of(tmp_path, folder, **{
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": None,
        "tokenizer.ggml.scores": [-float(i) for i in range(300)],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 41],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": None,
    })  # fmt: skip
    ids = tokenizer("ab é")["input_ids"]
    assert [words[i] for i in ids] == ["<s>", "▁ab", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab é"


def test_headers_are_read_without_the_vocabulary(tiny):
    with open(tiny, "rb") as f:
        found = headers.read_header(f, tiny.stat().st_size, "tiny.gguf")
    assert (
        found.count("tokenizer.ggml.tokens") == 259 and found.get("tokenizer.ggml.tokens") is None
    )
    assert found.tensors["blk.0.ffn_up.weight"].shape == (48, 32)
    assert artefact.size([(2, 3), (4,)], "bfloat16") == 20


def test_golden(tmp_path):
    """Changed output needs a new stage version, or old files would pass for new ones."""
    from types import SimpleNamespace

    from safetensors.numpy import load_file

    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64,
             "max_position_embeddings": 64, "num_attention_heads": 2,
             "num_key_value_heads": 1}  # fmt: skip
    shapes_ = {
        "token_embd.weight": (259, 32), "output_norm.weight": (32,), "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,), "blk.0.attn_q.weight": (32, 32), "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32), "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_gate.weight": (64, 32), "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
    }  # fmt: skip
    tensors = {
        n: ((np.arange(np.prod(s)) * 37 % 101).reshape(s) / 64 - 0.75).astype(np.float32)
        for n, s in shapes_.items()
    }
    values = files.values_of(SimpleNamespace(config=SimpleNamespace(**sizes)))
    path = files.write(tmp_path / "g.gguf", values, tensors, Kind.Q8_0)
    models.activations(
        tmp_path, path, n_layers=1, wanted={"sites": ["embed"], "positions": ["last"]}
    )
    (made_,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    found = load_file(made_)
    digest = hashlib.sha256()
    for name in sorted(n for n in found if "/" not in n and n != "header"):
        digest.update(name.encode() + found[name].tobytes())
    (tmp_path / "small").mkdir()
    artefact.unpack(str(made_), tmp_path / "small")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    got = {
        "version": stage.VERSION,
        "parameters": digest.hexdigest(),
        "ids": tokenizer("it's 12\n½")["input_ids"],
        "config": {k: config[k] for k in ("model_type", "head_dim", "rope_parameters", *sizes)},
    }
    golden = json.loads((Path(__file__).parents[1] / "golden" / "weights.json").read_text())
    assert got == golden, (
        f"the output changed: raise VERSION in models/gguf/targets.py; golden: {json.dumps(got)}"
    )
