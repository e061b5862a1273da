"""What is kept of a fit: its model as bytes, which reproduce its scores without what fitted them.

`write` makes the bytes of a fitted probe, `read` makes a `Scorer` of them. A family of methods says
next to its code what of it must be kept (`methods.method(..., keep=...)`); `steps` are what stands
between the numbers of a source and an estimator; `scorers` are the arithmetic, a function for each form
of model.
"""

from actprobe.probes.keep.form import Kept, Scorer, read, with_train_rows, write
from actprobe.probes.keep.scorers import scorer

__all__ = ["Kept", "Scorer", "read", "scorer", "with_train_rows", "write"]
