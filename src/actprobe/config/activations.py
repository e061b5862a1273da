"""`activations`: which are kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actprobe.config.base import OneOf, Section, absent
from actprobe.config.kinds import Patterns, Role, Text, TextOrWhole, Whole, Word


class Span(Section):
    """A part of each text."""

    one_of: ClassVar[OneOf] = (("chars",), ("marker",), ("labelled",), ("role", "turn", "part"))

    chars: Annotated[tuple[Whole, Whole | None], Field(strict=False)] | None = absent()
    """First character and the one after the last; negative from the text's end."""
    marker: Text | None = absent()
    """The span is where this string stands in the text."""
    occurrence: Literal["last", "first"] = "last"
    """Which occurrence of the marker."""
    labelled: Literal[True] | None = absent()
    """The span or the turn that the row's label is of, in datasets whose `spans` or `turns` have
    `rows: true`.
    """
    role: Role | None = absent()
    """What this role says."""
    turn: Whole | None = absent()
    """Which message, of this role where one is given: 0 is the first, -1 the last. Without it all
    of them are one span.
    """
    part: Literal["content", "reasoning", "call"] | None = absent()
    """content, reasoning (inside its tags) or call (of a tool: name and arguments); without it all
    that is said.
    """
    reduce: Literal["mean", "max", "last", "first", "after"] = "mean"
    """What becomes of the span's tokens. after is the token that follows the last of them: behind a
    turn, the one with which the template ends it.
    """


class Activation(Section):
    """Sites and positions of one model."""

    model: str
    """A name of `models`."""
    minus: str | None = None
    """Another name of `models`. Its activations are subtracted on the same rows, in float32, for
    studies of fine-tuning: the source MODEL-minus-OTHER/SITE.POSITION. Both must read the same
    tokens. The activations of the two models are sources as well.
    """
    sites: Annotated[list[TextOrWhole], Field(min_length=1)]
    """embed, or resid_pre.L, resid_mid.L, resid_post.L, attn_out.L, mlp_out.L, z.L (all heads'
    outputs side by side, before the output matrix; what SAEs of hook_z read), mlp_in.L (what the
    MLP takes, after its norm) or mlp_post.L (its neurons), where L is 3, -1 (the last layer), 0.5
    (share of the depth), 0-5 (a range) or * (every layer). Every family has resid_pre and
    resid_post; the others are mapped for Llama, Mistral, Mixtral, Qwen2, Qwen3, Phi, Gemma 1 to 3,
    OLMo, GPT-OSS, GLM, DeepSeek, Cohere, GPT-2, GPT-J, GPT-NeoX, OPT, BERT, RoBERTa, MPNet,
    DeBERTa, ModernBERT and their likes (src/actprobe/models/architectures.py).
    """
    positions: Annotated[list[TextOrWhole], Field(min_length=1)]
    """last, first, mean, max, token.3 or token.-2 (a token from either end), span.NAME (see
    `spans`), or tokens (all of them). last is the last token that the model reads, whatever it is;
    mean, max and tokens leave out special tokens and the first position of causal models (`models`:
    exclude_special, exclude_first).
    """
    datasets: Patterns = ["*"]
    """Names or glob patterns of `datasets`."""
    reuse_rows: bool = False
    """Take rows that the model read in the same way before, of an older file of this site and
    position (the dataset has grown, say), and compute the others alone. They can differ from
    computed ones in the last bits, which depend on what else is in their batch; the file's header
    says how many were taken, and from which file.
    """
    spans: dict[Word, Span] = {}
    """Parts of a text by name, for the positions span.NAME: by `chars`, by a `marker`, what somebody
    says in a chat (`role`, `turn`, `part`), or what the label of each row is of (`labelled`). Of chars
    and markers the tokens that begin inside the span are taken; white space before a word belongs to
    the word. Where an edge of a span lies inside a token, the log says so, and the artefact in how many
    rows. Of what is said, all tokens are taken that cover a character of it, without what the template
    writes around it; of what a label is of, all that cover a character of it.
    """


Activations = Annotated[
    list[Activation],
    Field(description=("Which activations to keep; further stages take what they name from here.")),
]
