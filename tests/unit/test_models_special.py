"""Special tokens that a text spells out: kept as tokens, read as characters, or refused."""

import numpy as np
import pytest
import transformers
from models_tiny import make_config, model_entry, run, save_model, save_tokenizer, write_texts
from test_models_tokens import CHAT, WITH_SYSTEM, picked, read, reading_of, tokens_of
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors
from tokenizers import models as backends

from actprobe import models
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.models.special import Special

TYPED = "was <s>100</s> now 50"


@pytest.fixture
def tokenizer(tmp_path):
    return save_tokenizer(tmp_path)


def letters(text):
    """What a tokenizer of bytes makes of a text that has no special tokens."""
    return list(text)


def as_letters(tokenizer, tokens, i=0):
    return [tokenizer.decode([t]) for t in tokens.ids[tokens.row(i)].tolist()]


def test_a3_special_tokens_of_the_text_are_no_part_of_its_mean(tokenizer):
    tokens = tokens_of(tokenizer, [TYPED, "plain"])
    assert read(tokenizer, tokens, 0) == f"<s>{TYPED}"
    assert picked(tokenizer, tokens, "mean", [TYPED, "plain"]) == ["was 100 now 50", "plain"]
    assert tokens.n_special == 1
    assert picked(tokenizer, tokens, "mean", [TYPED, "plain"], exclude=False)[0] == f"<s>{TYPED}"


def test_a3_last_reads_the_special_token_that_ends_a_row(tokenizer):
    for mode, last in (("keep", "</s>"), ("plain", ">")):
        tokens = tokens_of(tokenizer, ["a</s>"], special_tokens_in_text=mode)
        assert picked(tokenizer, tokens, "last", ["a</s>"]) == [last]


def test_a3_plain_reads_the_characters(tokenizer):
    tokens = tokens_of(tokenizer, [TYPED, "plain"], special_tokens_in_text="plain")
    assert as_letters(tokenizer, tokens) == ["<s>", *letters(TYPED)]
    assert picked(tokenizer, tokens, "mean", [TYPED, "plain"]) == [TYPED, "plain"]
    assert tokens.n_special == 1 and tokens.n_bos == 2
    same = tokens_of(tokenizer, ["<s>a"], special_tokens_in_text="plain")
    assert as_letters(tokenizer, same) == ["<s>", *"<s>a"]  # no doubled BOS: characters


def test_a3_refuse_names_row_and_token(tokenizer):
    message = r"row 'row1' holds the special token '</s>'; models.m.special_tokens_in_text: plain"
    with pytest.raises(BadInput, match=message):
        tokens_of(tokenizer, ["fine", "a</s>b"], special_tokens_in_text="refuse")
    bare = {"add_special_tokens": False, "special_tokens_in_text": "refuse"}
    assert tokens_of(tokenizer, ["<s>a"], **bare).n_special == 0  # a BOS in front is none
    with pytest.raises(BadInput, match="'</s>'"):
        tokens_of(tokenizer, ["</s>a"], **bare)


@pytest.mark.parametrize("lstrip", [False, True])
@pytest.mark.parametrize("rstrip", [False, True])
def test_a3_tokens_that_swallow_white_space_leave_it_with_plain(tokenizer, lstrip, rstrip):
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [AddedToken("<m>", lstrip=lstrip, rstrip=rstrip, special=True)]}
    )
    text = "a <m> b"
    kept = tokens_of(tokenizer, [text], limit=99)
    expected = ["<s>", "a", *([] if lstrip else [" "]), "<m>", *([] if rstrip else [" "]), "b"]
    assert [t.strip() or " " for t in as_letters(tokenizer, kept)] == expected
    assert kept.content.sum() == len(expected) - 2
    plain = tokens_of(tokenizer, [text], limit=99, special_tokens_in_text="plain")
    assert as_letters(tokenizer, plain) == ["<s>", *text] and plain.content.sum() == len(text)


def test_a3_added_tokens_that_are_not_special_are_text(tokenizer):
    tokenizer.add_tokens(["<think>"])
    for mode in ("keep", "plain", "refuse"):
        tokens = tokens_of(tokenizer, ["a<think>b"], special_tokens_in_text=mode)
        assert as_letters(tokenizer, tokens) == ["<s>", "a", "<think>", "b"]
        assert tokens.content.sum() == 3 and tokens.n_special == 0


def test_a3_an_unknown_word_is_text():
    backend = Tokenizer(backends.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokens = reading_of(tokenizer, family="Bert").encode(["a wort"], ["row0"])
    assert tokens.ids.tolist() == [1, 3, 0, 2] and tokens.content.tolist() == [0, 1, 1, 0]
    assert Special(tokenizer).ids.tolist() == [1, 2]


CHATS = {"bare": "{{ messages[0]['content'] }}", "roles": WITH_SYSTEM}


@pytest.mark.parametrize("template", CHATS)
def test_a3_in_a_conversation_the_text_is_plain_and_the_template_is_not(tokenizer, template):
    """A text that would end its turn is read as characters; so are its neighbours."""
    tokenizer.chat_template = CHATS[template] + "</s>"
    texts = ["ab", "x</s><s>[assistant]y</s>", "</s>"]
    kept = tokens_of(tokenizer, texts, chat=CHAT, with_chars=True)
    plain = tokens_of(tokenizer, texts, chat=CHAT, with_chars=True, special_tokens_in_text="plain")
    assert kept.n_special == plain.n_special == 2
    for i, text in enumerate(texts):
        before, _, after = tokenizer.apply_chat_template(
            [{"role": "user", "content": "%"}], tokenize=False, add_generation_prompt=True
        ).partition("%")
        around = [tokenizer.tokenize(part) for part in (before, after)]
        n = len(text)
        assert as_letters(tokenizer, plain, i)[len(around[0]) :][:n] == letters(text)
        assert plain.lengths[i] == len(around[0]) + n + len(around[1])
        chars = plain.chars[plain.row(i)][plain.content[plain.row(i)]]
        assert chars.tolist() == [[k, k + 1] for k in range(n)]
    assert read(tokenizer, kept, 1, content_only=True) == "x[assistant]y"


def test_a3_plain_in_a_conversation_is_refused_where_parts_cannot_be_read_alone(tmp_path):
    """Llama 2's tokenizer puts a space before the first part only."""
    vocab = [("<unk>", 0.0), *((c, -1.0) for c in "▁abcU:</s>")]
    backend = Tokenizer(backends.Unigram(vocab, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<e>"
    )
    tokenizer.chat_template = "U:<e>{{ messages[0]['content'] }}"
    ok = tokens_of(tokenizer, ["abc"], chat=CHAT, special_tokens_in_text="plain")
    assert ok.n_special == 0
    message = r"row 'row0': special_tokens_in_text: plain: this tokenizer takes a special token"
    with pytest.raises(BadInput, match=message):
        tokens_of(tokenizer, ["a<e>b"], chat=CHAT, special_tokens_in_text="plain")


def test_a3_the_count_is_a_fact_of_every_artefact(tmp_path, caplog):
    folder = save_model("llama", tmp_path / "model")
    wanted = {"sites": ["embed"], "positions": ["last", "mean"]}
    config = make_config(tmp_path, model_entry(folder), wanted)
    found = run(config, write_texts(tmp_path, texts=[TYPED, "b"]))
    facts = [store.read_header(t.path)["facts"] for t in found]
    assert [f["n_special_in_text"] for f in facts] == [1, 1]
    assert "1 of 2 rows spell out special tokens, kept as tokens" in caplog.text
    refusing = config["models"]["m"] | {"special_tokens_in_text": "refuse"}
    skipping = config | {"models": {"m": refusing}, "on_bad_dataset": "skip"}
    both = [write_texts(tmp_path, texts=[TYPED, "b"]), write_texts(tmp_path, "other", ["a", "b"])]
    made = {t.item: t for t in run(skipping, *both) if t.args.position == "last"}
    assert np.isfinite(models.load_activations(made["other"].path)).all()
    with pytest.raises(BadInput, match=r"m on tiny: row 'row0' holds the special token '<s>'"):
        models.load_activations(made["tiny"].path)
