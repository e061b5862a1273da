"""What comparing artefacts with their seals costs: python benchmarks/seals/run.py prints results.md.

A probes job and a latents job on artefacts of a usual size, one process and one thread each. CPU
seconds inside the comparison against CPU seconds of the whole job.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from probes_inputs import Cache  # noqa: E402
from sae_tiny import activations, batch, config, parameters, save_saelens, targets  # noqa: E402

from actprobe import probes, sae  # noqa: E402
from actprobe.cache.store import files  # noqa: E402

ROWS, WIDTH, DATASETS, D_SAE = 2000, 2304, 4, 16384

HEAD = """# Seals

Every artefact is compared with its SHA-256 when a process first reads it. CPU seconds of that against
those of the whole job; one thread, {rows:,} rows of {width} float32 numbers in each of {datasets}
datasets ({mb:.0f} MB together). Written by `python benchmarks/seals/run.py`.

| job | CPU s | of which comparing | share |
|---|---|---|---|
"""


def measured(name: str, job: Callable[[], object]) -> str:
    """One line of the table."""
    spent, own = [0.0], files.verify

    def timed(path: str | Path, *args: object) -> object:
        start = time.process_time()
        try:
            return own(path, *args)
        finally:
            spent[0] += time.process_time() - start

    files.verify = timed
    files._trusted.clear()
    start = time.process_time()
    try:
        job()
    finally:
        files.verify = own
    total = time.process_time() - start
    return f"| {name} | {total:.1f} | {spent[0]:.2f} | {spent[0] / total:.1%} |"


def main() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 2
    size = DATASETS * ROWS * WIDTH * 4 / 1e6
    print(HEAD.format(rows=ROWS, width=WIDTH, datasets=DATASETS, mb=size), end="")
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder, "probes"))
        for name in "abcd"[:DATASETS]:
            x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
            x[:, 0] += y
            cache.texts(name, y)
            cache.activations(name, x)
        for method in ("logreg", "knn"):
            entry = {"protocol": "saeprobes-0.4.2", "methods": [method]}
            print(measured(f"probes, {method}", lambda e=entry: cache.run(e)), flush=True)
        cache = Path(folder, "latents")
        saved = save_saelens(
            cache / "sae", parameters("jumprelu", WIDTH, D_SAE), architecture="jumprelu"
        )
        xs = {n: rng.standard_normal((ROWS, WIDTH)).astype(np.float32) for n in "abcd"[:DATASETS]}
        known = activations(cache, xs)
        cfg = config(cache, {"wide": {"source": str(saved)}})
        planned = targets(cfg, known)
        print(
            measured(f"latents, {D_SAE:,} wide", lambda: sae.run(batch(planned["latents"]), cfg, 1))
        )
    assert probes.VERSION


if __name__ == "__main__":
    main()
