"""`loras`: collections of LoRA weights."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actprobe.config.base import OneOf, Section, absent
from actprobe.config.kinds import NUMBER, Once, Positive, TextOrList, Word


class Sketch(Section):
    """Sizes of the random sketches of a module's W."""

    product: Annotated[int, Field(ge=1, le=64), NUMBER] = 8
    """Rows and columns of the sketch of W."""
    projector: Annotated[int, Field(ge=1, le=64), NUMBER] = 16
    """Dimensions that the column and the row space of W are sketched in."""


class Collection(Section):
    """One collection."""

    one_of: ClassVar[OneOf] = (("files",), ("tables",))

    files: TextOrList | None = absent()
    """Safetensors files of the diffusers, PEFT or kohya dialects: a folder (searched with all below
    it), a glob pattern, or a list of folders, patterns and files.
    """
    tables: TextOrList | None = absent()
    """Hugging Face `datasets` tables with one column per tensor and one row per LoRA (Arrow or
    Parquet): a folder, a glob pattern, or a list. Other columns are labels and metadata.
    """
    labels: str | None = None
    """Table of labels (csv, or tsv), one row per LoRA; not for `tables`."""
    id: str = "id"
    """Column with the name of the LoRA, in the label table or the `tables`."""
    label: str = "label"
    """Column with the class."""
    group: str | None = None
    """Column with groups that must not be split between train and test rows."""
    split: str | None = None
    """Column that says train, validation or test for every row, if there is one."""
    recipe_ignore: list[str] = []
    """Metadata entries that the control recipe_only must not read (other labels)."""
    alpha: Literal["stored", "one"] = "stored"
    """`stored` takes each module's scale from the file by the rules of its dialect; `one` takes 1.
    """
    extra_tensors: Literal["ignore", "refuse"] = "ignore"
    """What to do with a file that has tensors beside the LoRA which leave its W alone (a
    classifier's head and other modules_to_save, biases, embeddings): `ignore` reads the LoRA and
    names what was left, `refuse` leaves the file out.
    """
    ignore_settings: Once[str] = []
    """Fields of PEFT's LoraConfig that are taken to leave W = scale·B·A alone: unknown ones, and
    init_lora_weights (of PiSSA, OLoRA, …), layer_replication, alora_invocation_tokens,
    arrow_config, megatron_config. A file with such a setting is refused otherwise.
    """
    identity: Literal["content", "stat"] = "content"
    """What tells that a file changed: its `content` (SHA-256, taken once and remembered by path,
    size and time) or `stat` (size and time alone: no byte is read, but copies of a collection are
    computed anew).
    """
    shard_size: Positive = 1000
    """Most LoRAs in one file of primitives. A new LoRA makes one shard stale, so smaller shards
    cost less when files are added. Tables have one shard per file.
    """
    on_bad_file: Literal["skip", "stop"] = "skip"
    """What to do with a file that is damaged, of an unknown kind or of another base model, or whose
    weights are not all finite: `skip` it and list it with the reason, or `stop` naming all of them.
    """
    representations: list[str] | None = None
    """Representations to compute; null: all but flat_vec. On the factors: simple_stats, rank_based,
    stats, spectral, matrix_norms, distribution, frequency, info_theoretic, ensemble, flat_vec. On
    the product W: singular_values, product_norms, product_moments, product (these three),
    product_sketch, left_projector, right_projector.
    """
    sketch: Sketch = Sketch()


Loras = Annotated[
    dict[Word, Collection],
    Field(
        description=(
            "Collections of LoRA weights by name. A LoRA is called by its path below the "
            "collection's folder, without ending; a file with a name that every LoRA has "
            "(adapter_model, pytorch_lora_weights) is called like its folder."
        )
    ),
]
