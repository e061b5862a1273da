"""Sending results to Weights & Biases: a finished experiment at once, or a workflow as it goes.

Both need the config section `wandb` (entity, project, mode). Offline runs lie in
`{results_dir}/{experiment}/wandb` until `wandb sync` sends them.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.cache.plan import Plan
from actprobe.config import Config
from actprobe.dumps.secrets import keep_out_of_logs, redact
from actprobe.report import finished

log = logging.getLogger(__name__)

_ROWS = 10_000  # of a table that can be browsed on the service; files are sent whole


def _begin(config: Config, kind: str) -> Any:
    """A new run of the config's experiment. Raises ActprobeError when it cannot be begun."""
    import wandb

    keep_out_of_logs()
    folder = Path(config.results_dir, config.experiment)
    folder.mkdir(parents=True, exist_ok=True)
    settings = config.wandb
    # Nothing about the machine, the code or the command line is sent.
    quiet = wandb.Settings(
        console="off",
        disable_git=True,
        finish_timeout=60,
        save_code=False,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            name=config.experiment,
            job_type=kind,
            mode=settings.mode,
            dir=str(folder),
            config=config.model_dump(exclude={"wandb"}),
            settings=quiet,
        )
    except (wandb.errors.Error, OSError, TimeoutError) as e:
        raise ActprobeError(
            f"Weights & Biases: no run could be begun: {redact(str(e))[:500]}"
        ) from None


def export_wandb(config: Config, artefacts: Iterable[str | Path] = ()) -> str:
    """Log tables, figures and report of the config's experiment to a new run; returns its path.

    The results go to the run's page and, as they are, into an artifact of type `results`;
    `artefacts` (cached files) go into one of type `artefacts`. Raises ActprobeError when there are
    no results.
    """
    import pandas as pd
    import wandb

    name = config.experiment
    folder = finished.folder(config)
    files = finished.files(config)
    if not files:
        raise ActprobeError(f"{folder}: there are no results to export")
    run = _begin(config, "export")
    shown: dict[str, Any] = {}
    for f in files:
        key = f.relative_to(folder).with_suffix("").as_posix()
        if f.suffix == ".csv":
            with contextlib.suppress(pd.errors.EmptyDataError):  # a table without any column
                shown[key] = _browsable(f)
        elif f.suffix == ".png":
            shown[key] = wandb.Image(str(f))
        elif f.suffix == ".html":
            shown[key] = wandb.Html(str(f))
    run.log(shown)
    _log_artifact(run, f"{name}-results", "results", {f.relative_to(folder): f for f in files})
    cached = {Path(f).relative_to(config.cache_dir): Path(f) for f in artefacts}
    if cached:
        _log_artifact(run, f"{name}-artefacts", "artefacts", cached)
    run.finish()
    return f"{run.entity}/{run.project}/{run.id}" if run.entity else str(Path(run.dir).parent)


def _browsable(path: Path) -> Any:
    """A table as it can be browsed on the service: text and numbers as they are in the file."""
    import pandas as pd
    import wandb

    rows = pd.read_csv(path, nrows=_ROWS, dtype="str", keep_default_na=False)
    numbers = {c: pd.to_numeric(rows[c].replace("", None), errors="coerce") for c in rows}
    whole = [c for c in rows if numbers[c].notna().eq(rows[c] != "").all()]
    return wandb.Table(dataframe=rows.assign(**{c: numbers[c] for c in whole}).astype(object))


def _log_artifact(run: Any, name: str, kind: str, files: Mapping[Path, Path]) -> None:
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for inside, f in files.items():
        artifact.add_file(str(f), name=inside.as_posix(), policy="immutable", skip_cache=True)
    run.log_artifact(artifact)


class Follower:
    """Watches the files that a plan is to make and logs how many are there, and their scores.

    It runs in a thread of the main process; the jobs know nothing of it. A service that fails
    costs the log, never the run.
    """

    def __init__(self, plan: Plan, every: float = 15.0):
        self._waiting = {p: plan.targets[p].stage for p in plan.pending}
        self._run = _begin(plan.config, "workflow")
        self._done: Counter[str] = Counter()
        self._all = Counter(self._waiting.values())
        self._every, self._over = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        atexit.register(self.finish)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.look()

    def look(self) -> None:
        """Log what has been published since the last look."""
        arrived = [p for p in self._waiting if Path(p).exists()]
        metrics: dict[str, Any] = {}
        for path in arrived:
            stage = self._waiting.pop(path)
            self._done[stage] += 1
            metrics[f"progress/{stage}"] = self._done[stage] / self._all[stage]
            if stage == "probes":
                metrics |= _scores(path)
        if metrics:
            self._run.log(metrics)

    def finish(self) -> None:
        """Log the rest and end the run; again does nothing."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self.look()
            self._run.finish()


def _scores(path: str) -> dict[str, float]:
    """Mean test score of a probes artefact under `test_{metric}/{source}/{dataset}.{method}`; behind a
    dataset with one-versus-rest labels stands the label."""
    columns = ["dataset", "label", "source", "method", "metric", "test_score"]
    try:
        table = store.read_table(path, columns).to_pandas()
    except (BadInput, Damaged):
        return {}
    label = ("." + table["label"]).where(table["label"] != "", "")
    names = table["source"] + "/" + table["dataset"] + label + "." + table["method"]
    means = table["test_score"].groupby("test_" + table["metric"] + "/" + names).mean().dropna()
    return {str(name): float(value) for name, value in means.items()}


def follow(plan: Plan) -> Follower | None:
    """Follow a run of this plan on the service when `wandb.enabled` says so and there is work.

    When the service cannot be reached, the log says so and the run goes on without it.
    """
    if not plan.config.wandb.enabled or not plan.pending:
        return None
    try:
        return Follower(plan)
    except ActprobeError as e:
        log.warning("%s; the run is not followed", e)
        return None
