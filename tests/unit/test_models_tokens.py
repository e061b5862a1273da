"""Texts to tokens: special tokens, truncation, chat templates, characters."""

import numpy as np
import pytest
import transformers
from models_tiny import model_entry, save_tokenizer

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.models.positions import Mask, plan_reduction
from actprobe.models.reading import reading
from actprobe.models.records import Span
from actprobe.models.tokens import Tokens

CHAT = {
    "system": None,
    "user": "{text}",
    "add_generation_prompt": True,
    "answer_after": None,
    "variables": {},
}

WITH_SYSTEM = (
    "<s>{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = (
    "<s>{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[model]{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path):
    return save_tokenizer(tmp_path)


def reading_of(tokenizer, limit=None, family="Llama", **changes):
    config = getattr(transformers, f"{family}Config")(vocab_size=300)
    config.max_position_embeddings = limit or -1
    return reading(tokenizer, config, "m", model_entry("folder", **changes))


def tokens_of(tokenizer, texts, limit=None, with_chars=False, **changes) -> Tokens:
    names = [f"row{i}" for i in range(len(texts))]
    return reading_of(tokenizer, limit, **changes).encode(texts, names, with_chars)


def read(tokenizer, tokens, i, content_only=False):
    ids, keep = tokens.ids[tokens.row(i)], tokens.content[tokens.row(i)]
    return tokenizer.decode(ids[keep] if content_only else ids)


def test_rows_and_special_tokens(tokenizer):
    tokens = tokens_of(tokenizer, ["ab", "c", "def"])
    assert tokens.lengths.tolist() == [3, 2, 4]
    assert [read(tokenizer, tokens, i) for i in range(3)] == ["<s>ab", "<s>c", "<s>def"]
    assert tokens.content.tolist() == [0, 1, 1, 0, 1, 0, 1, 1, 1]
    bare = tokens_of(tokenizer, ["ab"], add_special_tokens=False)
    assert read(tokenizer, bare, 0) == "ab" and bare.content.all()


def test_many_rows_are_tokenised_in_pieces(tokenizer):
    texts = [f"{i}" for i in range(2500)]
    tokens = tokens_of(tokenizer, texts)
    assert len(tokens.lengths) == 2500
    assert all(read(tokenizer, tokens, i, True) == str(i) for i in (0, 999, 1000, 2499))


@pytest.mark.parametrize(("side", "kept"), [("right", "<s>abc"), ("left", "<s>def")])
def test_truncation(tokenizer, side, kept):
    tokens = tokens_of(tokenizer, ["abcdef", "ab"], max_length=4, truncation_side=side)
    assert read(tokenizer, tokens, 0) == kept
    assert tokens.n_truncated == 1


def test_without_max_length_the_model_sets_it(tokenizer):
    assert tokens_of(tokenizer, ["a" * 50]).lengths.tolist() == [51]
    assert tokens_of(tokenizer, ["a" * 50], limit=20).lengths.tolist() == [20]
    tokenizer.model_max_length = 10
    assert tokens_of(tokenizer, ["a" * 50], limit=20).lengths.tolist() == [10]


def test_doubled_bos_is_refused(tokenizer):
    with pytest.raises(BadInput, match=r"row 'row1' begins with '<s>' twice \(1 such rows\)"):
        tokens_of(tokenizer, ["fine", "<s>twice"])
    tokens = tokens_of(tokenizer, ["<s>once"], add_special_tokens=False)
    assert read(tokenizer, tokens, 0) == "<s>once"


def test_a_bos_that_the_text_brings_is_no_content(tokenizer):
    texts = ["<s>ab", "ab"]
    tokens = tokens_of(tokenizer, texts, add_special_tokens=False)
    assert picked(tokenizer, tokens, "mean", texts) == ["ab", "ab"]
    assert picked(tokenizer, tokens, "mean", texts, exclude=False) == texts


def test_a_row_without_tokens_is_refused(tokenizer):
    with pytest.raises(BadInput, match="row 'row1' has no tokens"):
        tokens_of(tokenizer, ["a", ""], add_special_tokens=False)


def test_chat_template(tokenizer):
    tokenizer.chat_template = WITH_SYSTEM
    chat = {**CHAT, "system": "Be brief.", "user": "Q: {text}?"}
    tokens = tokens_of(tokenizer, ["who is m"], chat=chat)
    rendered = "<s>[system]Be brief.\n[user]Q: who is m?\n[assistant]"
    assert read(tokenizer, tokens, 0) == rendered  # one BOS: the template's
    assert read(tokenizer, tokens, 0, content_only=True) == "who is m"
    chat["add_generation_prompt"] = False
    assert not read(tokenizer, tokens_of(tokenizer, ["x"], chat=chat), 0).endswith("[assistant]")


@pytest.mark.parametrize(("side", "kept"), [("right", "abc"), ("left", "def")])
def test_of_a_long_conversation_the_text_is_cut(tokenizer, side, kept):
    """The template stays whole: its end is what `last` reads."""
    tokenizer.chat_template = WITH_SYSTEM
    chat = {**CHAT, "system": "Be brief.", "user": "Q: {text}?"}
    around = "<s>[system]Be brief.\n[user]Q: %s?\n[assistant]"
    most = len(around) - len("<s>") + 1 - len("%s") + 3
    cut = {"chat": chat, "max_length": most, "truncation_side": side, "with_chars": True}
    tokens = tokens_of(tokenizer, ["abcdef", "ab"], **cut)
    assert read(tokenizer, tokens, 0) == around % kept and tokens.n_truncated == 1
    at = "abcdef".index(kept)
    chars = tokens.chars[tokens.row(0)][tokens.content[tokens.row(0)]]
    assert chars.tolist() == [[k, k + 1] for k in range(at, at + 3)]
    message = rf"row 'row0' has {most - 3} tokens of its template .*max_length {most - 3} leaves no"
    with pytest.raises(BadInput, match=message):
        tokens_of(tokenizer, ["abcdef"], chat=chat, max_length=most - 3)


def test_the_answer_is_the_end_of_the_text_and_cut_first(tokenizer):
    tokenizer.chat_template = WITH_SYSTEM
    chat = {**CHAT, "answer_after": "|"}
    whole = tokens_of(tokenizer, ["question|answer"], chat=chat)
    cut = {"chat": chat, "max_length": int(whole.lengths[0]) - 4}
    right = read(tokenizer, tokens_of(tokenizer, ["question|answer"], **cut), 0)
    assert right == "<s>[user]question\n[assistant]an"
    left = tokens_of(tokenizer, ["question|answer"], **cut, truncation_side="left")
    assert read(tokenizer, left, 0) == "<s>[user]tion\n[assistant]answer"


def test_a_bos_before_a_conversation(tokenizer):
    """The template decides; prepend_bos: true adds one where it writes none."""
    for template, added in (("[U]", 1), ("<s>[U]", 0)):
        tokenizer.chat_template = template + "{{ messages[0]['content'] }}"
        plain = tokens_of(tokenizer, ["ab"], chat=CHAT)
        assert read(tokenizer, plain, 0) == f"{template}ab" and plain.n_bos == 1 - added
        bos = tokens_of(tokenizer, ["ab"], chat=CHAT, prepend_bos=True)
        assert read(tokenizer, bos, 0) == "<s>[U]ab" and bos.n_bos == 1
        without = tokens_of(tokenizer, ["ab"], chat=CHAT, prepend_bos=False)
        assert np.array_equal(without.ids, plain.ids)


def test_system_text_goes_to_the_user_where_there_is_no_system_role(tokenizer):
    tokenizer.chat_template = NO_SYSTEM
    tokens = tokens_of(tokenizer, ["a user"], chat={**CHAT, "system": "a user says"})
    assert read(tokenizer, tokens, 0) == "<s>[user]a user says\n\na user\n[model]"
    assert read(tokenizer, tokens, 0, content_only=True) == "a user"
    assert tokens.content.argmax() == len("[user]a user says\n\n") + 1  # the second one


def test_templates_that_strip_white_space(tokenizer):
    tokenizer.chat_template = NO_SYSTEM
    tokens = tokens_of(tokenizer, ["  padded\n"], with_chars=True, chat=CHAT)
    assert read(tokenizer, tokens, 0, content_only=True) == "padded"
    assert tokens.chars[tokens.content].tolist() == [[k, k + 1] for k in range(2, 8)]


def test_an_answer_is_put_after_the_generation_prompt(tokenizer):
    tokenizer.chat_template = WITH_SYSTEM
    chat = {**CHAT, "user": "{text}\n\nAnswer:", "answer_after": "|||"}
    tokens = tokens_of(tokenizer, ["Is it?||| (A)", "no marker"], with_chars=True, chat=chat)
    assert read(tokenizer, tokens, 0) == "<s>[user]Is it?\n\nAnswer:\n[assistant] (A)"
    assert read(tokenizer, tokens, 0, content_only=True) == "Is it? (A)"
    assert tokens.chars[tokens.row(0)][-1].tolist() == [12, 13]  # in the dataset's text
    assert read(tokenizer, tokens, 1) == "<s>[user]no marker\n\nAnswer:\n[assistant]"


def test_a_text_that_also_stands_in_the_template(tokenizer):
    tokenizer.chat_template = WITH_SYSTEM
    tokens = tokens_of(tokenizer, ["a", "user"], chat=CHAT)
    assert read(tokenizer, tokens, 0) == "<s>[user]a\n[assistant]"
    assert np.flatnonzero(tokens.content[tokens.row(0)]).tolist() == [7]
    assert np.flatnonzero(tokens.content[tokens.row(1)]).tolist() == [7, 8, 9, 10]


def test_template_variables_and_a_fixed_day(tokenizer):
    tokenizer.chat_template = (
        "{{ strftime_now('%d %b %Y') }}{{ mood }}|{{ messages[0]['content'] }}"
    )
    tokens = tokens_of(tokenizer, ["hi"], chat={**CHAT, "variables": {"mood": " calm"}})
    assert read(tokenizer, tokens, 0) == "26 Jul 2024 calm|hi"
    tokenizer.chat_template = (
        "{{ strftime_now('%A, %-d %B %Y, %F %H:%M:%S') }}|{{ messages[0]['content'] }}"
    )
    shown = read(tokenizer, tokens_of(tokenizer, ["hi"], chat=CHAT), 0)
    assert shown == "Friday, 26 July 2024, 2024-07-26 12:00:00|hi"


def test_templates_that_lose_the_text(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ActprobeError, match="does not show the user message"):
        tokens_of(tokenizer, ["hi"], chat=CHAT)
    tokenizer.chat_template = "{{ messages[0]['content'] | replace('x', '') }}"
    with pytest.raises(BadInput, match="alters the text 'a x c'"):
        tokens_of(tokenizer, ["a c", "a x c"], chat=CHAT)


def test_chat_needs_a_template_and_offsets(tokenizer):
    with pytest.raises(ActprobeError, match="no chat template"):
        tokens_of(tokenizer, ["a"], chat=CHAT)

    class Slow:
        is_fast = False

    with pytest.raises(ActprobeError, match="no character offsets"):
        reading_of(Slow(), chat=CHAT)


MASK = Mask(special=True, first=True)


def picked(tokenizer, tokens, position, texts, exclude=True, first=False):
    """The token ids, as text, that a position looks at in each row."""
    names = [f"row{i}" for i in range(len(texts))]
    r = plan_reduction(tokens, position, Mask(exclude, first), texts, names)
    rows = [tokens.row(i) for i in range(len(texts))]
    if r.index is not None:
        chosen = [tokens.ids[s][[k]] for s, k in zip(rows, r.index, strict=True)]
    else:
        chosen = [tokens.ids[s][r.keep[s]] for s in rows]
    return [tokenizer.decode(ids) for ids in chosen]


def test_positions(tokenizer):
    texts = ["abc", "defg"]
    tokens = tokens_of(tokenizer, texts)
    assert picked(tokenizer, tokens, "last", texts) == ["c", "g"]
    assert picked(tokenizer, tokens, "first", texts) == ["<s>", "<s>"]
    assert picked(tokenizer, tokens, "token.1", texts) == ["a", "d"]
    assert picked(tokenizer, tokens, "token.-2", texts) == ["b", "f"]
    assert picked(tokenizer, tokens, "mean", texts) == texts
    assert picked(tokenizer, tokens, "tokens", texts, exclude=False) == ["<s>abc", "<s>defg"]
    with pytest.raises(BadInput, match=r"row 'row0' has no token 4 \(it has 4\); 1 such rows"):
        picked(tokenizer, tokens, "token.4", texts)


def span(**fields):
    chars = fields.pop("chars", None)
    given = {"occurrence": "last", "reduce": "mean", **fields}
    return Span(chars=None if chars is None else tuple(chars), **given)


def test_spans(tokenizer):
    texts = ["so (A) or (A) é?", "is (A)"]
    tokens = tokens_of(tokenizer, texts, with_chars=True)
    assert picked(tokenizer, tokens, span(chars=[0, 2]), texts) == ["so", "is"]
    assert picked(tokenizer, tokens, span(chars=[-2, None]), texts) == ["é?", "A)"]
    assert picked(tokenizer, tokens, span(marker="(A)"), texts) == ["(A)", "(A)"]
    first = plan_reduction(
        tokens, span(marker="(A)", occurrence="first", reduce="last"), MASK, texts, ["a", "b"]
    )
    assert first.index.tolist() == [6, 6]
    begins = plan_reduction(tokens, span(marker="(A)", reduce="first"), MASK, texts, ["a", "b"])
    assert begins.index.tolist() == [11, 4]
    with pytest.raises(BadInput, match=r"row 'row1' does not contain the marker 'so'"):
        picked(tokenizer, tokens, span(marker="so"), texts)
    short = tokens_of(tokenizer, texts, with_chars=True, max_length=5)
    with pytest.raises(BadInput, match=r"row 'row0' has no token that begins in the span \(it"):
        picked(tokenizer, short, span(marker="(A)"), texts)


def test_only_special_tokens_is_no_mean(tokenizer):
    tokens = tokens_of(tokenizer, ["abc", ""])
    assert picked(tokenizer, tokens, "mean", ["abc", ""], exclude=False) == ["<s>abc", "<s>"]
    with pytest.raises(BadInput, match="row 'row1' has no tokens besides special ones"):
        picked(tokenizer, tokens, "mean", ["abc", ""])
    assert isinstance(tokens.ids, np.ndarray)
