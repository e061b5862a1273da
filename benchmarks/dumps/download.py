"""Fetching 860 MB from a server that gives each connection 20 MB/s: this fetcher and the client.

    python benchmarks/dumps/download.py [repeats]

Eight files of very unequal size (24.7 : 11.8 : 5.8 and five small). Every contender runs in a
process of its own and starts from an empty folder; wall time includes imports and all questions to
the service, which is the loopback server of the tests in another process. Results are printed as
Markdown and written to `download.csv`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import measure

HERE = Path(__file__).resolve().parent
SERVER = HERE.parents[1] / "tests" / "wandb_server.py"
MB = 10**6
RATE = 20 * MB
SIZES = {"big": 494 * MB, "middle": 236 * MB, "small": 116 * MB}
SIZES |= {f"tiny_{i}": 2_800_000 for i in range(5)}
TOTAL = sum(SIZES.values())


def contender_run_files(folder: str) -> None:
    """The client's run files, one after the other."""
    import wandb

    for f in wandb.Api().run("team/project/run1").files():
        f.download(root=folder)


def contender_artifact(folder: str) -> None:
    """The client's artifact download, as it comes."""
    import wandb

    wandb.Api().artifact("team/project/dump:v0").download(root=folder)


def contender_artifact_multipart(folder: str) -> None:
    """The client's artifact download in parts, verified afterwards."""
    import wandb

    artifact = wandb.Api().artifact("team/project/dump:v0")
    artifact.download(root=folder, multipart=True, skip_cache=True)
    artifact.verify(folder)


def ours(folder: str, connections: int) -> None:
    """The fetch job: verified while it downloads, then published."""
    from actprobe import config as configuration
    from actprobe.base.keys import DigestMemo
    from actprobe.cache import plan
    from actprobe.dumps import fetch, targets

    entry = {
        "source": {"artifacts": ["team/project/dump:v0"]},
        "lock": f"{folder}/../lock.json",
        "connections": connections,
        "sites": {name: [f"{name}.pt"] for name in SIZES},
    }
    dumps = configuration.section("dumps", {"dump": entry})
    config = {"cache_dir": folder, "dumps": dumps, "shards": {}}
    found = targets(config, {}, DigestMemo(folder))
    planned = plan.make(config, found, [t.path for t in found])
    [batch] = planned.of("dumps")
    fetch.run(batch, config, 1)


def lock(folder: str) -> None:
    """The lock file that `ours` needs; made once, it stands in Git."""
    from actprobe import config as configuration
    from actprobe import dumps as room

    entry = {"source": {"artifacts": ["team/project/dump:v0"]}, "lock": f"{folder}/../lock.json"}
    dumps = configuration.section("dumps", {"dump": entry})
    room.lock({"dumps": dumps}, "dump")


CONTENDERS = {
    "run files, sequential": contender_run_files,
    "artifact, default": contender_artifact,
    "artifact, multipart + verify": contender_artifact_multipart,
    "actprobe, 8 connections": lambda folder: ours(folder, 8),
    "actprobe, 16 connections": lambda folder: ours(folder, 16),
}


@contextmanager
def serving(folder: Path):
    """The server in a process of its own; yields its URL and a function that reads the counters."""
    command = [sys.executable, str(SERVER), str(folder), str(RATE)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stdin and child.stdout
    url = child.stdout.readline().strip()

    def counters() -> tuple[int, int, int]:
        """Storage requests, bytes sent, most connections at once, since the last question."""
        child.stdin.write("\n")
        return tuple(json.loads(child.stdout.readline())[1:])

    try:
        yield url, counters
    finally:
        child.kill()


def write_files(folder: Path) -> None:
    folder.mkdir()
    block = os.urandom(1 << 20)
    for i, (name, size) in enumerate(SIZES.items()):
        with open(folder / f"{name}.pt", "wb") as f:
            f.write(i.to_bytes(8, "little"))
            left = size - 8
            while left:
                left -= f.write(block[: min(left, len(block))])


def used(folder: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


def main(repeats: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        base = Path(root)
        write_files(base / "served")
        with serving(base / "served") as (url, counters):
            home = base / "home"
            environment = {
                "WANDB_BASE_URL": url,
                "WANDB_API_KEY": "local-" + "0" * 40,
                "WANDB_ERROR_REPORTING": "false",
                "WANDB_SILENT": "true",
                "HOME": str(home),
                "OMP_NUM_THREADS": "1",
                **{f"WANDB_{n}_DIR": str(home / n) for n in ("CACHE", "DATA", "CONFIG")},
            }

            def once(name: str, kill_at: float | None = None, fresh: bool = True) -> None:
                if fresh:
                    for old in (home, base / "into"):
                        shutil.rmtree(old, ignore_errors=True)
                        old.mkdir()
                if name.startswith("actprobe") and not (base / "lock.json").exists():
                    measure.run(command("lock"), environment)
                counters()
                part = base / "into" / "dumps" / "dump"

                def arrived() -> bool:
                    done = sum(sum(received(j)) for j in part.glob("*.journal"))
                    done += sum(p.stat().st_size for p in part.glob("*.verified"))
                    return kill_at is not None and done >= kill_at * TOTAL

                cost = measure.run(command(name), environment, arrived)
                requests, sent, most = counters()
                label = name + (", killed half-way" if cost.killed else "")
                label += "" if fresh else ", run again"
                disk = used(base / "into") + used(home)
                numbers = (
                    cost.wall,
                    cost.cpu,
                    cost.memory,
                    disk / MB,
                    sent / TOTAL,
                    requests,
                    most,
                )
                rows.append((label, *numbers))
                print(label, *(f"{n:.2f}" for n in numbers), flush=True)

            def command(name: str) -> list[str]:
                return [sys.executable, __file__, "--one", name, str(base / "into")]

            for _ in range(repeats):
                for name in CONTENDERS:
                    once(name)
            once("actprobe, 8 connections", kill_at=0.5)
            once("actprobe, 8 connections", fresh=False)
    report(rows)


def received(journal: Path) -> list[int]:
    """Bytes per segment that a journal notes."""
    try:
        body = journal.read_bytes().partition(b"\n")[2]
    except FileNotFoundError:
        return []
    return [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body), 8)]


def report(rows: list[tuple]) -> None:
    head = ["contender", "wall_s", "cpu_s", "peak_memory_mb", "disk_mb", "moved", "requests"]
    head += ["connections", "speedup"]
    names = list(dict.fromkeys(r[0] for r in rows))
    table = []
    for name in names:
        columns = zip(*(r[1:] for r in rows if r[0] == name), strict=True)
        table.append([name, *(statistics.median(c) for c in columns)])
    base = table[0][1]
    with open(HERE / "download.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(head)
        writer.writerows([r[0], *(f"{v:.4g}" for v in (*r[1:], base / r[1]))] for r in table)
    print("|" + "|".join(head) + "|\n|" + "---|" * len(head))
    for r in table:
        print("|" + "|".join([r[0], *(f"{v:.3g}" for v in (*r[1:], base / r[1]))]) + "|")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        {**CONTENDERS, "lock": lock}[sys.argv[2]](sys.argv[3])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
