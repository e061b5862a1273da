"""`results`: how tables and figures are made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import NUMBER


class Results(Section):
    """How tables, figures and the report are made. The defaults suit most experiments."""

    confidence: Annotated[float, Field(gt=0.5, lt=1), NUMBER] = 0.95
    """Level of the intervals over datasets in the summary and the figures."""
    confusion: Literal["multiclass", "all"] = "multiclass"
    """Labels of texts whose confusion matrices are told: of more than two classes (`multiclass`), or
    those of two as well (`all`). LoRA weights have theirs always.
    """
    texts: bool = True
    """Whether `errors.csv` and the page quote the texts that probes get most wrong. Without them both
    name the rows by id alone.
    """
