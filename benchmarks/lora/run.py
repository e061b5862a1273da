"""Features of LoRA weights side by side: CPU seconds (one thread) and peak memory.

    python benchmarks/lora/run.py peers      nine representations: formatter, loops, actprobe
    python benchmarks/lora/run.py cost       actprobe alone: all representations; ranks and numbers

`peers` needs the `datasets` package (5.2.0 was measured) beside actprobe. The formatter's way is
measured on 25 and on 50 LoRAs and scaled to 500: its time goes with the number of matrix rows. Every
way runs in a process of its own, imports included; of three runs of actprobe the fastest counts,
since others use the machine (of 5,000 LoRAs, of the formatter and of the loops there is one run).
Results are printed as Markdown and written to `peers.csv` or `cost.csv`.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import collection

HERE = Path(__file__).resolve().parent
ONE_THREAD = {f"{lib}_NUM_THREADS": "1" for lib in ("OMP", "OPENBLAS", "MKL")}


def measure(*arguments: object) -> dict[str, float]:
    """CPU seconds and peak resident MB of one run of `ways.py`."""
    command = [sys.executable, str(HERE / "ways.py"), *map(str, arguments)]
    environment = {**os.environ, **ONE_THREAD}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": float(printed.split()[-1]),
    }


def fastest(runs_of: int, kind: str, source: Path, cache: Path, *which: str) -> dict[str, float]:
    """The fastest of some runs of actprobe, each with an empty cache; the last one is kept."""
    runs = []
    for _ in range(runs_of):
        shutil.rmtree(cache, ignore_errors=True)
        runs.append(measure(kind, source, cache, *which))
    return min(runs, key=lambda r: r["cpu_s"]) | {"peak_mb": max(r["peak_mb"] for r in runs)}


def peers(folder: Path) -> list[dict]:
    rows = []
    for n in (25, 50):
        collection.write_table(folder / f"table{n}", n, 1)
        found = measure("formatter", folder / f"table{n}", folder / "none")
        rows.append({"way": "torch formatter, per representation", "loras": n, **found})
    collection.write_hdf5(folder / "loras.h5", 500, 1)
    found = measure("loops", folder / "loras.h5", folder / "none")
    rows.append({"way": "loops over LoRAs, HDF5 read once", "loras": 500, **found})
    collection.write_table(folder / "table500", 500, 1)
    found = fastest(3, "tables", folder / "table500", folder / "a")
    rows.append({"way": "actprobe, the same table", "loras": 500, **found})
    collection.write_files(folder / "files", 500, 1)
    found = fastest(3, "files", folder / "files", folder / "b")
    rows.append({"way": "actprobe, safetensors files", "loras": 500, **found})
    for r in rows:
        r["cpu_s_per_500"] = r["cpu_s"] * 500 / r["loras"]
        r["times_actprobe"] = r["cpu_s_per_500"] / rows[-1]["cpu_s"]
    return rows


def cost(folder: Path) -> list[dict]:
    rows = []
    for rank, n in ((1, 1), (1, 500), (1, 5000), (4, 500), (4, 5000), (16, 100)):
        collection.write_files(folder / "files", n, rank)
        runs_of = 1 if n > 500 else 3
        found = fastest(runs_of, "files", folder / "files", folder / "cache", "all")
        disk = sum(p.stat().st_size for p in (folder / "cache").rglob("*.h5"))
        rows.append({"rank": rank, "loras": n, **found, "ms_per_lora": 1e3 * found["cpu_s"] / n,
                     "cache_kb_per_lora": disk / n / 1e3})  # fmt: skip
        shutil.rmtree(folder / "files")
        shutil.rmtree(folder / "cache")
    return rows


def main() -> None:
    which = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        rows = {"peers": peers, "cost": cost}[which](Path(folder))
    rounded = [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    print("|" + "|".join(rounded[0]) + "|\n" + "|---" * len(rounded[0]) + "|")
    for r in rounded:
        print("|" + "|".join(map(str, r.values())) + "|")
    with open(HERE / f"{which}.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rounded[0])
        writer.writeheader()
        writer.writerows(rounded)


if __name__ == "__main__":
    main()
