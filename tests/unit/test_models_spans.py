"""Spans: which tokens are in one, whatever a tokenizer says about the white space between words."""

import numpy as np
import pytest
import transformers
from models_tiny import make_config, model_entry, save_model, targets, write_texts
from test_models_tokens import CHAT, MASK, reading_of, span
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as backends

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.models.positions import Mask, plan_reduction

WORDS = ["Is", "it", "?", "Answer", ":", "yes", "no", "(A)", "Hello", "wor", "ld"]


def byte_level(trim_offsets):
    """Words with the space before them are tokens (GPT-2, Llama 3); other text is bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*alphabet, *WORDS, *(f"Ġ{w}" for w in WORDS)]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(known))}
    backend = Tokenizer(backends.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def metaspace():
    """Words with ▁ before them are tokens (Llama 2, T5)."""
    vocab = {t: i for i, t in enumerate(["<unk>", *(f"▁{w}" for w in WORDS), *WORDS, "▁"])}
    pieces = [(t, -1.0 if len(t) > 1 else -5.0) for t in vocab]
    backend = Tokenizer(backends.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def word_piece():
    vocab = {t: i for i, t in enumerate(["[UNK]", *WORDS, "##ld", "(", "A", ")"])}
    backend = Tokenizer(backends.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


TOKENIZERS = {
    "bytes": lambda: byte_level(trim_offsets=False),
    "bytes, trimmed": lambda: byte_level(trim_offsets=True),
    "metaspace": metaspace,
    "word piece": word_piece,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def taken(tokenizer, text, mask=MASK, **fields):
    """The tokens of a span, as words, and in how many rows an edge lies inside a token."""
    tokens = reading_of(tokenizer, family="Bert").encode([text], ["row0"], with_chars=True)
    r = plan_reduction(tokens, span(**fields), mask, [text], ["row0"])
    ids = tokens.ids[r.keep] if r.index is None else tokens.ids[r.index]
    return [tokenizer.decode([i]).strip() for i in ids.tolist()], r.edges


NO_MASK = Mask(special=True, first=False)


@pytest.mark.parametrize("reduce", ["last", "first", "mean", "max"])
def test_a4_a_marker_that_ends_with_a_space_ends_before_the_next_word(tokenizer, reduce):
    text = "Is it ? Answer : yes"
    marker = "Answer : "
    expected = {"last": [":"], "first": ["Answer"]}.get(reduce, ["Answer", ":"])
    assert taken(tokenizer, text, NO_MASK, marker=marker, reduce=reduce) == (expected, 0)
    assert taken(tokenizer, text, NO_MASK, marker=marker.strip(), reduce=reduce) == (expected, 0)


def test_a4_a_span_that_begins_with_a_space_has_the_word_behind_it(tokenizer):
    text = "Answer : yes no"
    for chars in ([8, 12], [9, 12]):  # " yes", "yes"
        assert taken(tokenizer, text, NO_MASK, chars=chars) == (["yes"], 0)
    assert taken(tokenizer, text, NO_MASK, chars=[9, None])[0] == ["yes", "no"]


def test_a4_an_edge_inside_a_token_is_told():
    tokenizer = byte_level(trim_offsets=False)
    text = "Hello Answer yes"
    assert taken(tokenizer, text, NO_MASK, chars=[6, 9]) == (["Answer"], 1)  # "Ans"
    assert taken(tokenizer, text, NO_MASK, chars=[8, None]) == (["yes"], 1)  # "swer yes"
    with pytest.raises(
        BadInput, match=r"row 'row0' has no token that begins in the span \(it lies"
    ):
        taken(tokenizer, text, NO_MASK, chars=[8, 10])
    with pytest.raises(BadInput, match="no token that begins in the span"):
        taken(tokenizer, text, NO_MASK, chars=[5, 6])  # the space between two words


@pytest.mark.parametrize("char", ["é", "漢", "😀", "👩\u200d🔬"])
def test_a4_characters_of_several_tokens_are_whole(char):
    """Every byte of an emoji has the place of the whole character."""
    tokenizer = byte_level(trim_offsets=False)
    n = len(char.encode())
    text = f"a{char}b"
    for reduce, expected in {"mean": n, "last": 1, "first": 1}.items():
        found, edges = taken(tokenizer, text, NO_MASK, chars=[1, 1 + len(char)], reduce=reduce)
        assert (len(found), edges) == (expected, 0)


def test_a4_white_space_alone_can_be_a_span(tokenizer):
    """Where it has tokens of its own; white space that is thrown away is no token."""
    if "WordPiece" in str(tokenizer.backend_tokenizer.model):
        with pytest.raises(BadInput, match="no token that begins in the span"):
            taken(tokenizer, "yes\n\n\nno", NO_MASK, chars=[3, 6])
    else:
        found, edges = taken(tokenizer, "yes\n\n\nno", NO_MASK, chars=[3, 6])
        assert set(found) <= {"", "<unk>"} and edges == 0


def test_a4_spans_in_a_conversation(tmp_path):
    tokenizer = byte_level(trim_offsets=False)
    tokenizer.chat_template = "Answer: {{ messages[0]['content'] }} Answer: yes"
    text = "Is it? Answer: no"
    tokens = reading_of(tokenizer, chat=CHAT).encode([text], ["row0"], with_chars=True)
    r = plan_reduction(tokens, span(marker="Answer: ", reduce="last"), MASK, [text], ["row0"])
    before = tokenizer.decode(tokens.ids[: r.index[0] + 1])
    assert before == "Answer: Is it? Answer:"


def test_spans_leave_out_what_a_mean_leaves_out():
    """The first position of a causal model, when reduced by mean or max; not when it is chosen."""
    tokenizer = byte_level(trim_offsets=False)
    assert taken(tokenizer, "Hello yes", MASK, chars=[0, None])[0] == ["yes"]
    assert taken(tokenizer, "Hello yes", MASK, chars=[0, None], reduce="first")[0] == ["Hello"]
    with pytest.raises(
        BadInput, match=r"no tokens in the span besides .* the first \(exclude_first"
    ):
        taken(tokenizer, "Hello yes", MASK, chars=[0, 5])


def test_a4_rows_with_split_edges_are_a_fact(tmp_path, caplog):
    from models_tiny import run

    folder = save_model("llama", tmp_path / "model")
    byte_level(trim_offsets=False).save_pretrained(folder)
    wanted = {"sites": ["embed"], "positions": ["span.s"], "spans": {"s": {"chars": [6, 9]}}}
    config = make_config(tmp_path, model_entry(folder), wanted)
    [t] = run(config, write_texts(tmp_path, texts=["Hello Answer", "Hello yes no"]))
    assert store.read_header(t.path)["facts"]["n_span_edges_in_tokens"] == 1
    assert "in 1 of 2 rows an edge of the span lies inside a token" in caplog.text
    assert len(targets(config, write_texts(tmp_path))) == 1
    assert np.isfinite(store.read_header(t.path)["facts"]["norms"]["first"])
