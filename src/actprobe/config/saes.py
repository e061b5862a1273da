"""`saes`: sparse autoencoders and transcoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actprobe.config.base import OneOf, Section, absent
from actprobe.config.kinds import (
    KIND,
    AboveZero,
    AsBool,
    AsList,
    Name,
    Natural,
    NotNegative,
    Patterns,
    Positive,
    Share,
    Text,
    TwoOrMore,
)

Mismatch = Literal["site", "model", "width", "bos", "context", "positions", "head", "processing"]


Format = Literal[
    "auto",
    "saelens",
    "gemma_scope",
    "gemma_scope_2",
    "llama_scope",
    "lm_saes",
    "sparsify",
    "dictionary_learning",
    "saev",
    "qwen_scope",
    "goodfire",
    "circuit_tracer",
    "circuit_tracer_clt",
]


class Overrides(Section):
    """Checks to leave out."""

    ignore_mismatch: Annotated[AsBool[bool] | AsList[list[Mismatch]], KIND] = False
    """Encode although the SAE's files say that it was made for other activations: all that they say
    (true), or of these kinds: another site (hook or layer), another model, another width of the
    residual stream, texts with or without a BOS (prepend_bos), texts longer than it was trained on
    (context_size), a part of the positions (seqpos_slice), one head (hook_head_index), a model
    processed otherwise (model_from_pretrained_kwargs).
    """


class Training(Section):
    """Train a top-k SAE on the site's token activations (position tokens in `activations`) instead
    of taking a published one.
    """

    width: TwoOrMore
    """Number of latents."""
    k: Positive
    """Latents that may fire on a token."""
    datasets: Patterns = ["*"]
    """Names or glob patterns of the datasets whose tokens it is trained on."""
    rows: Literal["untested", "all"] = "untested"
    """On which of their rows. untested: on rows whose text no probe of this SAE tests, in any
    setting, condition or seed (they follow from the probes' protocols, so that another protocol
    makes another SAE); where these hold less than a tenth of the tokens, on all rows. all: on all
    rows, whatever is probed. saes.csv, sae_training.csv and the report say which share of the
    tested rows the SAE has seen.
    """
    epochs: AboveZero = 3.0
    """How often each token is seen at most."""
    batch_size: Positive = 512
    """Tokens per step."""
    learning_rate: AboveZero = 0.001
    """Of Adam, for 16,384 latents; it is multiplied by sqrt(16384 / width) (Gao et al. 2024). It
    warms up over the first twentieth of the steps and falls over the last fifth.
    """
    aux_k: Positive | None = None
    """Dead latents that model what the others leave over (auxiliary loss); null is half the width
    of the activations.
    """
    aux_weight: NotNegative = 0.03125
    """Weight of the auxiliary loss; 0 leaves dead latents dead."""
    dead_after: Positive = 100000
    """A latent that has not fired for so many tokens is dead."""
    holdout: Share = 0.05
    """Share of the rows of each dataset kept aside to measure the loss on."""
    patience: Positive = 10
    """Stop when the held-out loss has not improved for so many measurements (ten per epoch)."""
    seed: Natural = 0
    """Of the initial weights and of the order of tokens."""


class SAE(Section):
    """One SAE or transcoder, published or to be trained."""

    one_of: ClassVar[OneOf] = (("source",), ("train",))

    source: Text | None = absent()
    """A local folder (or the weights file in it), or hub:ORG/REPO/FOLDER (Hugging Face hub). Where
    a folder holds one file for each layer, the file.
    """
    subfolder: Text | None = None
    """Folder below the source that holds the SAE; null is the source itself."""
    revision: str | None = None
    """Hub: a full commit hash (best), branch or tag, as for models; null is main. Local with
    `identity: revision`: any name of these weights.
    """
    identity: Literal["content", "revision"] = "content"
    """What identifies a local SAE: content (digests of its files, taken once) or revision (the name
    given in `revision`; no file is digested).
    """
    format: Format = "auto"
    """How the SAE lies on disk; auto looks at the files. lm_saes is Language-Model-SAEs 2
    (llamascopium), with Llama-Scope-R1-Distill; circuit_tracer are transcoders of one layer in
    layer_N.safetensors (mwhanna), circuit_tracer_clt the layers of a cross-layer transcoder in
    W_enc_N.safetensors. Crosscoders are refused: none of their layers can be encoded alone.
    """
    model: str
    """A name of `models`."""
    site: str
    """The site whose activations it encodes, with a plain layer number (resid_post.4; z.4 for an
    SAE of hook_z, mlp_in.4 for a transcoder). Transcoders of ln2.hook_normalized or hook_mlp_in
    read the stream before the norm's gain, which is not extracted: such activations come from
    `dumps` only.
    """
    position: str | None = None
    """Which activations to encode (mean, last, …); null where `activations` keeps only one position
    of the site besides tokens.
    """
    datasets: Patterns = ["*"]
    """Names or glob patterns of `datasets`."""
    overrides: Overrides = Overrides()
    fold_decoder_norm: bool = False
    """Multiply each latent by the norm of its decoder row, as if the decoder had unit rows. It
    changes penalised probes.
    """
    product: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the matrix product. tf32 (cuda) and bfloat16 are faster on a GPU and change
    which latents fire: about one in a hundred non-zeros for bfloat16.
    """
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where products are computed; auto takes cuda, then mps, then cpu."""
    train: Training | None = None


SAEs = Annotated[
    dict[Name, SAE],
    Field(
        description=(
            "Sparse autoencoders and transcoders by name; each is bound to a model and a site."
        )
    ),
]
