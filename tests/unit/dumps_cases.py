"""Small dumps, configs and fetches that the tests of dumps share."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from wandb_graphql import Artifact
from wandb_server import Server

from actprobe import config as configuration
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan
from actprobe.cache.plan import Target
from actprobe.dumps import assemble, digests, fetch, fetcher, pace
from actprobe.dumps.download import Remote, verified_path
from actprobe.dumps.targets import targets
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

KEY = "local-" + "0123456789abcdef" * 3
RUN = {
    "dumps": fetch.run,
    "assemble": assemble.run,
    "assemble_latents": assemble.run,
}


def golden(i: int, repeats: int = 32768) -> bytes:
    """File i of the reference dump: the SHA-256 of its number, repeated (1 MiB by default)."""
    return hashlib.sha256(str(i).encode()).digest() * repeats


FOUR = {f"chunk_{i}.pt": golden(i, 4 * 32768) for i in range(4)}  # 4 MiB each


def good(wanted: Sequence[Remote], files: Mapping[str, bytes] = FOUR) -> bool:
    """True when all files are there with their bytes."""
    return all(verified_path(r.into).read_bytes() == files[r.path] for r in wanted)


def remotes(folder: Path, files: Mapping[str, bytes], alg: str = "md5") -> list[Remote]:
    """The files as the fetcher wants them, content-addressed in `folder`."""
    found = []
    for name, content in files.items():
        h = digests.new(alg)
        h.update(content)
        path = folder / f"{alg}.{h.hexdigest()[:12]}.pt"
        found.append(Remote("team/project/dump:v0", name, len(content), alg, h.hexdigest(), path))
    return found


def urls(server: Server, artifact: Artifact, wanted: Sequence[Remote]) -> Urls:
    """Signed URLs straight from the server, without the client."""

    def ask(source: str, paths: Sequence[str]) -> dict[str, str]:
        return {p: server.sign(artifact.blobs[p], p) for p in paths}

    return Urls(ask, [(r.source, r.path) for r in wanted])


def fetch_all(
    server: Server, artifact: Artifact, wanted: Sequence[Remote], **settings: Any
) -> dict[str, str]:
    """Fetch with impatient settings; returns file -> reason of those that failed."""
    quick = {"segment": 1 << 20, "stall": 1.0, "backoff": 0.005, "longest_backoff": 0.02}
    failed = fetcher.fetch(
        wanted,
        urls(server, artifact, wanted),
        pace.Settings(**{**quick, **settings}),
        Progress("test", {r.path: r.size for r in wanted}, every=0.05),
    )
    return {r.path: why for r, why in failed.items()}


def client_environment(server: Server, folder: Path) -> dict[str, str]:
    """Environment that points the real client at the server and keeps its files in `folder`."""
    kept = {f"WANDB_{n}_DIR": str(folder / n.lower()) for n in ("CACHE", "DATA", "CONFIG")}
    return {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": KEY,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "HOME": str(folder),
        **kept,
    }


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real client, talking to the loopback server."""
    for name, value in client_environment(server, tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    yield server
    import wandb

    wandb.teardown()


def config(folder: Path, dumps: Mapping[str, Any], **more: Any) -> configuration.Config:
    """A config with these dumps, defaults filled in; locks and cache lie in `folder`."""
    given = {
        "experiment": "test",
        "cache_dir": str(folder / "cache"),
        "results_dir": str(folder / "results"),
        "dumps": {n: {"lock": str(folder / f"{n}.json"), **d} for n, d in dumps.items()},
        **more,
    }
    return configuration.resolve(given)


def plan_of(config: dict[str, Any], known: Mapping[str, list[Target]] | None = None) -> plan.Plan:
    """The plan of a config's dumps."""
    found = targets(config, known or {}, DigestMemo(config["cache_dir"]))
    return plan.make(config, found, [t.path for t in found])


def make(config: dict[str, Any], stages: Sequence[str] = ("dumps", "assemble")) -> plan.Plan:
    """Run the pending batches of these stages; returns the plan they were taken from."""
    planned = plan_of(config)
    for stage in stages:
        for batch in planned.of(stage):
            RUN[stage](batch, config, 1)
    return planned


def assembled(planned: plan.Plan) -> list[Target]:
    """The assembled targets of a plan."""
    return [t for t in planned.targets.values() if t.stage.startswith("assemble")]


def traces(folder: Path, text: str) -> list[str]:
    """Files below `folder` that hold the text."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found


def quiet_logs(caplog: pytest.LogCaptureFixture) -> str:
    """Everything logged, at any level, by any library."""
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.DEBUG)
