"""What a library raises about one row is that row's fault alone, and comes before the weights."""

import json
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
import transformers
from models_tiny import (
    make_config,
    model_entry,
    run,
    save_model,
    save_tokenizer,
    targets,
    tiny_run,
    write_texts,
)
from test_models_tokens import CHAT, reading_of
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as backends

from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import plan, store
from actprobe.models import limits
from actprobe.models.reading import blamed

LAST = {"sites": ["resid_post.1"], "positions": ["last"]}
NO_X = (
    "{% if 'x' in messages[0]['content'] %}{{ raise_exception('no x here') }}{% endif %}"
    "{{ messages[0]['content'] }}"
)
TOOLS = "{% for t in tools %}{{ t }}{% endfor %}{{ messages[0]['content'] }}"


@pytest.fixture
def folder(tmp_path):
    return save_model("llama", tmp_path / "model")


def two_datasets(tmp_path, folder, wanted=LAST, **changes):
    """One that has a row which cannot be used, and one that has not, both in one job."""
    config = make_config(tmp_path, model_entry(folder, **changes), wanted)
    texts = [write_texts(tmp_path, "bad", ["ab", "x y", "c"]), write_texts(tmp_path, "fine", ["a"])]
    found = {t.item: t for t in run(config | {"on_bad_dataset": "skip"}, *texts)}
    assert models.load_activations(found["fine"].path).shape == (1, 32)
    with pytest.raises(BadInput) as e:
        models.load_activations(found["bad"].path)
    return str(e.value)


def test_c4_a_template_that_raises_for_one_row(tmp_path, folder):
    save_tokenizer(folder, chat_template=NO_X)
    said = two_datasets(tmp_path, folder, chat={})
    assert said.startswith("m on bad: row 'row1': the chat template cannot show this text (take")
    assert said.endswith("TemplateError: no x here")


@pytest.mark.usefixtures("no_weights")
def test_c4_a_template_that_wants_tools_is_told_what_to_write(tmp_path, folder):
    save_tokenizer(folder, chat_template=TOOLS)
    with pytest.raises(ConfigError, match=r"models.m.chat: the model's chat template fails: TypeErr.*"
                       r"can be given, e.g. models.m.chat.variables: \{tools: \[\]\}"):  # fmt: skip
        tiny_run(tmp_path, chat={})


def test_c4_tools_can_be_given(tmp_path, folder):
    save_tokenizer(folder, chat_template=TOOLS)
    tiny_run(tmp_path, chat={"variables": {"tools": []}})


@pytest.mark.parametrize("name", ["tokenize", "messages", "chat_template", "add_generation_prompt"])
def test_c4_variables_that_are_none_are_refused(folder, name):
    tokenizer = save_tokenizer(folder, chat_template=NO_X)
    message = rf"models.m.chat.variables: '{name}' is no variable of a template"
    with pytest.raises(ConfigError, match=message):
        reading_of(tokenizer, chat=CHAT | {"variables": {name: True}})


def test_c4_several_templates_and_none_the_default(folder):
    tokenizer = save_tokenizer(folder, chat_template={"rag": NO_X, "tool_use": TOOLS})
    with pytest.raises(ConfigError, match=r"models.m.chat: This model has multiple chat templates"):
        reading_of(tokenizer, chat=CHAT)


def test_c4_a_token_beyond_the_embedding(tmp_path, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([*(f"new{i}" for i in range(60)), "x y"])
    tokenizer.save_pretrained(folder)
    said = two_datasets(tmp_path, folder)
    assert (
        "m on bad: row 'row1' has token 319 ('x y'), and the model has embeddings for 300" in said
    )


def word_level(folder):
    """A tokenizer that raises for a word that it does not know."""
    backend = Tokenizer(backends.WordLevel({"a": 0, "ab": 1, "c": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)


def test_c4_a_tokenizer_that_raises_for_one_row(tmp_path, folder):
    word_level(folder)
    said = two_datasets(tmp_path, folder)
    assert said.startswith(
        "m on bad: row 'row1': the model's tokenizer cannot read this text (take"
    )
    assert "Missing [UNK] token" in said


def test_c4_what_is_no_fault_of_a_row(tmp_path):
    class PanicException(BaseException):  # of pyo3
        pass

    def raising(error):
        def work():
            raise error

        return work

    for foreign in (PanicException("oh"), ValueError("oh"), RecursionError("oh")):
        with pytest.raises(BadInput, match=r"row 'a': why: .*oh"):
            blamed(raising(foreign), "row 'a'", "why: ")
    for other in (
        MemoryError(),
        KeyboardInterrupt(),
        ConfigError("x"),
        OSError(24, "too many files"),
    ):
        with pytest.raises(type(other)):
            blamed(raising(other), "row 'a'", "why: ")


@pytest.mark.parametrize("stated", [-1, 0])
def test_c4_a_model_that_states_no_positions(stated):
    """XLNet's config says -1."""
    config = transformers.XLNetConfig()
    assert limits.position_limit(config, "m", None) is None
    config = transformers.LlamaConfig()
    config.max_position_embeddings = stated
    assert limits.position_limit(config, "m", 10_000) is None


@pytest.mark.parametrize(
    ("family", "fields", "positions"),
    [
        ("Roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("MPNet", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Longformer", {"max_position_embeddings": 4098, "pad_token_id": 1}, 4096),
        ("OPT", {"max_position_embeddings": 2048}, 2048),  # its table has two more
        ("BioGpt", {"max_position_embeddings": 1024}, 1024),
        ("GPT2", {"n_positions": 77}, 77),
    ],
)
def test_how_many_positions_a_model_has(family, fields, positions):
    config = getattr(transformers, f"{family}Config")(**fields)
    assert limits.position_limit(config, "m", None) == positions
    message = rf"models.m.max_length: {positions + 1}, but the model has {positions} positions"
    with pytest.raises(ConfigError, match=message):
        limits.position_limit(config, "m", positions + 1)


@pytest.mark.parametrize(("own", "most"), [(1e30, 20), (10**30, 20), (7, 7), (-1, 20), (None, 20)])
def test_what_tokenizers_say_of_their_length(folder, own, most):
    tokenizer = save_tokenizer(folder)
    tokenizer.model_max_length = own
    assert limits.max_tokens(tokenizer, 20, None) == most


@pytest.mark.parametrize("family", ["opt", "roberta", "mpnet", "gpt2"])
def test_rows_as_long_as_the_model_has_positions(family, tmp_path):
    found = tiny_run(tmp_path, texts=["a" * 999, "b"], family=family)["resid_post.1.last"]
    facts = store.read_header(found.path)["facts"]
    assert facts["n_truncated"] == 1
    with models.open_activations(found.path) as a:
        assert a.n_tokens[0] == {"roberta": 253, "mpnet": 254}.get(family, 256)


@pytest.mark.usefixtures("no_weights")
def test_h_chat_without_a_template_is_found_in_the_plan(tmp_path, folder):
    save_tokenizer(folder)
    config = make_config(tmp_path, model_entry(folder, chat={}), LAST)
    with pytest.raises(
        ConfigError, match=r"models.m.chat: this model's tokenizer has no chat templ"
    ):
        targets(config, write_texts(tmp_path))
    (folder / "chat_template.jinja").write_text(NO_X)
    assert targets(config, write_texts(tmp_path))


def test_h_chat_without_a_template_in_a_wheel(tmp_path, folder):
    texts, path = write_texts(tmp_path), tmp_path / "w.whl"
    wheel = plan.Target("wheels", "w", "w", "w", str(path), "a" * 64, {}, raw=True)
    entry = model_entry("wheel:w/pkg/model", n_layers=4, chat={})
    config = make_config(tmp_path, entry, LAST) | {"wheels": {"w": {"members": ["*"]}}}
    known = {"texts": [texts], "wheels": [wheel]}
    assert models.targets(config, known, keys.DigestMemo(tmp_path))  # not fetched yet
    with zipfile.ZipFile(path, "w") as z:
        for file in folder.iterdir():
            z.write(file, f"pkg/model/{file.name}")
    with pytest.raises(ConfigError, match="no chat template"):
        models.targets(config, known, keys.DigestMemo(tmp_path))
    with zipfile.ZipFile(path, "a") as z:
        z.writestr("pkg/model/chat_template.jinja", NO_X)
    assert models.targets(config, known, keys.DigestMemo(tmp_path))


@pytest.mark.usefixtures("no_weights")
def test_h_chat_without_a_template_is_found_before_the_weights(tmp_path, folder, monkeypatch):
    """Of a model whose files were not there when the plan was made."""
    monkeypatch.setattr(sys.modules[models.targets.__module__], "check_chat", lambda *_: None)
    with pytest.raises(ConfigError, match="no chat template"):
        tiny_run(tmp_path, chat={})


@pytest.mark.parametrize("user", ["Is it so?", "{text} and {text}"])
def test_h_chat_user_has_one_place_for_the_text(tmp_path, folder, user):
    save_tokenizer(folder, chat_template=NO_X)
    config = make_config(tmp_path, model_entry(folder, chat={"user": user}), LAST)
    with pytest.raises(ConfigError, match=r"models.m.chat.user: .* write user: '.*\{text\}'"):
        targets(config, write_texts(tmp_path))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("position", ["token.9", "mean", "span.s"])
def test_every_row_is_looked_at_before_the_weights(tmp_path, folder, position):
    wanted = {"sites": ["embed"], "positions": [position], "spans": {"s": {"marker": "zz"}}}
    with pytest.raises(ActprobeError, match="m on tiny: row 'row1' "):
        tiny_run(tmp_path, texts=["zz and more", ""], wanted=wanted)


def test_datasets_that_do_not_fit_into_memory_are_tokenised_again(tmp_path, folder, monkeypatch):
    spans = {"s": {"chars": [0, 1]}}
    wanted = {"sites": ["embed"], "positions": ["last", "tokens", "span.s"], "spans": spans}
    config = make_config(tmp_path, model_entry(folder), wanted)
    two = [write_texts(tmp_path, n, t) for n, t in (("a", ["ab", "c"]), ("b", ["d", "efg"]))]
    expected = {t.name: keys.file_sha256(t.path) for t in run(config, *two)}
    other = make_config(tmp_path / "other", model_entry(folder), wanted)
    monkeypatch.setattr("actprobe.models.run._HELD", 0)
    assert {t.name: keys.file_sha256(t.path) for t in run(other, *two)} == expected


def test_a_tokenizer_in_python(tmp_path):
    """ByT5's: it adds an EOS, which `last` reads; truncation and special tokens are counted."""
    tokenizer = transformers.ByT5Tokenizer()
    names, texts = ["a", "b"], ["ab</s>", "abcdef"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = reading_of(tokenizer, 4, "T5").encode(texts, names)
    assert kept.ids.tolist() == [100, 101, 1, 100, 101, 102, 1]
    assert kept.content.tolist() == [1, 1, 0, 1, 1, 1, 0]
    assert (kept.n_truncated, kept.n_special) == (1, 1)
    plain = reading_of(tokenizer, None, "T5", special_tokens_in_text="plain").encode(texts, names)
    assert plain.lengths.tolist() == [7, 7] and plain.content.sum() == 12
    with pytest.raises(ActprobeError, match="gives no character offsets"):
        reading_of(tokenizer, None, "T5").encode(texts, names, with_chars=True)


def test_token_types_that_are_not_zero_are_given_to_the_model(tmp_path):
    """As the tokenizers of XLNet and Funnel have them; BERT's may be made to."""
    folder = save_model("bert", tmp_path / "model")
    backend = json.loads((folder / "tokenizer.json").read_text())
    for piece in backend["post_processor"]["single"]:
        if "SpecialToken" in piece and piece["SpecialToken"]["id"] == "</s>":
            piece["SpecialToken"]["type_id"] = 1
    (folder / "tokenizer.json").write_text(json.dumps(backend))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    found = tiny_run(tmp_path, texts=["ab", "longer"], family="bert")["resid_post.1.last"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for i, text in enumerate(["ab", "longer"]):
        encoded = tokenizer(text, return_tensors="pt")
        assert encoded["token_type_ids"][0, -1] == 1
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True).hidden_states[2][0, -1]
        np.testing.assert_allclose(models.load_activations(found.path)[i], states, atol=1e-4)


def test_b6_the_number_of_threads_is_a_fact_of_a_file(tmp_path, folder):
    """A part is resumed only where it agrees; a finished file stays."""
    from actprobe.models.run import run as run_batch

    config = make_config(tmp_path, model_entry(folder), LAST)
    found = targets(config, write_texts(tmp_path))
    [batch] = plan.make(config, found, [t.path for t in found]).batches
    try:
        run_batch(batch, config, 2)
    finally:
        torch.set_num_threads(1)
    assert store.read_header(found[0].path)["facts"]["threads"] == "2"


def test_b6_a_part_of_another_number_of_threads_is_begun_anew(tmp_path, folder, monkeypatch):
    from actprobe.models import extract
    from actprobe.models.run import run as run_batch

    config = make_config(tmp_path, model_entry(folder, max_tokens_per_batch=60), LAST)
    found = targets(config, write_texts(tmp_path))
    [batch] = plan.make(config, found, [t.path for t in found]).batches
    monkeypatch.setattr("actprobe.models.dataset._MARK_SECONDS", 0.0)
    batches, forward = [], extract.forward

    def counted(model, tokens, rows, reductions, wanted, *rest):
        if "resid_post.1" in wanted and "last" in wanted["resid_post.1"] and len(reductions) == 1:
            batches.append(list(rows))
            if len(batches) == 6:
                raise KeyboardInterrupt
        return forward(model, tokens, rows, reductions, wanted, *rest)

    monkeypatch.setattr(extract, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        run_batch(batch, config, 1)
    begun = store.read_header(store.part_path(found[0].path))["facts"]
    assert begun["threads"] == "1"
    monkeypatch.setattr(extract, "forward", forward)
    try:
        run_batch(batch, config, 2)
    finally:
        torch.set_num_threads(1)
    facts = store.read_header(found[0].path)["facts"]
    assert facts["threads"] == "2" and facts["batch_plan"] == begun["batch_plan"]


def test_d10_the_header_tells_how_many_rows_were_cut(tmp_path):
    found = tiny_run(tmp_path, texts=["abcdef", "ab", "abcdefgh"], max_length=4)
    facts = store.read_header(found["resid_post.1.last"].path)["facts"]
    assert (facts["n_truncated"], facts["n_rows"]) == (2, 3)


def test_g8_equal_tokens_have_equal_digests(tmp_path, folder):
    """What only a setting says and no token shows leaves the digest alone."""

    def digest(position="mean", texts=("abc", "defgh"), **changes):
        wanted = {"sites": ["embed"], "positions": [position]}
        config = make_config(tmp_path, model_entry(folder, **changes), wanted)
        [t] = run(config, write_texts(tmp_path, texts=list(texts)))
        return store.read_header(t.path)["facts"]["tokens_sha256"]

    mean, last = digest(), digest("last")
    assert digest(max_length=50) == digest(prepend_bos=True) == digest(exclude_first=False) == mean
    assert digest("last", max_length=50) == digest("token.-1") == last
    different = {
        mean, last, digest(max_length=3), digest(add_special_tokens=False), digest("max"),
        digest("first"), digest(exclude_special=False, exclude_first=False), digest("tokens"),
        digest(texts=("abc", "defgi")), digest(texts=("abcd", "efgh")),
    }  # fmt: skip
    assert len(different) == 10
