"""Matrices of a run with what belongs to them: ids, labels, and where the numbers come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actprobe.cache import store
from actprobe.face.origin import Origin
from actprobe.models.artefact import bf16_to_float32

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

    from actprobe.probes.tokens import Ragged


@dataclass(frozen=True)
class Found:
    """A matrix of a run.

    path: its artefact; origin: where the numbers come from; texts: the collection's rows, in the order
    of the matrix (`id`, `label`, …).
    """

    path: str
    origin: Origin
    texts: pd.DataFrame

    @property
    def ids(self) -> NDArray[Any]:
        """Ids of the rows, object [N]."""
        return self.texts["id"].to_numpy(object)

    @property
    def labels(self) -> NDArray[Any]:
        """Names of classes, or values; None or NaN of a row without one, [N]."""
        return self.texts["label"].to_numpy()

    def rows(self) -> Any:
        """What a probe reads."""
        raise NotImplementedError


@dataclass(frozen=True)
class Activations(Found):
    """Activations of a dataset at one site and position."""

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """[N, d], or [T, d] of all tokens: mapped read-only where the store holds float32 or float16, a
        float32 copy of what it holds as bfloat16."""
        with store.open_h5(self.path) as f:
            stored = f["x"]
            if stored.attrs.get("dtype") == "bfloat16":
                return bf16_to_float32(stored[:])
            return _mapped(self.path, stored)

    @cached_property
    def offsets(self) -> NDArray[np.int64] | None:
        """Of position `tokens` [N + 1]: row i is x[offsets[i]:offsets[i + 1]]; else None."""
        with store.open_h5(self.path) as f:
            return f["offsets"][:] if "offsets" in f else None

    def rows(self) -> NDArray[np.float32] | Ragged:
        """float32 [N, d], or the tokens of each row."""
        x = np.asarray(self.x, np.float32)
        if self.offsets is None:
            return x
        from actprobe.probes.tokens import Ragged

        return Ragged(x, self.offsets)


@dataclass(frozen=True)
class Latents(Found):
    """Latents of an SAE on a dataset."""

    @cached_property
    def x(self) -> csr_array:
        """scipy CSR [N, width] float32."""
        return self.rows().to_scipy()

    def rows(self) -> Any:
        """`sae.Latents`."""
        from actprobe import sae

        return sae.open_latents(self.path)


@dataclass(frozen=True)
class Features(Found):
    """A representation of the LoRAs of a collection; `texts` has their ids alone."""

    columns: tuple[str, ...] = ()

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """float32 [N, p]."""
        return self.features.x

    @cached_property
    def features(self) -> Any:
        """`lora.Features`: with the unit of each column, and the mask of what each LoRA has."""
        from actprobe import lora

        return lora.load(self.path)

    def rows(self) -> Any:
        return self.features


def _mapped(path: str, stored: h5py.Dataset) -> NDArray[Any]:
    """A contiguous dataset of a file as a map of its bytes."""
    offset = stored.id.get_offset()
    if offset is None or not stored.size:
        return stored[:]
    return np.memmap(path, stored.dtype, "r", offset, stored.shape)
