"""An experiment as Python sees it: what its config asks for and the cache holds. Nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actprobe import config as configuration
from actprobe.base.errors import ActprobeError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Target
from actprobe.config import Config, nearest
from actprobe.experiment import targets as experiment
from actprobe.face import fits
from actprobe.face.origin import Origin, of_target

if TYPE_CHECKING:
    from actprobe.face.found import Activations, Features, Latents
    from actprobe.face.probe import Probe

DEFAULT = "config/config.yaml"


def load(config: str | Path | Mapping[str, Any] = DEFAULT, **changes: Any) -> Run:
    """The experiment of a config file (or mapping), as seen from the folder in which snakemake runs.

    changes: keys of the config to set, as after `--config`. Datasets that have no artefact yet are read,
    as for a plan; nothing is computed or written. Raises ConfigError for what the config gets wrong.

    >>> run = actprobe.load("config/config.yaml")
    >>> run.table("probes")
    """
    given = isinstance(config, Mapping)
    raw = dict(config) if given else configuration.load_file(config)  # type: ignore[arg-type]
    return Run(configuration.resolve({**raw, **changes}), None if given else Path(str(config)))


class Run:
    """An experiment. config: resolved; file: where it stands, for the commands that messages name."""

    def __init__(self, config: Config, file: Path | None = None) -> None:
        self.config, self.file = config, file

    @cached_property
    def known(self) -> dict[str, list[Target]]:
        """All targets of the config by stage."""
        memo = DigestMemo(self.config["cache_dir"])
        return experiment.stages(self.config, memo)

    @cached_property
    def _of_path(self) -> dict[str, Target]:
        return {t.path: t for ts in self.known.values() for t in ts}

    def command(self, *what: str) -> str:
        """The command that makes something."""
        config = "" if self.file in (None, Path(DEFAULT)) else f" --configfile {self.file}"
        return " ".join(["snakemake --cores 2", *what]) + config

    # Tables ---------------------------------------------------------------------------------------

    @property
    def tables(self) -> list[str]:
        """Names of the tables that are written."""
        return sorted(p.stem for p in self._tables_folder.glob("*.csv"))

    @property
    def _tables_folder(self) -> Path:
        return Path(self.config["results_dir"], self.config["experiment"], "tables")

    def table(self, name: str) -> pd.DataFrame:
        """A table of the results by its name (`run.tables`); docs/tables.md says what is in it."""
        parquet, csv = (self._tables_folder / f"{name}.{ext}" for ext in ("parquet", "csv"))
        if parquet.is_file():
            return pd.read_parquet(parquet)
        if csv.is_file():
            from actprobe.results import csvs

            return csvs.read(csv)
        hint = f"{nearest(name, self.tables)} " if self.tables else ""
        raise ActprobeError(f"{csv} is not there; {hint}Make it: {self.command('tables')}")

    # Matrices -------------------------------------------------------------------------------------

    def texts(self, dataset: str) -> pd.DataFrame:
        """The rows of a dataset: id, text, label (name of the class, or value; None without one), group,
        split, pair, and messages of chats."""
        from actprobe.face.found_texts import frame

        return frame(self._there("texts", dataset, {"item": dataset}).path)

    def activations(self, dataset: str, source: str) -> Activations:
        """Activations of a dataset, by their source: `MODEL/SITE.POSITION`, or a name of `arrays`."""
        from actprobe.face.found import Activations

        t = self._there(
            "activations", f"{source} of {dataset}", {"source": source, "item": dataset}
        )
        return Activations(t.path, self._origin(t), self.texts(dataset))

    def latents(self, dataset: str, sae: str) -> Latents:
        """Latents of an SAE on a dataset."""
        from actprobe.face.found import Latents

        t = self._there("latents", f"{sae} of {dataset}", {"source": sae, "item": dataset})
        return Latents(t.path, self._origin(t), self.texts(dataset))

    def features(self, collection: str, representation: str) -> Features:
        """A representation of the LoRAs of a collection."""
        from actprobe import lora
        from actprobe.face.found import Features

        place = {"collection": collection, "representation": representation}
        t = self._there("features", f"{representation} of {collection}", place)
        ids = lora.load(t.path).id
        origin = Origin(f"{collection}/{representation}", "features")
        return Features(t.path, origin, pd.DataFrame({"id": ids, "label": None}))

    def _origin(self, t: Target) -> Origin:
        return of_target(t, self.config, self._of_path)

    def _there(self, stage: str, what: str, place: Mapping[str, str]) -> Target:
        """The target of a place whose artefact is there."""
        own = self.known.get(stage, [])
        found = [t for t in own if all(_value(t, k) == v for k, v in place.items())]
        if not found:
            names = {"/".join(str(_value(t, k)) for k in place): t for t in own}
            wanted = "/".join(place.values())
            raise ActprobeError(
                f"no {stage} of {what}: the config asks for none such; {nearest(wanted, names)} "
                f"(actprobe show lists all)"
            )
        if not Path(found[0].path).is_file():
            raise ActprobeError(
                f"{what} is not computed yet: {found[0].path}; make it: {self.command(stage)}"
            )
        return found[0]

    # Probes ---------------------------------------------------------------------------------------

    def probe(self, dataset: str, source: str, method: str, **which: Any) -> Probe:
        """The fit of a method on a dataset and source.

        which: what tells several apart: protocol, setting, seed, condition, k, label, columns, test_set.
        Raises ActprobeError listing the choices where there is more than one, and for a fit that is not
        there or that kept no model (`keep` of its entry in `probes`).

        >>> run.probe("spam", "smollm2/resid_post.15.mean", "logreg", protocol="actprobe-1", seed=0)
        """
        wanted = {"dataset": dataset, "source": source, "method": method, **which}
        t, row = fits.one(self.known.get("probes", []), wanted, self.command("probes"))
        return self._probe(t, row)

    def probes(self, **which: Any) -> list[Probe]:
        """All fits that kept a model; which: patterns of dataset, source, method, protocol, …"""
        return [self._probe(t, row) for t, row in fits.kept(self.known.get("probes", []), which)]

    def _probe(self, t: Target, row: Mapping[str, Any]) -> Probe:
        from actprobe.face.probe import Probe

        scorer = fits.scorer(t, row)
        origin = Origin(str(t.args["source"]), str(scorer.about["reads"]))
        matrix = self._of_path.get(t.args.get("matrix", ""))
        if matrix is not None:
            origin = replace(self._origin(matrix), reads=origin.reads)
        encode = None
        if origin.sae is not None and matrix is not None:
            from functools import partial

            from actprobe.face.encoding import encode as through_sae

            encode = partial(through_sae, matrix, self.config)
        card = fits.card(t, row, origin, scorer)
        return Probe(scorer, card, fits.scores(t, row), self.config, encode)

    def scores(self, **which: Any) -> pd.DataFrame:
        """Scores of all rows of the kept fits; which: as of `probes`. Columns as in scores.parquet."""
        from actprobe import lora
        from actprobe.results import rows

        chosen = fits.files(self.known.get("probes", []), which)
        of = {s: [t.path for t in self.known.get(s, [])] for s in ("texts", "features")}
        there = {s: [p for p in paths if Path(p).is_file()] for s, paths in of.items()}
        known = rows.Collections(there["texts"], lora.telling(there["features"]))
        rules = {t.path: t.args["threshold"] for t in chosen}
        return rows.scores(rows.frames(rules, known, self.config["experiment"]))

    def evaluations(self, **which: Any) -> pd.DataFrame:
        """Numbers of fits on collections that they were not fitted on, and on their own test rows.

        which: patterns of columns (dataset, collection, source, method, …).
        """
        from actprobe.results import transfer

        own = self.known.get("evaluations", [])
        table = transfer.collect(t.path for t in own if Path(t.path).is_file())
        if table.empty:
            asked = bool(own)
            why = (
                f"make them: {self.command('evaluations')}" if asked else "`apply_to` asks for them"
            )
            raise ActprobeError(f"no evaluations are there; {why}")
        return fits.matching_rows(table, which)

    def show(self, patterns: Sequence[str] = ("*",)) -> pd.DataFrame:
        """What is cached: stage, name, path, bytes and key of each file whose name matches."""
        from actprobe.face.show import listing

        return listing(self.known, patterns)


def _value(t: Target, name: str) -> Any:
    return t.item if name == "item" else t.args.get(name)
