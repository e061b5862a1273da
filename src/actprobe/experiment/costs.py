"""What a job will take: memory, time, disk, GPUs; a small model with measured rates.

It serves the resource requests of the rules and the estimate that `actprobe plan` prints. Rates
were measured on 2 cores of an x86-64 VM (AMD Zen 5, 24 GB), in CPU seconds of one thread, unless
they are marked as taken from data sheets. An estimate may be wrong by a factor of two or three;
requests carry a margin, and a job that failed asks for twice as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from actprobe.cache.jobs import SNAKEMAKE
from actprobe.cache.plan import Batch, Plan, Target
from actprobe.config.models import Model as Settings
from actprobe.experiment import shapes
from actprobe.experiment.shapes import Rows
from actprobe.probes import effort, protocol
from actprobe.sae.records import SaeTarget, is_trained
from actprobe.sae.sizes import training_bytes

GB, MB = 1e9, 1e6

# Memory in bytes.
SMALLEST = 500 * MB  # below this a submitted job dies before it begins
_PYTHON = 300 * MB  # a job without torch before it reads anything
_TORCH = 700 * MB  # torch, transformers and a tokenizer
_WORKER = 300 * MB  # one probe worker, as in `probes.batch`
_SAE = 470 * MB  # numpy, scipy, h5py and (GPU) torch, as in `sae.memory`
_SHARD = 10 * GB  # the largest file of a large model, while it is read
_GPU = 80 * GB  # of one card

# Arithmetic operations in a CPU second, and in a second of a GPU (data sheet of an H100, at 40 %).
_CPU = {"float32": 1.0e11, "bfloat16": 3.0e10, "float16": 2.0e9}
_CUDA = {"float32": 2.5e13, "tf32": 2.0e14, "bfloat16": 4.0e14, "float16": 4.0e14}
_READ = 1.0 * GB  # bytes of weights in a second, from disk or page cache
_NETWORK = 20 * MB  # bytes in a second
_CONVERT = 100 * MB  # bytes of arrays checked, converted and written in a second
_DEQUANTIZE = 15e6  # parameters of a GGUF file in a second
_CONVERT_SPARSE = 25 * MB  # the same of latents
_COPY_TOKENS = 200  # bytes of one token of a dataset that is tokenized as a whole

_LOAD_SECONDS = 5.0  # importing torch and transformers, building a model
_DENSE_D = 384  # activations whose probes `Target.cost` counts the seconds of
_PER_LORA = 0.002  # CPU s of one unit of `Family.cost`; all families at rank 4 take 0.02 s
_LORA_BYTES = 12_000  # of one unit of it on disk
_LORA_MEMORY = 750 * MB  # 300 MB measured, whatever the number of LoRAs
_PER_VIEW = 6e-5  # CPU s of a LoRA in one representation
_VIEW_BYTES = 9_300  # of it on disk
_RESULT_BYTES = 10_000  # of one file of probe results
_PER_EVALUATION = 0.05  # CPU s of scoring a collection with one fit
_NNZ_BYTES = 5.3  # of one non-zero of latents on disk

# The executor plugin names a folder after the jobs of a group: 255 characters, four jobs.
LONGEST_NAME = 57

_MARGIN = 1.25  # memory
_TIME_MARGIN = 3.0
_LEAST_MINUTES = 10


@dataclass(frozen=True)
class Cost:
    """Estimate for one job: peak memory in MB and wall time in minutes with a margin, both for the
    job itself without Snakemake; bytes that stay on disk; CPU seconds; GPUs; kept_bytes: of these
    bytes on disk, models and scores that `keep` asks for."""

    mem_mb: int
    runtime_min: int
    disk_bytes: int
    cpu_seconds: float
    gpu: int = 0
    kept_bytes: int = 0


def mem_mb(cost: Cost, attempt: int = 1) -> int:
    """Memory to ask for: twice as much at every further attempt."""
    return max(round((cost.mem_mb * MB + SNAKEMAKE) / MB), round(SMALLEST / MB)) << (attempt - 1)


def runtime(cost: Cost, attempt: int = 1) -> int:
    """Minutes to ask for: twice as many at every further attempt."""
    return cost.runtime_min << (attempt - 1)


def is_small(rule: str, cost: Cost) -> bool:
    """Whether a job is not worth a submission of its own, and its name short enough to share one."""
    brief = cost.gpu == 0 and cost.runtime_min <= 2 * _LEAST_MINUTES
    return brief and len(rule) <= LONGEST_NAME


def estimates(plan: Plan) -> dict[str, Cost]:
    """Rule name -> cost, for every job of a plan."""
    estimator = Estimator(plan)
    return {b.rule: estimator.cost(b) for b in plan.batches}


@dataclass(frozen=True)
class _Work:
    """Bytes of memory, seconds that the work takes on one thread (or the GPU), bytes on disk and those
    of kept models and scores among them."""

    memory: float
    seconds: float
    disk: float
    threads: int = 1
    gpu: int = 0
    kept: float = 0.0


class Estimator:
    """Estimates for the batches of one plan."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._config = plan.config
        self._datasets = shapes.datasets(plan)
        self._model = cache(lambda name: shapes.model(plan.config, name))
        self._stages: dict[str, Callable[[Batch], _Work]] = {
            "weights": self._weights,
            "activations": self._activations,
            "answers": self._answers,
            "latents": self._latents,
            "saes": self._saes,
            "probes": self._probes,
            "evaluations": self._evaluations,
            "texts": self._texts,
            "wheels": lambda b: _Work(_PYTHON, 10 * len(b.targets), 1e8 * len(b.targets)),
            "hub": lambda b: _Work(_PYTHON, b.cost / _NETWORK, b.cost),
            "dumps": lambda b: _Work(_PYTHON, b.cost / _NETWORK, b.cost),
            "differences": self._differences,
            "imports": lambda b: _Work(2 * _PYTHON, b.cost / _CONVERT, b.cost),
            "arrays": lambda b: _Work(self._arrays(b), b.cost / _CONVERT, b.cost),
            "assemble": lambda b: _Work(2 * _PYTHON, b.cost / _CONVERT, b.cost),
            "assemble_latents": lambda b: _Work(2 * _PYTHON, b.cost / _CONVERT_SPARSE, b.cost),
            "lora_primitives": lambda b: _Work(
                _LORA_MEMORY, b.cost * _PER_LORA, b.cost * _LORA_BYTES
            ),
            "features": lambda b: _Work(_LORA_MEMORY, 2 + b.cost * _PER_VIEW, b.cost * _VIEW_BYTES),
        }

    def cost(self, batch: Batch) -> Cost:
        """The estimate for a batch; a stage without a model of its own takes little time."""
        work = self._stages.get(batch.stage, self._little)(batch)
        wall = work.seconds / (1 if work.gpu else work.threads)
        return Cost(
            math.ceil(work.memory / MB),
            math.ceil(_LEAST_MINUTES + _TIME_MARGIN * wall / 60),
            round(work.disk),
            work.seconds,
            work.gpu,
            round(work.kept),
        )

    def _rows(self, dataset: str) -> Rows:
        return self._datasets.get(dataset) or Rows(
            shapes.MEAN_ROWS, shapes.MEAN_ROWS * shapes.MEAN_ROW_BYTES, False
        )

    def _vectors(self, t: Target) -> float:
        """Rows of what a target encodes or probes: its texts, or all of their tokens."""
        if t.args.position != "tokens":
            return self._rows(t.item).n
        settings = self._config.models.get(t.args.model)
        if settings is not None:
            return self._tokens(t.item, settings)
        return self._rows(t.item).tokens()

    def _bounded(self, needed: float, least: float, items: set[str]) -> float:
        """Memory of a stage that cuts its work to `max_memory`; all of it when rows are a guess."""
        known = all(self._rows(i).known for i in items)
        wanted = _MARGIN * needed if known else math.inf
        return max(min(wanted, self._config.max_memory), _MARGIN * least)

    def _little(self, b: Batch) -> _Work:
        return _Work(self._config.max_memory, 5.0 * len(b.targets), 1e5 * len(b.targets))

    def _texts(self, b: Batch) -> _Work:
        sizes = [self._rows(t.item).text_bytes for t in b.targets]
        return _Work(_PYTHON + 10 * max(sizes), 1 + sum(sizes) / (5 * MB), sum(sizes) / 3)

    def _answers(self, b: Batch) -> _Work:
        """All layers read every prompt; each token of an answer reads all weights once a batch."""
        name = b.targets[0].args.model
        settings, model = self._config.models[name], self._model(name)
        dtype, cuda = settings.dtype, settings.device == "cuda"
        held, read = model.weights(model.layers, dtype)
        tokens = sum(
            self._tokens(t.item, settings) + self._rows(t.item).n * t.spec.max_new_tokens
            for t in b.targets
        )
        product = 2 * (model.layers * model.active + model.embedding) * tokens
        seconds = _LOAD_SECONDS + read / _READ + product / (_CUDA if cuda else _CPU)[dtype]
        threads = self._config.threads.activations
        disk = sum(4 * self._rows(t.item).n * t.spec.max_new_tokens for t in b.targets)
        memory = held + (read if model.file_bytes != shapes.BYTES[dtype] else 0) + _TORCH
        return _Work(2 * _MARGIN * memory, seconds, disk, threads, int(cuda))

    def _weights(self, b: Batch) -> _Work:
        model = self._model(b.targets[0].args.model)
        n = model.embedding + model.layers * model.layer
        largest = 4.0 * max(model.embedding, model.layer)
        seconds = _LOAD_SECONDS + n / _DEQUANTIZE
        return _Work(
            _TORCH + _MARGIN * 2 * largest,
            seconds,
            model.weights(model.layers, b.targets[0].spec.dtype)[0],
        )

    def _differences(self, b: Batch) -> _Work:
        size = sum(self._vectors(t) * (self._width(t) * 4.0 + 4) for t in b.targets)
        return _Work(2 * _PYTHON, 1 + 3 * size / _CONVERT, size)

    def _activations(self, b: Batch) -> _Work:
        """Weights are loaded once for all models of a job, and adapters are merged into copies."""
        names = list(dict.fromkeys(t.args.model for t in b.targets))
        settings, model = self._config.models[names[0]], self._model(names[0])
        dtype = settings.dtype
        layers = 1 + max(_layer(t.args.site) for t in b.targets)
        held, read = model.weights(layers, dtype)
        seconds = _LOAD_SECONDS + read / _READ
        copies = held if len(names) > 1 and any(map(self._merges, names)) else 0
        tokens = {
            (m, i): self._tokens(i, self._config.models[m])
            for m, i in {(t.args.model, t.item) for t in b.targets}
        }
        product = 2 * layers * model.active * sum(tokens.values())
        spread = settings.device_map is not None
        cuda = settings.device == "cuda" or (spread and settings.device == "auto")
        gpus = math.ceil(_MARGIN * held / _GPU) if spread else 1
        most = max(self._config.models[m].max_tokens_per_batch or 1024 for m in names)
        batch = most * 4 * (8 * model.d + 3 * model.mlp)
        weights = held + (read if model.file_bytes != shapes.BYTES[dtype] else 0)
        if spread and cuda:
            weights = min(weights, _SHARD)  # the rest goes to the GPUs as it is read
        elif not cuda:
            weights += copies
        memory = weights + (0 if cuda else batch) + _TORCH + _COPY_TOKENS * max(tokens.values())
        seconds += product / (_CUDA if cuda else _CPU)[dtype] + len(names) * copies / _READ
        disk = sum(self._activation_bytes(t) for t in b.targets)
        threads = self._config.threads.activations
        return _Work(_MARGIN * memory, seconds, disk, threads, gpus if cuda else 0)

    def _merges(self, model: str) -> bool:
        settings = self._config.models[model]
        return settings.merge_adapters and settings.adapter not in (None, "ignore")

    def _tokens(self, dataset: str, settings: Settings) -> float:
        rows, chat = self._rows(dataset), settings.chat
        extra = 0.0
        if chat:
            fixed = len(chat.system or "") + len(chat.user)
            extra = rows.n * (20 + fixed / shapes.BYTES_PER_TOKEN)
        return rows.tokens(settings.max_length) + extra

    def _activation_bytes(self, t: Target) -> float:
        """Bytes of an activations artefact that this plan makes or has."""
        settings = self._config.models.get(t.args.model)
        dtype = settings.dtype if settings and t.args.position != "mean" else "float32"
        item = shapes.BYTES[dtype]
        return self._vectors(t) * (self._width(t) * item + 4)

    def _arrays(self, b: Batch) -> float:
        """A table in text is read as a whole beside its numbers, of a Parquet file a row group."""
        held = {"csv": 4, "tsv": 4, "parquet": 3}  # bytes in memory of a byte in the file
        return 2 * _PYTHON + max(held.get(t.spec.format, 0) * t.cost for t in b.targets)

    def _width(self, t: Target) -> int:
        if t.args.model in self._config.arrays:
            source = self._plan.targets.get(getattr(t.args, "matrix", ""))
            return shapes.array_width(source, self._rows(t.item))
        return self._model(t.args.model).width(t.args.site)

    def _latents(self, b: Batch) -> _Work:
        settings = self._config.saes[b.loader]
        sae = shapes.sae(self._config, b.loader, b.targets[0].args.sae)
        n = sum(map(self._vectors, b.targets))
        cuda = settings.device == "cuda"
        rates = _CUDA if cuda else _CPU
        weights = 4 * sae.d * sae.latents
        # As in `sae.memory`: biases and norms, one tile of a product, entries, a block of the encoder.
        fixed = _SAE + 24 * sae.latents + (24 << 22) + (32 << 20) + (12 << 10) * sae.d
        block = 6 * sae.d * min(16384, sae.latents)
        least = fixed + 6 * sae.d * min(4096, sae.latents) + (4 << 10) * sae.d
        memory = self._bounded(fixed + block + 4 * n * sae.d, least, {t.item for t in b.targets})
        seconds = 2.0 + weights / _READ + 2.0 * n * sae.d * sae.latents / rates[settings.product]
        disk = n * (sae.l0 * _NNZ_BYTES + 8)
        return _Work(memory, seconds, disk, self._config.threads.saes, int(cuda))

    def _saes(self, b: Batch) -> _Work:
        t: SaeTarget = b.targets[0]  # a loader makes one
        if not is_trained(t):
            sae = shapes.sae(self._config, b.loader, t.args.place)
            size = 4.0 * sae.d * sae.latents
            return _Work(_PYTHON + 4 * size, 10 + 2 * size / _CONVERT, 2 * size)
        train, d = t.spec.train, shapes.width(self._config, b.loader)
        size = 4.0 * d * train.width
        names = [Path(p).parent.name for p in t.args.tokens]
        steps = train.epochs * sum(self._rows(n).tokens() for n in names) / train.batch_size
        product = 2.0 * train.batch_size * d * train.width / _CPU["float32"]
        update = 2.0 * size * 20 / (10 * GB)  # Adam reads and writes moments, gradient and weights
        memory = training_bytes(d, train)
        threads = self._config.threads.saes
        return _Work(_MARGIN * memory, steps * (product + update), 2 * size, threads)

    def _probes(self, b: Batch) -> _Work:
        if hasattr(b.targets[0].args, "features"):  # a loader has features alone, or none
            threads = min(self._config.threads.probes, len(b.targets))
            kept = sum(t.args.kept_bytes for t in b.targets)
            disk = _RESULT_BYTES * len(b.targets) + kept
            return _Work(self._config.max_memory, 2 + b.cost, disk, threads, kept=kept)
        seconds = largest = kept = 0.0
        for t in b.targets:
            kept += self._kept(t)
            dense = t.args.source not in self._config.saes
            d = self._width(t)
            seconds += t.cost * (d / _DENSE_D if dense else 1)
            vector = 4.0 * d if dense else shapes.L0 * _NNZ_BYTES
            largest = max(largest, self._vectors(t) * vector)
        worker = _WORKER + 6 * largest
        threads = min(self._config.threads.probes, len(b.targets))
        items = {t.item for t in b.targets}
        memory = self._bounded(threads * worker, worker, items)
        disk = _RESULT_BYTES * len(b.targets) + kept
        return _Work(memory, seconds, disk, threads, kept=kept)

    def _evaluations(self, b: Batch) -> _Work:
        """Rows are read and scored once for each fit; intervals and null bands take most of the time."""
        seconds = largest = disk = 0.0
        for t in b.targets:
            recipe = protocol.recipe(protocol.load(t.args.protocol), t.args.setting, t.args.method)
            fits, n = effort.fits(recipe), self._rows(t.item).n
            seconds += _PER_EVALUATION * fits
            disk += _RESULT_BYTES + 16.0 * n * fits
            if t.args.matrix is not None and (source := self._plan.targets.get(t.args.matrix)):
                largest = max(largest, self._vectors(source) * 4.0 * self._stored(source))
        worker = _WORKER + 3 * largest
        threads = min(self._config.threads.probes, len(b.targets))
        memory = self._bounded(threads * worker, worker, {t.item for t in b.targets})
        return _Work(memory, seconds, disk, threads)

    def _stored(self, t: Target) -> float:
        """Numbers of one row of a matrix."""
        if t.stage == "texts":
            return 0.0
        if t.args.source in self._config.saes:
            return shapes.L0 * _NNZ_BYTES / 4
        return self._width(t)

    def _kept(self, t: Target) -> float:
        """Bytes of the models and scores of a target's fits."""
        if not t.spec.keep:
            return 0.0
        recipe = protocol.recipe(protocol.load(t.args.protocol), t.spec.setting, t.spec.method)
        width = 0 if recipe["method"]["reads"] in ("texts", "latents") else self._width(t)
        return effort.kept_bytes(recipe, self._rows(t.item).n, width)


def _layer(site: str) -> int:
    return int(site.partition(".")[2] or 0)
