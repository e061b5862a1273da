"""Every architecture of the installed transformers, built tiny and read: `python run.py [MODEL_TYPE …]`.

Each runs in a child process of its own, so that a crash or a hang of one ends only itself. Results go
to `results.csv` as they come; those that stand there are not computed again, unless they are named
on the command line or `--again` is given. `results.md` is written from them at the end.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tiny
import torch
import transformers
from check import CRASHED, Result, check
from report import write
from transformers import BertModel, LlamaModel, MixtralModel, T5Model  # noqa: F401  (shared by children)

HERE = Path(__file__).parent
COLUMNS = ["model_type", "outcome", "where", "class_name", "layers", "sites", "own_states", "sums",
           "ways", "worst", "reason", "seconds"]  # fmt: skip
SECONDS = 120  # for one architecture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_types", nargs="*")
    parser.add_argument("--again", action="store_true", help="compute all of them again")
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    known = {} if asked.again else _known(asked.results)
    todo = asked.model_types or [t for t in tiny.model_types() if t not in known]
    if len(todo) > 1:
        with tempfile.TemporaryDirectory() as folder:
            check("llama", Path(folder))  # what this imports and remembers need not be made again
    for model_type in todo:
        known[model_type] = _in_child(model_type)
        _save(asked.results, known)
        said = (known[model_type][k] for k in ("model_type", "outcome", "where", "reason"))
        print(" | ".join(said)[:200].replace("\n", " "), flush=True)
    write(list(known.values()), asked.results.with_suffix(".md"))


def _known(path: Path) -> dict[str, dict]:
    if not path.exists():
        return {}
    with path.open(newline="") as f:
        return {row["model_type"]: row for row in csv.DictReader(f)}


def _save(path: Path, known: dict[str, dict]) -> None:
    with path.with_suffix(".new").open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(known[t] for t in sorted(known))
    path.with_suffix(".new").replace(path)


def _in_child(model_type: str) -> dict:
    """The result of one architecture, computed in a forked process with a time limit."""
    reading, writing = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        with tempfile.TemporaryDirectory() as folder:
            found = check(model_type, Path(folder))
        with os.fdopen(writing, "w", newline="") as f:
            csv.DictWriter(f, COLUMNS, extrasaction="ignore").writerow(asdict(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, newline="") as f:
        row = next(csv.DictReader(f, COLUMNS), None)
    _, status = os.waitpid(pid, 0)
    if row is None:
        took = "was still running" if status == signal.SIGALRM else f"ended with status {status}"
        row = asdict(Result(model_type, CRASHED, reason=f"the process {took}"))
    return {**row, "seconds": f"{time.monotonic() - started:.1f}"}


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
