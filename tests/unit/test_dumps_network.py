"""Networks and servers that misbehave (E3, E5, E6, G3, G4): nothing leaks, hangs or mixes."""

# ruff: noqa: F401, F811
from __future__ import annotations

import http.server
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from dumps_cases import FOUR, client, config, fetch_all, golden, good, make, remotes
from wandb_server import Fault, Server, server

from actprobe import dumps as room
from actprobe.base.errors import ActprobeError
from actprobe.dumps import fetcher, pace
from actprobe.dumps.connection import Refused, new_session, open_range
from actprobe.dumps.download import verified_path
from actprobe.dumps.dropped import Dropped
from actprobe.dumps.urls import Urls
from actprobe.files.hub import Progress

MIB = 1 << 20
BAD = "chunk_1.pt"


# --- E3: credentials go nowhere


class _Host(http.server.BaseHTTPRequestHandler):
    """Another host; keeps the headers it got."""

    seen: list[dict[str, str]]
    content: bytes = b""
    to: str | None = None

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        if self.to is not None:
            self.send_response(302)
            self.send_header("Location", self.to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206)
        n = len(self.content)
        self.send_header("Content-Range", f"bytes 0-{n - 1}/{n}")
        self.send_header("Content-Length", str(n))
        self.send_header("Set-Cookie", "who=me")
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def host():
    """A server on this machine; sets what it answers as attributes of its handler."""
    handler = type("Host", (_Host,), {"seen": []})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    handler.url = f"http://localhost:{made.server_address[1]}/f"  # type: ignore[attr-defined]
    yield handler
    made.shutdown()
    made.server_close()


def test_e3_where_a_server_redirects_to_netrc_is_not_asked(server, host, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine localhost login me password hidden\nmachine 127.0.0.1 login a password b"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(host.url) == ("me", "hidden")  # it would be used
    files = {"a.pt": golden(0)}
    host.content = files["a.pt"]
    artifact, wanted = server.add_artifact("team/project/dump", files), remotes(tmp_path, files)
    server.faults.append(Fault("redirect", "a.pt", times=9, headers={"Location": host.url}))
    assert fetch_all(server, artifact, wanted) == {}
    assert good(wanted, files)
    assert len(host.seen) == 1 and server.count.leaks == 0
    assert not {"Authorization", "Cookie"} & set(host.seen[0])
    assert host.seen[0]["Range"] == f"bytes=0-{MIB - 1}"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://example.com/f", "redirects to http://example.com; expected https"),
        ("ftp://localhost/f", "redirects to ftp://localhost; expected https"),
        ("file:///etc/passwd", r"redirects to file://\(no host\); expected https"),
        ("", "redirects to nowhere; expected https"),
    ],
)
def test_e3_redirects_go_to_https_or_this_machine(server, host, tmp_path, to, said):
    host.to = to
    with new_session() as session, pytest.raises(Refused, match=said):
        open_range(session, host.url, 0, 4, 4)


def test_redirects_in_a_circle_end(host):
    host.to = host.url
    with (
        new_session() as session,
        pytest.raises(Refused, match="more than 5 redirects, the last one"),
    ):
        open_range(session, host.url, 0, 4, 4)
    assert len(host.seen) == 6


def test_no_cookie_is_kept(host):
    host.content = b"1234"
    with new_session() as session:
        for _ in range(2):
            with open_range(session, host.url, 0, 4, 4) as body:
                assert b"".join(body) == b"1234"
    assert "Cookie" not in host.seen[1]


# --- E5: a file that is replaced while it is fetched


def replaced(old: bytes, new: bytes, server: Server, artifact: Any, name: str, after: int) -> Any:
    """Replace a file there once `after` requests were answered."""

    def watch() -> None:
        while server.count.files[name] < after:
            time.sleep(0.001)
        server.blobs[artifact.blobs[name]] = new

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("etags", [True, False])
def test_e5_a_file_without_digest_that_is_replaced_on_the_way(server, tmp_path, etags):
    """With ETags it is begun anew; what is there in the end is never a mixture."""
    old, new = b"A" * (8 * MIB), b"B" * (8 * MIB)
    artifact = server.add_artifact("team/project/dump", {"a.pt": old})
    [r] = remotes(tmp_path, {"a.pt": old}, "size")
    server.etags, server.rate = etags, 16e6
    thread = replaced(old, new, server, artifact, "a.pt", 3)
    listed = {"a.pt"}

    def ask(source: str, paths: Any) -> dict[str, str]:
        return {p: server.sign(artifact.blobs[p], p) for p in paths if p in listed}

    asked = Urls(ask, [(r.source, r.path)])
    settings = pace.Settings(connections=1, segment=MIB, backoff=0.005)
    if not etags:  # then the listing alone tells
        listed_then = threading.Timer(0, thread.join)
        listed_then.start()
        thread.join(0)
    original = Urls.gone

    def gone(self: Urls, files: Any) -> list[tuple[str, str]]:
        thread.join()
        listed.clear() if not etags else None
        return original(self, files)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(Urls, "gone", gone)
        failed = fetcher.fetch([r], asked, settings, Progress("", {"a.pt": r.size}))
    if etags:
        assert failed == {} and verified_path(r.into).read_bytes() == new
    else:
        assert "uploaded again since it was locked" in failed[r]
        assert list(tmp_path.iterdir()) == []


def test_e5_a_file_that_keeps_changing_is_refused(server, tmp_path, monkeypatch):
    artifact = server.add_artifact("team/project/dump", {"a.pt": b"A" * (4 * MIB)})
    [r] = remotes(tmp_path, {"a.pt": b"A" * (4 * MIB)}, "size")
    tags = iter(f'"{i}"' for i in range(999))
    monkeypatch.setattr("wandb_server._etag", lambda content: next(tags))
    failed = fetch_all(server, artifact, [r], connections=1)
    assert failed == {"a.pt": "downloaded twice, the file there was changed while it was fetched"}
    assert list(tmp_path.iterdir()) == []


def test_e5_the_word_verified_is_said_of_files_with_a_digest(client, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    content = {f"resid_post.1/chunk_{i}.npy": b"%d" % i for i in range(3)}
    client.add_run("team/project/run1", content, md5=False)
    client.add_run("team/project/run1", {"resid_post.1/chunk_3.npy": b"3"})
    entry = {"source": {"run": "team/project/run1"}, "files": ["*.npy"]}
    wanted = config(tmp_path, {"acts": entry})
    room.lock(wanted, "acts")
    make(wanted, ["dumps"])
    assert "dump acts: 1 files verified, 3 fetched whole, without a digest" in caplog.text


def test_e5_uploaded_again_after_the_last_byte(client, tmp_path, monkeypatch):
    run = client.add_run("team/project/run1", {"resid_post.1.npy": b"abc"}, md5=False)
    wanted = config(tmp_path, {"acts": {"source": {"run": "team/project/run1"}}})
    room.lock(wanted, "acts")
    original = Urls.gone

    def gone(self: Urls, files: Any) -> list[tuple[str, str]]:
        run.files["resid_post.1.npy"]["updatedAt"] = "2026-02-02T03:04:05Z"
        return original(self, files)

    monkeypatch.setattr(Urls, "gone", gone)
    with pytest.raises(ActprobeError, match=r"uploaded again since .* run `actprobe lock`"):
        make(wanted, ["dumps"])
    assert not list(Path(wanted["cache_dir"]).rglob("size.*"))


# --- E6 and other answers that are not the bytes asked for


@pytest.mark.parametrize("kind", ["packed", "more", "chunked", "wrongrange", "badhead"])
def test_e6_odd_answers_never_become_part_of_a_file(server, tmp_path, kind):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault(kind, BAD, times=3))
    assert fetch_all(server, artifact, wanted) == {}
    assert good(wanted)


def test_a_name_that_is_not_known(tmp_path):
    with new_session() as session, pytest.raises(Dropped) as error:
        open_range(session, "http://no-such-host.invalid/a?sig=SECRET", 0, 4, 4)
    assert str(error.value) == "no connection to no-such-host.invalid: its name is not known (DNS)"


def test_a_host_that_refuses_connections(tmp_path):
    with (
        new_session() as session,
        pytest.raises(Dropped, match=r"to 127\.0\.0\.1: .*refused") as error,
    ):
        open_range(session, "http://127.0.0.1:9/a?sig=SECRET", 0, 4, 4)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://[::1/a?sig=SECRET", "http://ho st/a?sig=SECRET", "sig=SECRET"]
)
def test_an_address_that_is_none(url):
    with new_session() as session, pytest.raises((Dropped, Refused)) as error:
        open_range(session, url, 0, 4, 4)
    assert "SECRET" not in str(error.value)


# --- G3: a least speed


@pytest.mark.parametrize("kind", ["drip", "drippinghead"])
def test_g3_one_byte_at_a_time_is_given_up(server, tmp_path, kind):
    """The timeout of a socket counts from byte to byte, and would never end."""
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault(kind, BAD, times=2, rate=50))
    begun = time.monotonic()
    assert fetch_all(server, artifact, wanted, stall=0.5) == {}
    assert time.monotonic() - begun < 60
    assert good(wanted)


@pytest.mark.parametrize("kind", ["drip", "drippinghead"])
def test_g3_a_server_that_only_drips_fails_its_file(server, tmp_path, kind):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault(kind, BAD, times=999, rate=50))
    failed = fetch_all(server, artifact, wanted, stall=0.5, tries=2)
    assert list(failed) == [BAD]
    assert "fewer than 1,000 bytes a second for" in failed[BAD]
    assert "gave up after 2 tries without progress" in failed[BAD]


def test_g3_a_few_bytes_for_each_request_are_no_progress(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault("drop", BAD, times=999, at=10))
    failed = fetch_all(server, artifact, wanted, connections=2)
    assert "gave up after 8 tries without progress" in failed[BAD]


def test_g3_a_slow_server_above_the_least_speed_is_waited_for(server, tmp_path):
    files = {"a.pt": golden(0)[:200_000]}
    artifact, wanted = server.add_artifact("team/project/dump", files), remotes(tmp_path, files)
    server.faults.append(Fault("slow", "a.pt", rate=200_000))
    assert fetch_all(server, artifact, wanted, stall=0.8, least=50_000.0) == {}
    assert server.count.requests == 1


def test_the_rate_limit_is_not_the_servers_slowness(server, tmp_path):
    files = {"a.pt": golden(0)}
    artifact, wanted = server.add_artifact("team/project/dump", files), remotes(tmp_path, files)
    assert fetch_all(server, artifact, wanted, rate_limit=4e5, stall=0.4, least=1e6) == {}
    assert server.count.requests == 1


# --- G4: a server that ignores ranges


def test_g4_a_server_without_ranges_is_read_in_one_stream(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault("norange", "chunk", times=9999))
    assert fetch_all(server, artifact, wanted) == {}
    assert good(wanted)
    total = 4 * 4 * MIB
    # What was under way in the ranges of the first files when the first answer came is lost.
    assert server.count.sent < 2.2 * total
    assert "ignores ranges: fetching it in one stream" in caplog.text


def test_g4_one_stream_goes_on_where_it_was_cut(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults += [
        Fault("norange", "chunk", times=2),
        Fault("drop", BAD, at=3 * MIB),
        Fault("norange", "chunk", times=9999),
    ]
    assert fetch_all(server, artifact, wanted, connections=1) == {}
    assert good(wanted)


def test_g4_one_stream_whose_content_is_wrong_is_fetched_again(server, tmp_path):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    whole, bad = FOUR[BAD], bytearray(FOUR[BAD])
    bad[MIB + 5] ^= 1
    server.blobs[artifact.blobs[BAD]] = bytes(bad)
    server.faults.append(Fault("norange", "chunk", times=9999))
    failed = fetch_all(server, artifact, wanted)
    assert list(failed) == [BAD] and failed[BAD].startswith("downloaded twice, md5 is ")
    server.blobs[artifact.blobs[BAD]] = whole
    assert fetch_all(server, artifact, wanted) == {} and good(wanted)
