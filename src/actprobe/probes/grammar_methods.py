"""What a method of a protocol may say, and what its family and what it reads ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from actprobe.config import OneOf, Strict, absent
from actprobe.config.kinds import KIND, AsBool, AsList, AsMapping

Zero = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Two = Annotated[int, Field(ge=2)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = Literal["binary", "multiclass", "continuous"]
Reads = Literal["activations", "latents", "tokens", "token_latents", "pooled", "texts", "features"]
Ks = Annotated[list[Count], Field(min_length=1)]  # numbers of latents, ascending
Spacing = Annotated[tuple[Real, Real, Count], Field(strict=False)]  # start, stop, number

# Keys that a value of another key asks for, and the values that it allows elsewhere.
_NEEDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("family", "logreg"): ("solver", "C"),
    ("family", "svm"): ("solver", "C"),
    ("family", "ridge"): ("alpha",),
    ("family", "ridge_path"): ("alpha",),
    ("family", "tree"): ("depth",),
    ("family", "lda"): ("solver", "shrinkage"),
    ("family", "pca"): ("solver", "components"),
    ("family", "knn"): ("neighbours",),
    ("family", "xgboost"): ("draws", "space"),
    ("family", "mlp"): ("draws", "space", "solver"),
    ("family", "direction"): ("along",),
    ("family", "attention"): ("learning_rate", "steps", "init", "holdout"),
    ("family", "stopped_mlp"): (
        "hidden", "batch_norm", "dropout", "lr", "weight_decay", "batch_size", "max_epochs", "plateau",
        "patience",
    ),
    ("scaler", "units"): ("constant",),
    ("reads", "latents"): ("ranking", "ks"),
    ("reads", "token_latents"): ("ranking", "ks", "pool"),
}  # fmt: skip
_VECTORS = ("activations", "latents", "tokens", "token_latents", "pooled", "features")
_ONLY: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    **{
        ("family", name): {"reads": _VECTORS}
        for name in ("logreg", "svm", "ridge", "lda", "pca", "knn", "tree", "xgboost", "mlp")
    },
    ("family", "attention"): {"reads": ("tokens",)},
    ("family", "direction"): {"reads": ("activations", "pooled"), "scaler": ("none",)},
    ("family", "text_length"): {"reads": ("texts",), "scaler": ("none",)},
    ("family", "tfidf"): {"reads": ("texts",), "scaler": ("none",)},
    ("family", "ridge_path"): {"reads": ("features",)},
    ("family", "stopped_mlp"): {"reads": ("features",)},
    ("scaler", "units"): {"reads": ("features",)},
    ("ranking_rows", "fit"): {"scaler_rows": ("fit",)},
}


class Spaced(Strict):
    """Evenly spaced values (start, stop, number), of the exponent or plain."""

    one_of: ClassVar[OneOf] = (("logspace",), ("linspace",))

    logspace: Spacing | None = absent()
    linspace: Spacing | None = absent()


Grid = Annotated[AsList[Annotated[list[Any], Field(min_length=1)]] | AsMapping[Spaced], KIND]


class Plateau(Strict):
    """ReduceLROnPlateau on the validation accuracy."""

    factor: AboveZero
    """New rate over old."""
    patience: Count
    """Epochs without a better one."""


class Solver(Strict):
    """Fixed arguments of the estimator."""

    model_config = ConfigDict(extra="allow")

    solver: str | None = absent()


class Space(Strict):
    """A hyperparameter that is drawn."""

    param: str
    values: Grid


class Method(Strict):
    """One probe: what it reads, how columns are scaled, which hyperparameters are tried."""

    family: str
    """logreg, svm, ridge, lda, pca, knn, tree, xgboost, mlp, attention, direction, text_length or
    tfidf; ridge_path and stopped_mlp, which need validation rows of the split's own; or one that a
    file of `extensions` registers.
    """
    options: dict[str, Any] | None = absent()
    """What a family of your own reads."""
    grid: dict[str, Grid] | None = absent()
    """Hyperparameters of a family that has no grid of its own: every combination is tried."""
    alpha: Grid | None = absent()
    """Penalties of ridge, per train row."""
    depth: Grid | None = absent()
    """Depths of a tree."""
    reads: Reads
    """The kind of source: one vector per row, SAE latents, the activations of all tokens (attention
    probes read them as they are, others principal components of each position), the SAE latents of
    all tokens (pooled), activations of one vector per row or of all tokens, averaged (`pooled`),
    the texts themselves, or features in named groups of columns (those of LoRA weights).
    """
    along: Literal["mean_difference", "logreg", "lda"] | None = absent()
    """How a direction is found: the difference of the class means, the weights of a logistic
    regression on rows of unit mean squared norm (`solver` gives its C), or the difference whitened
    by the covariance within classes, shrunk by the rule of Ledoit and Wolf.
    """
    in_domain: Literal[True] | None = absent()
    """Train on the test texts, fold by fold."""
    default: Annotated[AsBool[bool] | AsList[list[Kind]], KIND] | None = absent()
    """Whether it runs when no method is named, or for which label kinds it does."""
    seed: Zero | None = absent()
    """Seed of the solver where it differs."""
    scaler: Literal["none", "standard", "units"]
    """Standardise columns or not; `units` standardises those of each unit by the train rows that
    have it, after values far out are cut.
    """
    constant: AtLeastZero | None = absent()
    """Columns whose standard deviation is at most this share of their mean become 0."""
    warm: bool | None = absent()
    """Every C starts from the weights of the one before."""
    scores: Literal["decision"] | None = absent()
    """With `decision` the scores of several classes are the distances from their planes;
    probabilities if absent.
    """
    hidden: list[Count] | None = absent()
    """Widths of the hidden layers."""
    batch_norm: bool | None = absent()
    """BatchNorm after every hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = absent()
    """Share dropped."""
    lr: AboveZero | None = absent()
    """Learning rate of Adam."""
    weight_decay: AtLeastZero | None = absent()
    """Weight decay of Adam."""
    batch_size: Count | None = absent()
    """Rows per step."""
    max_epochs: Count | None = absent()
    """Most epochs."""
    plateau: Plateau | None = absent()
    patience: Count | None = absent()
    """Epochs without a better one after which training stops."""
    scaler_rows: Literal["fit", "train"] | None = absent()
    """Rows that scaling and projection are fitted on: the rows that are fitted (`fit`), or all
    train rows (`train`, which lets validation rows in).
    """
    labels: Literal["given", "shuffled"] | None = absent()
    """With `shuffled`, a control without signal."""
    project: Literal["mean_difference", "random"] | None = absent()
    """One column only, along the difference of the class means or a random direction."""
    rotate: bool | None = absent()
    """Solve problems with d > n in n coordinates."""
    solver: Solver | None = absent()
    C: Grid | None = absent()
    shrinkage: Grid | None = absent()
    C_rows: Count | None = absent()
    """`C` is meant for so many train rows: with n of them it is C · C_rows / n, so that the penalty
    keeps its weight against the mean loss. C as it is if absent.
    """
    components: Count | None = absent()
    """Most principal components."""
    neighbours: Count | None = absent()
    """Most neighbours."""
    draws: Count | None = absent()
    """Random draws from `space`."""
    space: list[Space] | None = absent()
    """Hyperparameters, drawn in this order."""
    learning_rate: AboveZero | None = absent()
    """Of Adam, for attention."""
    steps: Count | None = absent()
    """Steps over all rows at once."""
    init: AtLeastZero | None = absent()
    """Standard deviation of the first weights."""
    holdout: Share | None = absent()
    """Share of the train rows that chooses the step."""
    refit: Literal["in_order", "permuted"] | None = absent()
    """Order of the rows in the final fit."""
    tiny: dict[str, Any] | None = absent()
    """Hyperparameters of train sets too small to validate."""
    tiny_scores: Literal["scaled", "unscaled"] | None = absent()
    """Test rows of such fits are scored scaled or not."""
    pool: Literal["max", "mean"] | None = absent()
    """One row per text from the latents of its tokens."""
    ranking: Literal["a", "b", "fisher"] | None = absent()
    """How latents are ranked: by the difference of the class means (`a`), after dividing by their
    mean where they fire (`b`), or by Fisher's F (`fisher`, for several classes too).
    """
    ranking_rows: Literal["fit", "train"] | None = absent()
    """Rows that rank latents for the search: the rows that are fitted (`fit`, not with
    `scaler_rows: train`), or all train rows (`train`, which lets validation rows in). Those of the
    final fit are ranked on all train rows. `train` if absent.
    """
    binarise: AtLeastZero | None = absent()
    """Chosen latents of a larger magnitude than this become 1, the others 0 (after ranking and
    pooling).
    """
    ks: Ks | None = absent()

    @classmethod
    def disagreements(cls, value: Mapping[str, Any]) -> Iterator[str]:
        """What a family, and what a method reads, asks of the other keys."""
        said = [(key, value.get(key)) for key in ("family", "reads", "scaler", "ranking_rows")]
        needs = {(k, v): _NEEDS.get((k, v), ()) for k, v in said if isinstance(v, str)}
        if value.get("reads") not in (None, "features"):
            needs["reads", value["reads"]] = (*needs["reads", value["reads"]], "tiny")
        if value.get("reads") == "tokens" and value.get("family") != "attention":
            needs["reads", "tokens"] = (*needs["reads", "tokens"], "components")
        for (key, word), others in needs.items():
            for other in others:
                if other not in value:
                    yield f"{other!r} is missing, which `{key}: {word}` needs"
            for other, known in _ONLY.get((key, word), {}).items():
                if other in value and value[other] not in known:
                    yield (
                        f"`{key}: {word}` needs `{other}: {' or '.join(known)}`, found "
                        f"{value[other]!r}"
                    )
