"""A loaded model and what a job does with it besides passing batches through."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import Damaged
from actprobe.cache import store
from actprobe.models import adapters, families, load, quantised
from actprobe.models.batches import cheapest_budget
from actprobe.models.located import located
from actprobe.models.reading import Reading, reading
from actprobe.models.records import ActivationTarget
from actprobe.models.trial import trial

log = logging.getLogger(__name__)

_BUDGETS = {"cpu": 1024, "mps": 2048}  # tokens per batch when the config gives none
# What a pass costs besides its tokens, in tokens. On a CPU weights are read anew and products are small
# (`benchmarks/sharing`). A GPU reads all weights in the time in which it computes 150 (A100) to 300
# (H100) tokens in bfloat16, by the peak rates that are published, and a small model waits for launches.
_PASS = {"cpu": 64, "mps": 64, "cuda": 512}
_D_MODEL = 4096  # of a config that does not say it
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass
class Session:
    """A loaded model.

    settings: the model's entry in the config; widths: d of each site; budget: most tokens per
    batch; used: batches were computed; checked: the self-check was made.
    """

    name: str
    settings: Mapping[str, Any]
    model: load.Model
    widths: Mapping[str, int]
    budget: int
    used: bool = False
    checked: bool = False

    @property
    def per_pass(self) -> int:
        """What a pass costs besides its tokens, in tokens."""
        return _PASS[self.model.device.type]

    def budget_for(self, lengths: np.ndarray) -> int:
        """Tokens per batch of a dataset with rows of these lengths.

        A GPU's memory holds batches of whole datasets, where half of the tokens would be padding:
        without a budget in the config, the one that costs least.
        """
        if self.model.device.type != "cuda" or self.settings["max_tokens_per_batch"]:
            return self.budget
        return cheapest_budget(lengths, self.budget, self.per_pass)

    def facts(self) -> dict[str, str]:
        """What rounding depends on, besides the spec: a part is resumed only where these agree."""
        return {
            **rounding(self.model.config.to_dict(), self.settings, self.model.device),
            "device": _device_kind(self.model.device),
            "attention": self.model.attention,
        }


def rounding(
    described: Mapping[str, Any], settings: Mapping[str, Any], device: torch.device
) -> dict[str, str]:
    """Versions of libraries, and what else decides how a model's numbers are rounded on a device."""
    import tokenizers
    import transformers

    how = quantised.method(described, settings)
    return {
        **({"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}),
        **({"peft": version("peft")} if adapters.given(settings) else {}),
        **({"quantization": how} if how else {}),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


@dataclass(frozen=True)
class Described:
    """A model as its files describe it, its weights not loaded yet.

    adapters: that are put onto it; sites: those that are wanted; reading: how it reads texts.
    """

    name: str
    settings: Mapping[str, Any]
    adapters: Sequence[adapters.Adapter]
    sites: Sequence[str]
    reading: Reading


class Models:
    """The models of a job, which have their weights in common, adapters aside (`targets.loaders`).

    All are described before weights are loaded, with everything checked that needs none. Weights are
    loaded once, as far as any of the targets needs them.
    """

    def __init__(
        self, models: Mapping[str, Mapping[str, Any]], targets: Sequence[ActivationTarget]
    ):
        self._models, self._targets = models, targets
        self._open = contextlib.ExitStack()
        self._described: dict[str, Described] = {}
        self._base: load.Base | None = None
        names = list(dict.fromkeys(t.args.model for t in targets))
        self._first, self._several = names[0], len(names) > 1

    def __enter__(self) -> Models:
        try:
            place = self._targets[0].args.place
            self._where = self._open.enter_context(located(place, self._first))
            self._config = load.load_config(self._where, self._first, self._models[self._first])
            self._tokenizer = load.load_tokenizer(self._where, self._first)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def described(self, name: str) -> Described:
        """The model of this name. Raises ConfigError or ActprobeError for one that cannot be used."""
        if name not in self._described:
            self._described[name] = self._describe(name)
        return self._described[name]

    def _describe(self, name: str) -> Described:
        settings, config = self._models[name], self._config
        own = [t for t in self._targets if t.args.model == name]
        sites = list(dict.fromkeys(t.args.site for t in own))
        load.check_sites(config, sites, name)
        load.check_prefix(config, settings, name)
        quantised.check(config, settings, name, load.pick_device)
        scratch = self._open.enter_context(tempfile.TemporaryDirectory(prefix="actprobe-adapters-"))
        found = adapters.gathered(own[0].args.place, Path(scratch))
        adapters.check(config, found, name, self._where.trusted)
        how = reading(self._tokenizer, config, name, settings)
        return Described(name, settings, found, sites, how)

    @contextlib.contextmanager
    def session(self, name: str) -> Iterator[Session]:
        """The model, loaded and with its adapters, for the length of the block."""
        started, found = time.monotonic(), self.described(name)
        settings = found.settings
        if self._base is None:
            sites = list(dict.fromkeys(t.args.site for t in self._targets))
            self._base = load.load_model(
                self._where, self._first, self._models[self._first], self._config, sites
            )
            _keep_freed_memory()
        merged = settings["merge_adapters"]
        with adapters.worn(
            self._base.module, found.adapters, merged, name, keep=self._several
        ) as module:
            model = load.pointed(self._base, module, settings, found.sites)
            budget = settings["max_tokens_per_batch"] or _default_budget(model)
            model, widths = trial(model, name)
            shown = (name, time.monotonic() - started, model.device, settings["dtype"], budget)
            log.info("%s: loaded in %.1f s on %s, %s, up to %d tokens per batch", *shown)
            session = Session(name, settings, model, widths, budget)
            _warn_of_others(session, [t for t in self._targets if t.args.model == name])
            yield session


def _warn_of_others(session: Session, targets: Sequence[ActivationTarget]) -> None:
    """Say so when what lies beside these targets was made with other libraries or on another
    device: it stays valid (`docs/design.md`), but one experiment may now read both."""
    now = {k: v for k, v in session.facts().items() if k != "threads"}  # a matter of rounding
    others: Counter[str] = Counter()
    for folder in {Path(t.path).parent for t in targets}:
        for path in folder.glob("*.h5"):
            with contextlib.suppress(Damaged, OSError):
                then = store.read_header(path)["facts"]
                others.update(f"{k} {then[k]}" for k in now if then.get(k, now[k]) != now[k])
    if others:
        found = ", ".join(f"{what} ({n} files)" for what, n in sorted(others.items()))
        here = ", ".join(f"{k} {now[k]}" for k in dict.fromkeys(o.split()[0] for o in others))
        log.warning(
            "%s: activations in the cache were made with %s, here it is %s; values may differ",
            session.name, found, here,
        )  # fmt: skip


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that one layer frees for the next one.

    It would give blocks of a few MB back to the system at once, and take every activation anew, at
    a fault per page: an eighth of the CPU time of a pass. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for threshold in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(threshold, 1 << 30)


def _default_budget(model: load.Model) -> int:
    """Tokens per batch: fixed on cpu and mps, on cuda a power of two that fits free memory.

    A layer's working set per token is taken as 8 d + 3 MLP widths of float32, in half of it.
    """
    if model.device.type != "cuda":
        return _BUDGETS[model.device.type]
    free, _ = torch.cuda.mem_get_info(model.device)
    config = model.config.to_dict()
    d = families.d_model(config) or _D_MODEL
    wide = families.number(families.text_config(config), "intermediate_size") or 4 * d
    fits = free // 2 // (4 * (8 * d + 3 * wide))
    return min(max(1 << (fits | 1).bit_length() - 1, 1024), 1 << 16)


def _device_kind(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
