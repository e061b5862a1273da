"""Kept fits tried on collections that they were not fitted on: scores of every row, and numbers.

`targets` is light to import; `run` makes a batch.
"""

from actprobe.probes.evaluations.targets import (
    VERSION,
    EvaluationArgs,
    EvaluationSpec,
    EvaluationTarget,
    targets,
)

__all__ = ["VERSION", "EvaluationArgs", "EvaluationSpec", "EvaluationTarget", "targets"]
