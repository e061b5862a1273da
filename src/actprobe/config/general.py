"""The whole config: its general keys, and a section for each room."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from actprobe.config.activations import Activations
from actprobe.config.arrays import Arrays
from actprobe.config.base import Section
from actprobe.config.datasets import Datasets
from actprobe.config.dumps import Dumps
from actprobe.config.imports import Imports
from actprobe.config.kinds import Name, Once, Positive, Text
from actprobe.config.loras import Loras
from actprobe.config.models import Models
from actprobe.config.probes import Probes
from actprobe.config.results import Results
from actprobe.config.saes import SAEs
from actprobe.config.top_contexts import TopContexts
from actprobe.config.values import Folder, Size
from actprobe.config.wandb import Wandb
from actprobe.config.wheels import Wheels


class Threads(Section):
    """Threads or worker processes that one job of a stage may use; never more than `snakemake
    --cores`.
    """

    activations: Positive = 8
    """Threads of one model."""
    saes: Positive = 8
    """Threads of training and encoding."""
    probes: Positive = 16
    """Worker processes of probe fits."""


class Config(Section):
    """A config, complete and checked: defaults are filled in, sizes are bytes, folders expanded."""

    experiment: Name
    """Name of the experiment; its results go to `{results_dir}/{experiment}`."""
    cache_dir: Folder = "cache"
    """Folder of the cached files. Several experiments, and several people, can share one; a file is
    never overwritten by different content, and only `actprobe gc` deletes.
    """
    results_dir: Folder = "results"
    """Folder of the results (tables, figures, report), one folder per experiment."""
    max_memory: Size = Field(default="2500MB", validate_default=True)
    """Memory that one job may use (bytes, or e.g. `3GB`, `512MiB`). Stages cut their work to it;
    the numbers do not depend on it.
    """
    threads: Threads = Threads()
    shards: dict[str, Positive] = {}
    """Split the pending targets of a stage into so many jobs of equal cost (for a cluster); each
    loads its model or SAE once.
    """
    scratch: str | None = None
    """Folder of the machine that a job runs on, e.g. `$TMPDIR`, in which HDF5 files are filled
    before they are copied into `cache_dir`; for shared file systems that are slow with small
    writes. A file that is unfinished when the machine dies is then begun anew, not resumed. Without
    it files are filled in `cache_dir`.
    """
    extensions: Once[Text] = []
    """Python files of your own that register methods and metrics (CONTRIBUTING.md shows how). They
    are run; what a fit uses of them is part of its key.
    """
    on_bad_dataset: Literal["stop", "skip"] = "stop"
    """What to do with a dataset that cannot be used: `stop` the run naming it, or `skip` it and
    list it in the report with the reason.
    """
    plan: Literal["needed", "all"] = "needed"
    """`needed` plans what is wanted and not there. `all` plans every target as if nothing were
    there: for `--rulegraph`, `--report`, `--summary` and forced runs.
    """
    wheels: Wheels = {}
    datasets: Datasets = []
    models: Models = {}
    activations: Activations = []
    imports: Imports = {}
    arrays: Arrays = {}
    dumps: Dumps = {}
    saes: SAEs = {}
    probes: Probes = []
    top_contexts: TopContexts = []
    loras: Loras = {}
    wandb: Wandb = Wandb()
    results: Results = Results()
