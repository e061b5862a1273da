"""How rows begin: one rule for the BOS, and the first position of causal models.

What HookedTransformer of TransformerLens 3.9 reads is written down here, and asked of the Python
that ACTPROBE_SAE_LENS names (envs/sae-lens.txt), where there is one.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sae_tiny
import torch
import transformers
from models_tiny import by_name, make_config, model_entry, run, save_model, tiny_run, write_texts
from tokenizers import pre_tokenizers

from actprobe import models
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.models import bos
from actprobe.models.reading import reading

PYTHON = os.environ.get("ACTPROBE_SAE_LENS") or (
    sys.executable if importlib.util.find_spec("transformer_lens") else None
)
TEXTS = ["hi there", "b", "To be, or not to be"]
BOS, HI = 256, [71, 72, 220, 83, 71, 68, 81, 68]  # <|endoftext|>, "hi there"
# Token ids of "hi there": by default, with prepend_bos true and false, and those of the tokenizer
# that HookedTransformer holds, which sae-probes calls directly.
TRANSFORMER_LENS = {
    "gpt2": {"default": [BOS, *HI], "true": [BOS, *HI], "false": HI, "tokenizer": [BOS, *HI]},
    "gpt_neox": {"default": HI, "true": [BOS, *HI], "false": HI, "tokenizer": [BOS, *HI]},
    "qwen2": {"default": HI, "false": HI, "tokenizer": HI},  # with true: its EOS, it has no BOS
}
_FIELDS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
           "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.3,
           "vocab_size": 257}  # fmt: skip
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64,
         "vocab_size": 257, "initializer_range": 0.3}  # fmt: skip
MODELS = {
    "gpt2": ("GPT2LMHeadModel", transformers.GPT2Config, _GPT2, "GPT2Tokenizer"),
    "gpt_neox": ("GPTNeoXForCausalLM", transformers.GPTNeoXConfig, _FIELDS, "GPTNeoXTokenizer"),
    "qwen2": (
        "Qwen2ForCausalLM",
        transformers.Qwen2Config,
        _FIELDS | {"num_key_value_heads": 2},
        "Qwen2Tokenizer",
    ),
}


def save_as_published(name: str, folder: Path) -> Path:
    """A tiny random model with the tokenizer class of its family: a BOS that it does not add."""
    architecture, config, fields, tokenizer = MODELS[name]
    torch.manual_seed(0)
    made = config(architectures=[architecture], **fields)
    transformers.AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    vocab = {t: i for i, t in enumerate(alphabet)}
    getattr(transformers, tokenizer)(vocab=vocab, merges=[]).save_pretrained(folder)
    return folder


def reading_of(folder, **changes):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    return reading(tokenizer, config, "m", model_entry(folder, **changes))


def ids_of(folder, texts, **changes):
    names = [f"row{i}" for i in range(len(texts))]
    tokens = reading_of(folder, **changes).encode(texts, names)
    return [tokens.ids[tokens.row(i)].tolist() for i in range(len(texts))]


@pytest.fixture(scope="module", params=MODELS)
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return request.param, save_as_published(request.param, folder)


def test_a15_a_bos_as_hooked_transformer_puts_it(published):
    name, folder = published
    expected = TRANSFORMER_LENS[name]
    assert ids_of(folder, ["hi there"]) == [expected["default"]]
    assert ids_of(folder, ["hi there"], prepend_bos=False) == [expected["false"]]
    assert ids_of(folder, ["hi there"], add_special_tokens=False) == [HI]
    if name != "qwen2":
        assert ids_of(folder, ["hi there"], prepend_bos=True) == [expected["true"]]
        bare = {"prepend_bos": True, "add_special_tokens": False}
        assert ids_of(folder, ["hi there"], **bare) == [[BOS, *HI]]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    if PYTHON is None:
        pytest.skip("transformer-lens: ACTPROBE_SAE_LENS names no Python that has it")
    root = tmp_path_factory.mktemp("oracle")
    for name in MODELS:
        save_as_published(name, root / name / "model")
    (root / "texts.json").write_text(json.dumps(TEXTS))
    p = sae_tiny.parameters(d=32)
    sae_tiny.save_saelens(root / "sae", p | {"b_enc": p["b_enc"] * 0})
    script = Path(__file__).with_name("transformer_lens_oracle.py")
    run = [str(PYTHON), str(script), str(root)]
    out = subprocess.run(run, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", MODELS)
def test_a15_what_is_written_down_is_what_transformer_lens_does(oracle, name):
    found = json.loads((oracle / name / "read.json").read_text())
    assert {how: rows[0] for how, rows in found.items() if how in TRANSFORMER_LENS[name]} == (
        TRANSFORMER_LENS[name]
    )
    assert ids_of(oracle / name / "model", TEXTS) == found["default"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", [0, 1], ids=["by default", "with a BOS"])
def test_a15_equal_codes(oracle, name, how, tmp_path):
    """Activations of ours, encoded here, against HookedTransformer and SAE.encode."""
    if name == "qwen2" and how:
        pytest.skip("Qwen has no BOS")
    entry = model_entry(oracle / name / "model", prepend_bos=True if how else "auto")
    wanted = {"sites": ["resid_post.1"], "positions": ["last"]}
    [t] = run(make_config(tmp_path, entry, wanted), write_texts(tmp_path, texts=TEXTS))
    found = sae_tiny.codes(
        tmp_path,
        oracle / "sae",
        models.load_activations(t.path),
        overrides={"ignore_mismatch": True},
    )
    expected = np.load(oracle / name / "codes.npy")[how]
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a15_where_the_tokenizer_adds_a_bos(tmp_path):
    """Llama's, Gemma's, Mistral's: it stays, and prepend_bos: false takes it away."""
    folder = save_model("llama", tmp_path / "model")
    for wanted in ("auto", True):
        assert [r[0] for r in ids_of(folder, ["ab", "c"], prepend_bos=wanted)] == [0, 0]
    assert ids_of(folder, ["ab"], prepend_bos=False) == [ids_of(folder, ["ab"])[0][1:]]
    encoder = save_model("roberta", tmp_path / "encoder")  # <s> … </s>, of which <s> is the BOS
    assert ids_of(encoder, ["ab"], prepend_bos=False)[0][-1] == 1


def test_a15_a_tokenizer_without_a_bos_cannot_put_one(tmp_path):
    folder = save_as_published("qwen2", tmp_path / "model")
    with pytest.raises(ConfigError, match=r"models.m.prepend_bos: true, but its tokenizer has no"):
        reading_of(folder, prepend_bos=True)


def test_a15_the_header_tells_how_rows_begin(tmp_path):
    folder = save_as_published("gpt_neox", tmp_path / "model")
    wanted = {"sites": ["resid_post.1"], "positions": ["last"]}
    for setting, n in (("auto", 0), (True, 3)):
        config = make_config(tmp_path, model_entry(folder, prepend_bos=setting), wanted)
        [t] = run(config, write_texts(tmp_path, texts=TEXTS))
        facts = store.read_header(t.path)["facts"]
        assert (facts["prepend_bos"], facts["n_bos"], facts["n_rows"]) == (n > 0, n, 3)
        assert models.rows_begin_with_bos(facts) is (n > 0)
    assert models.rows_begin_with_bos({**facts, "n_bos": 1}) is None
    assert models.rows_begin_with_bos({}) is None


def test_a15_what_the_plan_knows_of_it():
    gpt2, llama = {"model_type": "gpt2"}, {"model_type": "llama"}
    for changes, config, expected in (
        ({}, gpt2, True), ({}, llama, None), ({}, None, None), ({"prepend_bos": False}, gpt2, False),
        ({"prepend_bos": True}, llama, True), ({"chat": {}}, gpt2, False),
        ({"add_special_tokens": False}, gpt2, False),
    ):  # fmt: skip
        assert models.planned_bos(model_entry("folder", **changes), config) is expected


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_a16_a_bos_that_the_text_brings_is_special(name, tmp_path):
    """The same tokens in mean and tokens as without it; GPT-2 gets no second one."""
    folder = save_as_published(name, tmp_path / "model")
    wanted = {"sites": ["resid_post.1"], "positions": ["mean", "tokens", "last"]}
    found = {}
    for kind, texts in {"bare": TEXTS, "typed": [f"<|endoftext|>{t}" for t in TEXTS]}.items():
        entry = model_entry(folder, prepend_bos=True)
        made = by_name(
            run(make_config(tmp_path, entry, wanted), write_texts(tmp_path, kind, texts))
        )
        assert store.read_header(made["resid_post.1.mean"].path)["facts"]["n_special_in_text"] == 0
        found[kind] = {k: models.load_activations(t.path) for k, t in made.items()}
    for position, x in found["bare"].items():
        assert np.array_equal(x, found["typed"][position]), position


def test_a16_two_of_them_are_refused(tmp_path):
    folder = save_as_published("gpt2", tmp_path / "model")
    with pytest.raises(
        BadInput, match=r"row 'row0' begins with '<\|endoftext\|>' twice.*prepend_b"
    ):
        ids_of(folder, ["<|endoftext|><|endoftext|>a"])


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cut_text_keeps_its_bos(side, tmp_path):
    folder = save_as_published("gpt2", tmp_path / "model")
    texts = ["abcdef", "<|endoftext|>abcdef"]
    rows = ids_of(folder, texts, max_length=4, truncation_side=side)
    assert rows == [[BOS, *([64, 65, 66] if side == "right" else [67, 68, 69])]] * 2


def stored(
    folder, cache, texts, positions=("mean", "max", "tokens"), site="resid_post.1", **changes
):
    wanted = {"sites": [site], "positions": list(positions)}
    config = make_config(cache, model_entry(folder, **changes), wanted)
    found = by_name(run(config, write_texts(cache, texts=texts)))
    x = {p: models.load_activations(found[f"{site}.{p}"].path) for p in positions}
    return x, store.read_header(found[f"{site}.{positions[0]}"].path)["facts"]


def test_a14_the_first_position_is_left_out(tmp_path):
    """With a BOS (GPT-2) that is the BOS; without one (Qwen) it is the first token of the text."""
    for name, content in (("gpt2", [3, 2]), ("qwen2", [2, 1])):
        folder, cache = save_as_published(name, tmp_path / name / "model"), tmp_path / name
        kept = {"exclude_first": False, "exclude_special": False}
        all_tokens, facts = stored(folder, cache, ["abc", "de"], ["tokens"], **kept)
        assert facts["first_position"] == "kept"
        x, facts = stored(folder, cache, ["abc", "de"])
        assert facts["first_position"] == "left out" and facts["causal"] is True
        ends = np.cumsum([c + 1 for c in content])
        rows = [r[1:] for r in np.split(all_tokens["tokens"], ends[:-1])]
        assert [len(r) for r in rows] == content
        assert np.array_equal(x["tokens"], np.concatenate(rows))
        np.testing.assert_allclose(x["mean"], [r.mean(0) for r in rows], atol=1e-6)
        assert np.array_equal(x["max"], [r.max(0) for r in rows])


def test_a14_positions_by_number_mean_what_they_say(tmp_path):
    folder = save_as_published("qwen2", tmp_path / "model")
    positions = ["tokens", "first", "token.0", "token.1", "last"]
    x, _ = stored(folder, tmp_path, ["abc"], positions, "embed")
    embedding = transformers.AutoModel.from_pretrained(folder).get_input_embeddings().weight
    for position, letters in {"first": "a", "token.0": "a", "token.1": "b", "last": "c"}.items():
        expected = embedding[[64 + "abc".index(c) for c in letters]].detach().numpy()
        assert np.array_equal(x[position], expected), position
    assert np.array_equal(x["tokens"], embedding[[65, 66]].detach().numpy())


def test_a14_with_a_shared_prefix(tmp_path):
    folder = save_as_published("qwen2", tmp_path / "model")
    texts = [f"the same beginning of all rows: {t}" for t in (*TEXTS, *"xyz")]
    plain, _ = stored(folder, tmp_path / "a", texts)
    shared, facts = stored(folder, tmp_path / "b", texts, share_prefix=True)
    assert facts["shared"]["tokens_saved"] == 32 * (len(texts) - 1)
    for position, x in plain.items():
        np.testing.assert_allclose(shared[position], x, atol=1e-5 * np.abs(x).max())


def test_a14_in_a_conversation_the_template_comes_first(tmp_path):
    folder = save_as_published("qwen2", tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for template, content in (("U:{{ messages[0].content }}", 3), ("{{ messages[0].content }}", 2)):
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        tokens = reading_of(folder, chat={}).encode(["abc"], ["row0"])
        x, _ = stored(folder, tmp_path / str(content), ["abc"], chat={})
        assert tokens.content.sum() == 3 and len(x["tokens"]) == content


def test_a14_a_row_of_the_first_position_alone_is_refused_by_name(tmp_path):
    folder = save_as_published("qwen2", tmp_path / "model")
    message = (
        r"m on tiny: row 'row1' has no tokens besides special ones .* and the first \(exclude_fi"
    )
    with pytest.raises(ActprobeError, match=message):
        stored(folder, tmp_path, ["abc", "d"])
    x, _ = stored(folder, tmp_path, ["abc", "d"], exclude_first=False)
    assert len(x["tokens"]) == 4


@pytest.mark.parametrize("family", ["bert", "deberta"])
def test_a14_encoders_have_no_sink_by_their_order(family, tmp_path):
    folder = save_model(family, tmp_path / "model")
    x, facts = stored(folder, tmp_path, ["abc"], add_special_tokens=False)
    assert len(x["tokens"]) == 3 and facts["causal"] is False and facts["first_position"] == "kept"


@pytest.mark.parametrize(
    ("family", "fields", "causal"),
    [
        ("Llama", {}, True),
        ("Llama", {"is_causal": False}, False),
        ("Gemma3Text", {"use_bidirectional_attention": True}, False),
        ("Bloom", {}, True),
        ("Falcon", {}, True),
        ("Mamba", {}, True),
        ("XLNet", {}, False),
        ("Bert", {}, False),
        ("T5", {}, False),
        ("Bart", {}, False),
        ("Pegasus", {}, False),
    ],
)
def test_a14_which_models_are_causal(family, fields, causal):
    assert bos.is_causal(getattr(transformers, f"{family}Config")(**fields)) is causal


def test_a14_norms_by_position_are_facts(tmp_path):
    found = tiny_run(tmp_path, wanted={"sites": ["resid_post.1"], "positions": ["last", "tokens"]},
                     exclude_first=False, exclude_special=False)  # fmt: skip
    facts = store.read_header(found["resid_post.1.last"].path)["facts"]
    with models.open_activations(found["resid_post.1.tokens"].path) as a:
        norms = np.linalg.norm(a[:], axis=1)
        first = a.offsets[:-1]
    others = np.delete(norms, first)
    expected = {
        "first": np.median(norms[first]),
        "others": np.median(others),
        "largest": others.max(),
    }
    assert facts["norms"] == pytest.approx(expected, rel=1e-3)


def test_a14_norms_of_a_part_that_was_begun_stay(tmp_path, monkeypatch):
    """They were measured by the run that was killed; rounding must not throw its work away."""
    from actprobe.models import norms

    folder = save_model("llama", tmp_path / "model")
    config = make_config(tmp_path, model_entry(folder), {"sites": ["embed"], "positions": ["last"]})
    texts = write_texts(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(store.Part, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, texts)
    monkeypatch.setattr(norms, "measure", None)
    [t] = run(config, texts)
    assert store.read_header(t.path)["facts"]["norms"]["first"] > 0
