"""What a row of the table of results is: the columns that every table has, and what each means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from actprobe.config import Strict
from actprobe.config.kinds import Text

Count = Annotated[int, Field(ge=0)] | None
Fraction = Annotated[float, Field(ge=0, le=1.000000001)] | None  # with the rounding of a mean
Score = float | None


class Row(Strict):
    """One row of tables/probes.csv and tables/probes.parquet: one fitted probe.

    In the CSV file an empty field stands for null in number columns, and text that a spreadsheet would
    take for a formula (it begins with =, +, - or @ and is no number) has an apostrophe before it. Behind
    `ci_high` stands a column `test_{name}` for every registered metric. More columns may follow these.
    """

    model_config = ConfigDict(extra="allow")

    experiment: str
    """Name of the experiment in the config that the row was collected for."""
    protocol: Text
    """Name of the recipe of splits, probes, grids and metrics."""
    setting: Text
    """Setting of the protocol (normal, scarcity, imbalance, noise, ood, …)."""
    condition: str
    """The setting's condition (train size, ratio, rate); empty where there is one only."""
    dataset: Text
    """Name of the dataset."""
    label: str
    """The class that was told from all others, of a dataset whose classes are tasks of their own
    (one-versus-rest); empty otherwise. In means over datasets the labels of a dataset are averaged
    first.
    """
    model: str
    """Name of the model that was read; empty where there is none."""
    site: str
    """Where the model was read, in TransformerLens words (resid_post.3); of features the module
    that was read alone.
    """
    position: str
    """Which tokens became one vector (last, mean, …)."""
    source: Text
    """What the probe read, an activation source or an SAE's name."""
    columns: str
    """Of features, which columns were read: a pattern of module names, or `each` where the module
    that `site` names was read alone. Empty for other sources.
    """
    method: Text
    """Kind of probe."""
    k: Count
    """Number of latents that an SAE probe reads; null for probes of all dimensions."""
    seed: int | None
    """Seed of split and fit."""
    n_train: Count
    """Rows trained on, validation rows included."""
    n_validation: Count
    """Rows of the split that validated; null where train rows did."""
    n_test: Count
    """Rows tested on."""
    n_unused: Count
    """Labelled rows of the dataset that the protocol left out, because it takes only so many."""
    n_columns: Count
    """Columns that were read; null but for features."""
    n_constant: Count
    """Columns among these that are constant on the train rows; null but for features."""
    n_repeated: Count
    """Columns among these that repeat another one of their unit; null but for features."""
    kind: Literal["binary", "multiclass", "continuous"]
    """Kind of the label: two classes (binary), several (multiclass), or values (continuous)."""
    metric: Text
    """Name of the metric that val_score, test_score, their interval and test_score_unseen are
    values of: the main one of the label kind. Scores of two metrics are never averaged or compared.
    """
    train_score: Score
    """Score on the train rows; null where the split has no validation rows of its own."""
    val_score: Score
    """Score on the validation rows, by which the hyperparameters were chosen."""
    test_score: Score
    """Score on the test rows; null when `reason` says why."""
    ci_low: Score
    """Lower bound of the interval of the test score, over test rows (those of one text, group or
    pair count as one). In benchmarks/calibration that of an AUC held the true one as often as its
    level says, and more often with fewer than 20 rows of a class or an AUC above 0.95. Null where a
    class has one row.
    """
    ci_high: Score
    """Upper bound of the same interval."""
    converged: bool | None
    """False when the solver stopped at its iteration limit; true where none iterates; null without
    a fit, or where that is not known.
    """
    leak_fraction: Fraction
    """Share of test rows whose exact text is also a training row's."""
    group_fraction: Fraction
    """Share of test rows whose group or pair also has training rows; null for datasets without
    either.
    """
    test_score_unseen: Score
    """Test score without the rows whose text, group or pair also trains."""
    chance: Fraction
    """Accuracy on the test rows of always saying the commonest class of the training rows; null for
    continuous labels.
    """
    outliers: str
    """JSON list of the items most of whose values lie far outside of all others and were cut; of
    features.
    """
    classes: str
    """JSON list of the classes' names; empty for values."""
    confusion: str
    """JSON list of the cells of the confusion matrix that are not 0, each as true class, predicted
    class (places in `classes`) and rows; empty for values.
    """
    reason: str
    """Why there is no number; empty when there is one."""
    params: str
    """The chosen hyperparameters as JSON."""
    key: str
    """Key of the cached artefact that the row was collected from."""

    @model_validator(mode="after")
    def _scores_are_numbers(self) -> Row:
        for name, value in (self.model_extra or {}).items():
            if name.startswith("test_") and not isinstance(value, float | int | None):
                raise ValueError(f"{name}: {value!r} is no score")
        return self
