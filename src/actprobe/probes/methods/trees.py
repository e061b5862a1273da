"""Decision trees, single and boosted."""

from __future__ import annotations

from typing import Any

from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from actprobe.probes.keep import fold
from actprobe.probes.kinds import BINARY, CONTINUOUS
from actprobe.probes.methods import How, Params, Shape, method
from actprobe.probes.methods.grids import draws, python_choice, values


@method("xgboost", grid=draws(python_choice), keep=fold.boosted)
def xgboost(how: How, params: Params, seed: int) -> Any:
    from xgboost import XGBClassifier, XGBRegressor

    loss = {BINARY: "logloss", CONTINUOUS: "rmse"}.get(how["kind"], "mlogloss")
    fixed = {"eval_metric": loss, "random_state": seed, "n_jobs": 1}
    kind = XGBRegressor if how["kind"] == CONTINUOUS else XGBClassifier
    return kind(**how.get("solver", {}), **params, **fixed)


def _depths(how: How, shape: Shape, seed: int) -> list[Params]:
    return [{"max_depth": d} for d in values(how["depth"])]


@method("tree", grid=_depths, keep=fold.tree)
def tree(how: How, params: Params, seed: int) -> Any:
    """A single tree (Breiman et al. 1984)."""
    kind = DecisionTreeRegressor if how["kind"] == CONTINUOUS else DecisionTreeClassifier
    return kind(**params, random_state=seed)
