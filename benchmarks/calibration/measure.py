"""How often intervals hold and false alarms go off, on data whose truth is known.

    python benchmarks/calibration/measure.py NAME [--src FOLDER] [--part WORDS] [--seconds 600]
    python benchmarks/calibration/measure.py --table

NAME is what the rows of results.csv are called ("before", "after"); --src imports another checkout's
`src`. Seeds are fixed. What stands in results.csv under the name is not measured again, so that a run
that was stopped, or ran out of its CPU seconds, goes on. With ACTPROBE_PUBLISHED set, the published
AUCs are one of the populations of datasets. --table prints the Markdown of results.md.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import csv
import math
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
COLUMNS = ["name", "part", "case", "nominal", "measured", "trials", "cpu_s"]
TOLERANCE = 0.02  # the rule: nominal ± 2 points, or the page says what it is


def cases() -> Iterator[tuple[str, str, float, Any]]:
    import claims
    import intervals

    for part, case, measure in intervals.cases():
        yield part, case, 0.95, measure
    yield from claims.cases()


def known(name: str) -> set[tuple[str, str]]:
    if not RESULTS.exists():
        return set()
    with RESULTS.open(newline="") as f:
        return {(r["part"], r["case"]) for r in csv.DictReader(f) if r["name"] == name}


def measure(name: str, part: str, seconds: float) -> None:
    there, begun = known(name), time.process_time()
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        if new:
            out.writeheader()
        for of, case, nominal, run in cases():
            if part not in of or (of, case) in there:
                continue
            if time.process_time() - begun > seconds:
                print(f"{seconds:.0f} CPU seconds are over; the same command goes on")
                return
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value, trials = run()
            took = time.process_time() - start
            row = [name, of, case, nominal, f"{value:.4f}", trials, f"{took:.1f}"]
            out.writerow(dict(zip(COLUMNS, row, strict=True)))
            f.flush()
            print(*row, flush=True)


def table() -> None:
    """Part by part: each case with its nominal value and what was measured under each name."""
    with RESULTS.open(newline="") as f:
        rows = list(csv.DictReader(f))
    names = list(dict.fromkeys(r["name"] for r in rows))
    for part in dict.fromkeys(r["part"] for r in rows):
        print(
            f"\n## {part}\n\n| case | nominal | {' | '.join(names)} |\n|---{'|---' * len(names)}|---|"
        )
        mine = [r for r in rows if r["part"] == part]
        for case in dict.fromkeys(r["case"] for r in mine):
            found = {r["name"]: r for r in mine if r["case"] == case}
            nominal = float(next(iter(found.values()))["nominal"])
            cells = [_cell(found.get(n), nominal) for n in names]
            print(f"| {case} | {_number(nominal)} | {' | '.join(cells)} |")


def _cell(row: dict[str, str] | None, nominal: float) -> str:
    if row is None:
        return ""
    value = float(row["measured"])
    if math.isnan(value):
        return "none"
    return f"**{_number(value)}**" if abs(value - nominal) > TOLERANCE + 1e-9 else _number(value)


def _number(value: float) -> str:
    return f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--src", type=Path)
    parser.add_argument("--part", default="")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        table()
        return
    if not given.name:
        parser.error("NAME is missing")
    if given.src:
        sys.path.insert(0, str(given.src.resolve()))
    measure(given.name, given.part, given.seconds)


if __name__ == "__main__":
    main()
