"""`arrays`: features from files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import Name, Patterns, Text


class Array(Section):
    """The files of one source."""

    path: Text
    """A .csv, .tsv, .parquet, .npy, .npz or .safetensors file. `{dataset}` in it stands for the
    dataset's name. Without it, one file serves all datasets, whose rows it must tell apart by `id`.
    """
    datasets: Patterns = ["*"]
    """Names or patterns of `datasets`. A dataset that a pattern fits is left out where its file is
    not there; one that is named must have a file.
    """
    id: Text | None = None
    """What holds the ids of the rows, to be matched with those of the dataset: a column of a table;
    in .npz and safetensors an array of whole numbers, in .npz also one of text, in safetensors also
    a JSON list in the metadata. Rows of other ids are left out. Null: the rows are those of the
    dataset, in its order.
    """
    columns: Patterns | None = None
    """Names or patterns of the columns of a table that are features. A column of lists, in Parquet,
    is as many features as its lists are long. Null: all columns of numbers but the id, and an error
    where one of them is called like the dataset's label or another column that has a meaning.
    """
    array: Text | None = None
    """Name of the array [rows, features] in an .npz or safetensors file. Null: the only one of two
    dimensions.
    """


Arrays = Annotated[
    dict[Name, Array],
    Field(
        description=(
            "Features that another tool computed or a person made (embeddings, counts, scores), "
            "one row per text, by the name of the source: `probes` reads it as `sources: [NAME]`. "
            "Numbers become float32. Whole numbers that float32 does not hold are refused, and so "
            "is what is missing or not finite. No name of a model, SAE, import or dump."
        )
    ),
]
