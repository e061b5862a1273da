"""Questions to the hub: bounded in time, failures told by cause, branches resolved and remembered.

Rows I2 to I5 and I7 of the fault file; the hub is a loopback server with faults.
"""

# ruff: noqa: F811

import json
import time

import pytest
from hub_server import TOKEN, Fault, Hub, loopback  # noqa: F401

from actprobe.base.errors import ConfigError, Unreachable
from actprobe.base.keys import DigestMemo
from actprobe.files import hub
from actprobe.files.hub import asking, layout
from actprobe.files.hub.asking import Line, cause, retry_after

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(asking, "ANSWER", 1.0)
    monkeypatch.setattr(asking, "WHOLE", 2.0)
    monkeypatch.setattr(asking, "PLAN", 5.0)


def service(tmp_path, patient=False):
    return hub.Hub(DigestMemo(tmp_path / "cache"), patient)


# -- causes


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault("status", status=403, code="GatedRepo"), hub.Refused,
         r"it is gated \(HTTP 403\): log in .* conditions at http://.*/org/name"),
        (Fault("status", status=401), hub.Refused, r"the hub asks for a login \(hf auth login\)"),
        (Fault("status", status=403), hub.Refused, r"the hub asks for a login"),
        (Fault("status", status=404), hub.Refused,
         r"no such repository, or it is private and you are not logged in"),
        (Fault("status", status=404, code="RevisionNotFound"), hub.NotThere, "no such revision"),
        (Fault("status", status=429, headers={"Retry-After": "3600"}), Unreachable,
         r"too many requests \(HTTP 429\); it asks to wait 3600 s"),
        (Fault("status", status=429, headers={"RateLimit": '"api";r=0;t=55'}), Unreachable,
         r"too many requests \(HTTP 429\); it asks to wait 55 s"),
        (Fault("status", status=503), Unreachable, r"the hub has trouble \(HTTP 503\)"),
        (Fault("status", status=520), Unreachable, r"the hub has trouble \(HTTP 520\)"),
        (Fault("gibberish"), Unreachable, "answers, but not as a hub"),
        (Fault("silent"), Unreachable, r"gave no answer within 1 s"),
        (Fault("drip"), Unreachable, r"gave no answer within 2 s"),
    ],
)  # fmt: skip
def test_i7_a_question_that_fails_is_told_by_cause(tmp_path, loopback, fault, kind, message):
    commit = loopback.add("org/name", FILES)
    fault.match, fault.times = "/api/models", 99
    loopback.faults.append(fault)
    begun = time.monotonic()
    with pytest.raises(kind, match=rf"hub:org/name at {commit[:8]}: .*{message}") as e:
        service(tmp_path).listing("org/name", commit)
    assert type(e.value) is kind and time.monotonic() - begun < 12
    assert loopback.url not in str(e.value) or "conditions" in message or "answer" in message


def test_i7_a_refused_connection_is_told_at_once(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    loopback.close()
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"cannot be reached \(ConnectError"):
        service(tmp_path).listing("org/name", commit)
    assert time.monotonic() - begun < 20


def test_i7_a_short_wait_is_waited_for(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    loopback.faults += [
        Fault("status", "/api/models", status=429, headers={"Retry-After": "1"}),
    ]
    begun = time.monotonic()
    assert set(service(tmp_path).listing("org/name", commit)) == set(FILES)
    assert time.monotonic() - begun >= 1


def test_i7_a_job_asks_more_often_and_as_late_as_the_hub_says(tmp_path, loopback, monkeypatch):
    commit, slept = loopback.add("org/name", FILES), []
    monkeypatch.setattr(asking.time, "sleep", slept.append)
    loopback.faults += [
        Fault("status", "/api/models", status=503, times=2),
        Fault("status", "/api/models", status=429, headers={"Retry-After": "60"}),
    ]
    assert service(tmp_path, patient=True).listing("org/name", commit)
    assert slept == [1.0, 2.0, 60.0]
    loopback.faults.append(
        Fault("status", "/api/models", status=429, headers={"Retry-After": "900"})
    )
    with pytest.raises(Unreachable, match="it asks to wait 900 s"):
        service(tmp_path / "other", patient=True).commit("org/name", "main", "models.m")
    assert len(slept) == 3


def test_retry_after_is_a_number_or_a_date():
    assert retry_after("2.5") == 2.5 and retry_after("-1") == 0 and retry_after(None) is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None and retry_after("nan") is None


def test_e3_no_error_holds_an_address_or_a_token(loopback):
    import httpx2

    for text in (
        "broke at https://storage/x?sig=SECRET",
        "Illegal header value b'Bearer SECRET\\n'",
        "hf_SECRET is no header",
    ):
        assert "SECRET" not in cause(httpx2.ReadError(text), "org/name").text


# -- the time of a plan


def test_i2_a_silent_hub_is_asked_once_in_a_plan(tmp_path, loopback):
    """Forty sources wait for one time limit, not for forty."""
    loopback.faults.append(Fault("silent", times=999))
    asked, begun = service(tmp_path), time.monotonic()
    for n in range(40):
        with pytest.raises(Unreachable, match=rf"hub:org/name{n} at 0123456.: .*no answer"):
            asked.listing(f"org/name{n}", "0123456789" * 4)
    assert time.monotonic() - begun < 15


def test_i2_a_hub_that_is_merely_slow_cannot_hold_a_plan(tmp_path, monkeypatch, loopback):
    monkeypatch.setattr(asking, "PLAN", 1.0)
    line = Line(patient=False)
    for _ in range(2):
        line.ask("x", "org/name", lambda: time.sleep(0.4))
    with pytest.raises(Unreachable, match="its answers took more than 1 s"):
        line.ask("x", "org/name", lambda: time.sleep(0.4))
    with pytest.raises(Unreachable, match="its answers took more than 1 s"):
        line.ask("x", "org/name", lambda: 1)


def test_i2_a_question_that_failed_is_not_asked_again(tmp_path, loopback):
    asked = service(tmp_path)
    for _ in range(5):
        with pytest.raises(hub.Refused, match="no such repository"):
            asked.listing("org/none", "0123456789" * 4)
    assert len(loopback.requests("/api/models/org/none")) == 1


def test_offline_mode_asks_nothing(tmp_path, loopback, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match=r"models\.m\.revision: .*HF_HUB_OFFLINE is set"):
        service(tmp_path).commit("org/name", "main", "models.m")
    assert not loopback.requests()


# -- revisions


def test_a_full_hash_is_asked_for_nowhere(tmp_path, loopback):
    found = service(tmp_path).commit("org/name", "ABCDEF0123" * 4, "models.m")
    assert found.sha == found.asked == "abcdef0123" * 4
    assert not loopback.requests()


@pytest.mark.parametrize("revision", ["main", "feature/x", "v1.0", "refs/pr/7"])
def test_i3_a_branch_is_remembered(tmp_path, loopback, revision, caplog):
    commit = loopback.add("org/name", FILES, branch=revision)
    assert service(tmp_path).commit("org/name", revision, "models.m").sha == commit
    assert json.loads((tmp_path / "cache" / "hub.json").read_text())["org/name"][revision]
    loopback.close()
    found = service(tmp_path).commit("org/name", revision, "models.m")
    assert (found.sha, found.asked) == (commit, revision)
    assert f"going on with commit {commit[:8]}, which it was on 20" in caplog.text
    assert f"revision: {commit} pins it" in caplog.text


def test_i4_a_branch_is_asked_for_before_what_another_tool_left(tmp_path, loopback, caplog):
    old = loopback.add("org/name", FILES)
    new = loopback.add("org/name", {**FILES, "config.json": b"{ }"})
    ref = layout.storage("org/name") / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(old)
    assert service(tmp_path / "a").commit("org/name", None, "models.m").sha == new
    loopback.close()
    assert service(tmp_path / "b").commit("org/name", None, "models.m").sha == old
    assert "which is in the local hub cache" in caplog.text
    # What this cache of results was made with comes before what lies in the hub cache.
    assert service(tmp_path / "a").commit("org/name", None, "models.m").sha == new


def test_i4_a_branch_that_is_gone_is_refused_with_its_last_commit(tmp_path, loopback):
    commit = loopback.add("org/name", FILES, branch="draft")
    loopback.add("org/name", FILES)
    service(tmp_path).commit("org/name", "draft", "models.m")
    del loopback.repos["org/name"].refs["draft"]
    with pytest.raises(
        ConfigError,
        match=rf"models\.m\.revision: .*'draft': it has no such revision; pin .*{commit}",
    ):
        service(tmp_path).commit("org/name", "draft", "models.m")


def test_a_branch_of_a_repository_that_is_refused_now_is_what_it_was(tmp_path, loopback, caplog):
    commit = loopback.add("org/name", FILES)
    service(tmp_path).commit("org/name", "main", "models.m")
    loopback.repos["org/name"].access = "private"
    assert service(tmp_path).commit("org/name", "main", "models.m").sha == commit
    assert "not logged in (hf auth login); going on with commit" in caplog.text


def test_a_short_hash(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    assert service(tmp_path).commit("org/name", commit[:7], "models.m").sha == commit
    (layout.snapshot("org/name", commit)).mkdir(parents=True)
    loopback.close()
    assert service(tmp_path / "b").commit("org/name", commit[:7], "models.m").sha == commit


def test_a_repository_under_another_name_is_told(tmp_path, loopback, caplog, monkeypatch):
    """The hub finds a name in any case, and old names of what was renamed."""
    from huggingface_hub import HfApi

    commit, ask = loopback.add("Org/Name", FILES), HfApi.model_info
    monkeypatch.setattr(HfApi, "model_info", lambda self, _, **kw: ask(self, "Org/Name", **kw))
    assert service(tmp_path).commit("org/name", "main", "models.m").sha == commit
    assert "hub:org/name is called Org/Name there; write source: hub:Org/Name" in caplog.text


def test_a_token_goes_to_the_hub(tmp_path, loopback, monkeypatch):
    commit = loopback.add("org/name", FILES, access="private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert service(tmp_path).commit("org/name", "main", "models.m").sha == commit


# -- lists of files


def test_a_commit_is_listed_once_for_all_caches(tmp_path, loopback):
    commit = loopback.add("org/name", FILES)
    first = service(tmp_path / "a").listing("org/name", commit)
    assert {n: e.size for n, e in first.items()} == {"config.json": 2, "model.safetensors": 5000}
    assert len(first["model.safetensors"].digest) == 64 and len(first["config.json"].digest) == 40
    loopback.close()
    assert service(tmp_path / "b").listing("org/name", commit) == first


def test_the_list_that_the_clients_own_download_left_is_used(tmp_path, loopback):
    from huggingface_hub._tree_cache import read_tree_cache

    commit = loopback.add("org/name", FILES)
    listed = service(tmp_path).listing("org/name", commit)
    theirs = read_tree_cache(str(layout.storage("org/name")), commit)
    assert theirs is not None
    assert {n: (e.lfs_sha256 or e.blob_id) for n, e in theirs.items()} == {
        n: e.digest for n, e in listed.items()
    }


def test_names_that_lead_out_of_the_folder_are_no_files(tmp_path, loopback):
    commit = loopback.add("org/name", {**FILES, "../../x.json": b"{}", "/etc/x": b"1"})
    assert set(service(tmp_path).listing("org/name", commit)) == set(FILES)


def test_a_cache_that_cannot_be_written_costs_only_the_memory(tmp_path, loopback, monkeypatch):
    from huggingface_hub import constants

    commit = loopback.add("org/name", FILES)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    asked = hub.Hub(DigestMemo(tmp_path / "file" / "cache"))
    assert asked.commit("org/name", "main", "models.m").sha == commit
    assert set(asked.listing("org/name", commit)) == set(FILES)


# -- sources


@pytest.mark.parametrize(
    ("source", "subfolder", "found"),
    [
        ("org/name", None, ("org/name", "")),
        ("gpt2", None, ("gpt2", "")),
        ("org/name/a/b", None, ("org/name", "a/b")),
        ("org/name/a", "b/c/", ("org/name", "a/b/c")),
        ("gpt2", "onnx", ("gpt2", "onnx")),
    ],
)
def test_i11_one_rule_for_folders_of_repositories(source, subfolder, found):
    assert hub.split(source, subfolder, "here") == found


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("org/name@main", "write source: hub:org/name and revision: main"),
        ("https://huggingface.co/org/name", "write source: hub:org/name"),
        ("org/name/../x", "expected hub:ORG/NAME"),
        ("org name", "expected hub:ORG/NAME"),
        ("", "expected hub:ORG/NAME"),
    ],
)
def test_h_a_source_that_names_no_repository_says_what_to_write(source, words):
    with pytest.raises(ConfigError, match=rf"here: hub:.*{words}"):
        hub.split(source, None, "here")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("https://huggingface.co/Org/Name", "source: hub:Org/Name"),
        ("https://huggingface.co/Org/Name/tree/main/sub/dir",
         "source: hub:Org/Name/sub/dir and revision: main"),
        ("hf.co/Org/Name", "source: hub:Org/Name"),
        ("hf://Org/Name", "source: hub:Org/Name"),
        ("huggingface:Org/Name", "source: hub:Org/Name"),
        ("Hub: Org/Name", "source: hub:Org/Name"),
        ("Org/Name", None),
        ("./here", None),
    ],
)  # fmt: skip
def test_h_other_spellings_of_the_hub(source, words):
    assert hub.hint(source) == words


def test_the_loopback_hub_hides_what_it_should():
    with Hub() as made:
        assert made.url.startswith("http://127.0.0.1:")
