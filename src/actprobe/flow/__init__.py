"""What the Snakefile calls: the start of a run, what its jobs ask for, where the Snakefile lies.

The one room that knows Snakemake; what of it is no official interface is in `internals`.
"""

from actprobe.base.lazy import lazy

__getattr__ = lazy(__name__, {"Run": "start", "begin": "start", "snakefile": "place"})
