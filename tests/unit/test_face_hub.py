"""Pushing probes and cached files to a hub on this machine, and pulling them back."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hub_server import TOKEN
from hub_writes import writable  # noqa: F401
from probes_inputs import Cache, data

from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import store
from actprobe.exchange import publishing
from actprobe.face import folder
from actprobe.face.card import Card
from actprobe.face.origin import Origin
from actprobe.face.probe import Probe
from actprobe.files.hub.asking import Refused
from actprobe.probes.keep import Kept, Scorer


@pytest.fixture
def probe():
    about = {"kind": "binary", "classes": ["no", "yes"], "reads": "activations", "width": 3}
    kept = Kept(
        "linear", {"coef": np.array([1.0, -2.0, 0.5]), "intercept": np.array(0.1)}, (), "logistic"
    )
    card = Card(Origin("m/resid_post.1.mean", "activations", "m", "resid_post.1", "mean"),
                threshold={"value": 0.5, "rule": "boundary"})  # fmt: skip
    return Probe(Scorer(kept, about), card)


@pytest.fixture
def cached(tmp_path):
    """Activations of two datasets in a cache: name below it -> file."""
    cache = Cache(tmp_path / "cache")
    made = [cache.activations(n, data(20, 4, seed)[0]) for seed, n in enumerate("ab")]
    root = tmp_path / "cache"
    return {str(p.relative_to(root)): p for t in made for p in [root / t.path] if p.is_file()} or {
        t.path.removeprefix(f"{root}/"): root / t.path.removeprefix(f"{root}/") for t in made
    }


def of_folder(path):
    return {p.name: p for p in path.iterdir()}


def test_a_probe_goes_to_the_hub_and_comes_back_by_its_commit(writable, tmp_path, probe, caplog):  # noqa: F811
    caplog.set_level(logging.DEBUG)
    saved = probe.save(tmp_path / "p", licence="mit")
    at = publishing.push("hub:org/one", "probes", of_folder(saved), "")
    repo, commit = at.removeprefix("hub:").split("@")
    assert repo == "org/one" and writable.repos["org/one"].access == "private"
    assert set(writable.repos["org/one"].commits[commit]) == {
        "probe.json", "probe.safetensors", "README.md"
    }  # fmt: skip
    found = folder.load_probe(at)
    x = np.eye(3)
    assert np.array_equal(found.score(x), probe.score(x)) and found.card.licence == "mit"
    assert TOKEN not in caplog.text and "SECRETSIG" not in caplog.text
    assert writable.leaks == 0


def test_a_folder_of_a_repository_is_a_probe(writable, tmp_path, probe):  # noqa: F811
    saved = probe.save(tmp_path / "p")
    files = {f"left/{n}": p for n, p in of_folder(saved).items()}
    at = publishing.push("hub:org/many", "probes", files, "# all of them\n")
    found = folder.load_probe(at.replace("org/many", "org/many/left"))
    assert np.array_equal(found.coef_, probe.coef_)
    with pytest.raises(BadInput, match="expected the card of a probe"):
        folder.load_probe(at)
    got = publishing.pull(at, "probes", tmp_path / "pulled")
    assert {p.name for p in got} >= {"probe.json", "probe.safetensors"}
    assert folder.load_probe(tmp_path / "pulled" / "left").threshold == 0.5


def test_what_is_there_is_not_sent_again(writable, tmp_path, cached, monkeypatch):  # noqa: F811
    monkeypatch.setattr(publishing, "_FILES", 1)
    writable.die_after = 1
    with pytest.raises(Refused, match="cannot send"):
        publishing.push("hub:org/acts", "activations", cached, "# x\n")
    repo = writable.repos["datasets/org/acts"]
    assert len(repo.commits[repo.refs["main"]]) == 1 and writable.puts == 2
    writable.die_after = None
    at = publishing.push("hub:org/acts", "activations", cached, "# x\n")
    assert writable.puts == 2  # what was stored before it was refused is there
    commit = at.split("@")[1]
    assert set(writable.repos["datasets/org/acts"].commits[commit]) == {
        *cached, "README.md", "actprobe.json"
    }  # fmt: skip
    n = writable.commits
    assert publishing.push("hub:org/acts", "activations", cached, "# x\n") == at
    assert writable.commits == n


def test_sealed_files_come_back_to_their_places_as_they_are(writable, tmp_path, cached):  # noqa: F811
    at = publishing.push("hub:org/acts", "activations", cached, "# x\n")
    into = tmp_path / "elsewhere"
    got = publishing.pull(at, "activations", into)
    assert {str(p.relative_to(into)) for p in got} == set(cached)
    for name, path in cached.items():
        assert (into / name).read_bytes() == path.read_bytes()
        store.verify(into / name)
    assert publishing.pull(at, "activations", into) == []
    with pytest.raises(BadInput, match="holds activations, not latents"):
        publishing.pull(at, "latents", tmp_path / "more")


def test_a_damaged_file_is_not_sent(writable, cached):  # noqa: F811
    path = next(iter(cached.values()))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ActprobeError, match="digest"):
        publishing.push("hub:org/acts", "activations", cached, "# x\n")
    assert "datasets/org/acts" not in writable.repos


def test_nothing_private_goes_to_a_public_repository(writable, tmp_path, probe):  # noqa: F811
    files = of_folder(probe.save(tmp_path / "p"))
    publishing.push("hub:org/open", "probes", files, "", public=True)
    with pytest.raises(ActprobeError, match="hub:org/open is public; --public"):
        publishing.push("hub:org/open", "probes", files, "")


def test_without_a_login_the_hub_is_named_and_no_token(writable, tmp_path, probe, monkeypatch):  # noqa: F811
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Refused, match=r"cannot make the repository.*login"):
        publishing.push("hub:org/one", "probes", of_folder(probe.save(tmp_path / "p")), "")


@pytest.mark.parametrize("source", ["org/one", "hub:one", "hub:org/one/../two@x", "hub:org/one@"])
def test_a_place_that_is_none_is_refused(source):
    with pytest.raises(ConfigError, match="expected hub:ORG/NAME@COMMIT"):
        publishing.split(source)
