"""What decides an SAE and its latents, and where a job finds them: specs and args of both stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actprobe.cache.plan import Record, Target
from actprobe.files import hub

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Test = tuple[str, str]  # protocol and setting, as in `probes.tested`


@dataclass(frozen=True, kw_only=True)
class FilesIdentity(Record):
    """A local SAE: the digest of its files, or the name that the config gives its weights.

    named: fields of `Sae` that names of folders decide, where they are not the usual ones.
    """

    files: str | None = None
    revision: str | None = None
    named: Mapping[str, float | bool] | None = None
    format: str


@dataclass(frozen=True, kw_only=True)
class HubIdentity(Record):
    """An SAE of the hub: its commit and folder, and the weights file where that may hold several."""

    hub: str
    revision: str
    folder: str
    file: str | None = None
    format: str


@dataclass(frozen=True, kw_only=True)
class MadeIdentity(Record):
    """An SAE that is made here: the key of its artefact."""

    key: str


@dataclass(frozen=True, kw_only=True)
class LocalPlace(Record):
    """A folder or file on this machine."""

    path: str
    format: str


@dataclass(frozen=True, kw_only=True)
class HubPlace(hub.Place):
    """A folder of a commit of the hub, or the weights file in it."""

    format: str
    folder: str
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class MadePlace(Record):
    """An SAE that is made here."""

    artefact: str


Published = FilesIdentity | HubIdentity
Identity = Published | MadeIdentity
Place = LocalPlace | HubPlace | MadePlace


@dataclass(frozen=True, kw_only=True)
class LatentSpec(Record):
    """What decides the latents; activations: the key."""

    sae: Identity
    activations: str
    fold_decoder_norm: bool
    product: str


@dataclass(frozen=True, kw_only=True)
class LatentArgs(Record):
    """Names as of activations (`source` is the SAE), the path of the activations, and the SAE's place.

    extracted: the activations were read from a model here.
    """

    source: str
    model: str
    site: str
    position: str
    activations: str
    sae: Place
    extracted: bool


@dataclass(frozen=True, kw_only=True)
class ConvertSpec(Record):
    """A published SAE whose file cannot be read in place."""

    source: Published


@dataclass(frozen=True, kw_only=True)
class ConvertArgs(Record):
    """Where the published SAE is."""

    place: LocalPlace | HubPlace


@dataclass(frozen=True, kw_only=True)
class Training(Record):
    """How an SAE is trained: `saes.NAME.train` of the config, whose reference explains each."""

    width: int
    k: int
    rows: str
    epochs: float
    batch_size: int
    learning_rate: float
    aux_k: int | None
    aux_weight: float
    dead_after: int
    holdout: float
    patience: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Untested(Record):
    """What decides the untested rows: for each dataset its content, and the digests of its tests.

    Names of datasets are not here: an SAE is found again under others.
    """

    texts: tuple[str | None, ...]
    tests: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class TrainSpec(Record):
    """What decides a trained SAE; tokens: the keys of the activations."""

    train: Training
    tokens: tuple[str, ...]
    untested: Untested | None = None


@dataclass(frozen=True, kw_only=True)
class TrainArgs(Record):
    """For each dataset the path of its tokens, of its texts (None: not known) and what tests on it.

    hook: the site in TransformerLens words.
    """

    tokens: tuple[str, ...]
    texts: tuple[str | None, ...]
    tests: tuple[tuple[Test, ...], ...]
    hook: str


LatentTarget = Target[LatentSpec, LatentArgs]
ConvertTarget = Target[ConvertSpec, ConvertArgs]
TrainTarget = Target[TrainSpec, TrainArgs]
SaeTarget = ConvertTarget | TrainTarget


def is_trained(t: Target) -> TypeIs[TrainTarget]:
    """Whether a target is an SAE that is trained here."""
    return isinstance(t.spec, TrainSpec)
