"""Results sent to the service with the real client, online to the loopback server and offline."""

# ruff: noqa: F401, F811
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dumps_cases import KEY, client, traces
from wandb_server import server

from actprobe.base import keys
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.cache.plan import MISSING, Plan, State, Target
from actprobe.config import Config, resolve
from actprobe.exchange import upload as room
from actprobe.exchange.upload import Follower


def config(folder: Path, mode: str, enabled: bool = False) -> Config:
    return resolve(
        {
            "experiment": "exp",
            "results_dir": str(folder / "results"),
            "cache_dir": str(folder / "cache"),
            "wandb": {"enabled": enabled, "entity": None, "project": "probing", "mode": mode},
        }
    )


def one_probe(config: Config) -> Plan:
    """A plan with one thing to make."""
    t = Target("probes", "l", "i", "n", "a.parquet", "k", {})
    return Plan(config, {t.path: t}, [t.path], {}, {t.path: State(MISSING)}, [])


@pytest.fixture
def results(tmp_path) -> Path:
    """A small finished experiment."""
    folder = tmp_path / "results" / "exp"
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / "tables" / "summary.csv").write_text("method,test_auc\nlogreg,0.9\n")
    (folder / "figures" / "auc.svg").write_text("<svg/>")
    from PIL import Image

    Image.new("RGB", (2, 2)).save(folder / "figures" / "auc.png")
    (folder / "report.html").write_text("<p>report</p>")
    return folder


def test_results_and_artefacts_go_to_a_run(client, results, tmp_path):
    cached = tmp_path / "cache" / "probes" / "a.0123456789ab.parquet"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"content")
    for page in (".half-written.html",):
        (results / page).write_text("<p>page</p>")
    (results / "tables" / "skipped.csv").touch()
    where = room.export_wandb(config(tmp_path, "online"), [cached])
    assert where.startswith("team/probing/")
    service = client.service
    assert client.count.unknown == []
    kinds = {a.type: a for a in service.artifacts if a.state == "COMMITTED"}
    assert set(kinds["results"].entries) == {
        "figures/auc.png",
        "figures/auc.svg",
        "report.html",
        "tables/summary.csv",
        "tables/skipped.csv",
    }
    stored = {
        name: client.blobs[blob] for kind in kinds.values() for name, blob in kind.blobs.items()
    }
    assert stored["tables/summary.csv"] == (results / "tables" / "summary.csv").read_bytes()
    assert stored["probes/a.0123456789ab.parquet"] == b"content"
    [run] = service.runs.values()
    assert any(name.startswith("media/images/figures/auc") for name in run.files)
    assert not any("metadata" in name or "requirements" in name for name in run.files)
    assert traces(tmp_path, KEY) == []


def test_offline_nothing_is_sent_and_the_run_is_kept(client, results, tmp_path):
    where = room.export_wandb(config(tmp_path, "offline"))
    assert client.count.operations == {}
    assert Path(where).parent == results / "wandb"
    assert list(Path(where).glob("run-*.wandb"))
    assert traces(tmp_path, KEY) == []


def test_without_results_there_is_nothing_to_export(tmp_path):
    with pytest.raises(ActprobeError, match="no results to export"):
        room.export_wandb(config(tmp_path, "offline"))


def test_a_workflow_is_not_followed_unless_asked(tmp_path):
    assert room.follow(one_probe(config(tmp_path, "online"))) is None


def test_progress_and_scores_are_logged_as_files_arrive(client, tmp_path):
    key = keys.short(keys.spec_key({}))
    paths = [str(tmp_path / f"{n}.{key}.parquet") for n in ("texts", "a", "b")]
    stages = ["texts", "probes", "probes"]
    targets = {p: Target(s, s, "i", p, p, "k", {}) for p, s in zip(paths, stages, strict=True)}
    pending = dict.fromkeys(paths, State(MISSING))
    plan = Plan(config(tmp_path, "online", True), targets, paths, {}, pending, [])
    follower = Follower(plan, every=60)
    columns = {"dataset": ["d"], "source": ["m/s.mean"], "method": ["knn"], "test_score": [0.75]}
    columns |= {"label": [""], "metric": ["auc"]}
    store.publish([paths[1]], [store.write_table(paths[1], pa.table(columns), {})])
    follower.look()
    Path(paths[0]).touch()
    follower.finish()
    follower.finish()
    sent = json.dumps(client.service.streamed)
    for expected in ("test_auc/m/s.mean/d.knn", "progress/probes", "progress/texts"):
        assert expected in sent
    assert "0.75" in sent and "0.5" in sent
    [run] = client.service.runs.values()
    assert json.loads(run.config)["experiment"]["value"] == "exp"
    assert traces(tmp_path, KEY) == []


def test_a_service_that_is_down_does_not_stop_a_workflow(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("wandb.init", lambda **k: (_ for _ in ()).throw(TimeoutError("no answer")))
    assert room.follow(one_probe(config(tmp_path, "online", True))) is None
    assert "no answer; the run is not followed" in caplog.text


def test_c11_results_of_every_kind_are_sent(client, results, tmp_path):
    """Directions alone, too; not what else lies in the folder."""
    import shutil

    shutil.rmtree(results / "figures")
    for name in ("contexts/dump.a.html",):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("<p>page</p>")
    vectors = results / "contrastive" / "a.m.resid_post.last.lda" / "vectors" / "layer_1.pt"
    vectors.parent.mkdir(parents=True)
    vectors.write_bytes(b"vector")
    (results / "notes.txt").write_text("mine")
    mixed = "collection,id,n,rate\n'=x,007,1,\nb,NA,2,0.5\n,,,\n"
    (results / "tables" / "refused.csv").write_text(mixed)
    room.export_wandb(config(tmp_path, "online"))
    [sent] = [a for a in client.service.artifacts if a.state == "COMMITTED" and a.type == "results"]
    assert set(sent.entries) == {
        "contexts/dump.a.html",
        "contrastive/a.m.resid_post.last.lda/vectors/layer_1.pt",
        "report.html",
        "tables/refused.csv",
        "tables/summary.csv",
    }
    [run] = client.service.runs.values()
    assert any(name.startswith("media/html/report") for name in run.files)
    assert any(name.startswith("media/table/tables/refused") for name in run.files)
