"""A loopback hub that speaks the slice of the Hugging Face hub that its client asks for.

    with Hub() as hub:
        commit = hub.add("org/name", {"config.json": b"{}", "model.safetensors": b"..."})
        hub.faults.append(Fault("cut", "model.safetensors", at=100_000))

The API and small files answer on 127.0.0.1; large ones are redirected to signed URLs on
`localhost`, as the hub redirects to its storage, so that a client that sends its token along is
caught (`leaks`). `connect` points the client of this process at it, `environment` another one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_loopbackTOKEN0123456789"
SIGNATURE = "SIGNATUREabcdef0123456789"
_LARGE = (".safetensors", ".bin", ".npz", ".pt", ".parquet")
_DATASETS = "datasets/"  # before the names of their repositories, as in addresses
_PIECE = 1 << 15


@dataclass
class Fault:
    """One injected fault.

    kind: status (with `headers`, and the hub's `code`), silent (accepts and never answers), drip
    (a header byte every 0.2 s), gibberish (200, a page that is no JSON), cut (reset after `at` body
    bytes), short (ends early), flip (the byte `at` of the file), slow (`rate` bytes a second),
    stall (stops after `at`), whole (ignores Range), gzip (says so, and sends it).
    match: part of the request's path; times: how often.
    """

    kind: str
    match: str = ""
    times: float = 1
    at: int = 0
    status: int = 500
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    rate: float = 0.0


@dataclass
class Repo:
    """commits: commit -> files; refs: branch or tag -> commit; access: open, gated or private."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: str = "open"


def git_id(content: bytes) -> str:
    """The id that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def blob_name(name: str, content: bytes) -> str:
    """What the hub's client calls a file's blob: SHA-256 of large files, git's id of small ones."""
    return hashlib.sha256(content).hexdigest() if name.endswith(_LARGE) else git_id(content)


class Hub:
    """The service with its state; see the module's docstring."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []  # "METHOD path"
        self.sent: Counter[str] = Counter()  # body bytes by file
        self.leaks = 0
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: whoever asks from now on is refused."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            for connection in list(self.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def add(
        self, repo: str, files: Mapping[str, bytes] | Path, branch: str = "main", access: str = ""
    ) -> str:
        """A new commit on a branch, with these files (or those of a folder); returns its hash."""
        if isinstance(files, Path):
            files = {
                str(p.relative_to(files)): p.read_bytes() for p in files.rglob("*") if p.is_file()
            }
        found = self.repos.setdefault(repo, Repo())
        found.access = access or found.access
        said = repr(sorted((n, git_id(c)) for n, c in files.items())) + repo
        commit = hashlib.sha1(said.encode()).hexdigest()
        found.commits[commit] = dict(files)
        found.refs[branch] = commit
        return commit

    def commit_of(self, repo: str, revision: str) -> str | None:
        found = self.repos[repo]
        if revision in found.refs:
            return found.refs[revision]
        whole = [c for c in found.commits if len(revision) >= 7 and c.startswith(revision)]
        return whole[0] if len(whole) == 1 else None

    def fault(self, path: str, kinds: set[str], low: int = 0, high: int = 1 << 62) -> Fault | None:
        with self.lock:
            for f in self.faults:
                if f.kind in kinds and f.match in path and f.times > 0:
                    if f.kind == "flip" and not low <= f.at < high:
                        continue
                    f.times -= 1
                    return f
        return None

    def requests(self, part: str = "") -> list[str]:
        """What was asked so far whose path holds `part`."""
        with self.lock:
            return [a for a in self.asked if part in a]

    def reset(self) -> None:
        """Forget the faults and what was asked."""
        with self.lock:
            self.faults, self.asked, self.sent = [], [], Counter()

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """Variables for a process that is to use this hub with a hub cache of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
        return kept | {
            "HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN_PATH": str(cache / "no-token"),
            "HF_HUB_OFFLINE": "0", **more,
        }  # fmt: skip


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A fresh hub, which the client of this process asks, with a hub cache in tmp_path/home."""
    with Hub() as made:
        connect(made, tmp_path / "home", monkeypatch)
        yield made


def connect(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client of this process, imported or not, at a hub and a hub cache in `home`."""
    from huggingface_hub import constants

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(home / "token"), "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    owner: Hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def setup(self) -> None:
        # Little in flight, so that `sent` says what a client that is killed can have received.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.owner.open.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.owner.open.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        said = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._answer(status, json.dumps({"error": message}).encode(), said | headers)

    def do_GET(self) -> None:
        owner, parts = self.server.owner, urlsplit(self.path)
        path = unquote(parts.path)
        with owner.lock:
            owner.asked.append(f"{self.command} {path}")
        if f := owner.fault(path, {"status", "silent", "drip", "gibberish"}):
            self._faulty(f)
        elif path.startswith("/storage/"):
            self._storage(path, parse_qs(parts.query))
        elif "/tree/" in path and path.startswith("/api/models/"):
            self._tree(path.removeprefix("/api/models/"))
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), "blobs" in parts.query)
        elif path.startswith("/api/datasets/"):
            self._api(path.removeprefix("/api/"), "blobs" in parts.query)
        elif "/resolve/" in path:
            self._resolve(path.lstrip("/"))
        else:
            self._answer(404)

    do_HEAD = do_GET

    def _faulty(self, f: Fault) -> None:
        if f.kind == "gibberish":
            self._answer(200, b"<html>log in to the network</html>")
        elif f.kind == "status":
            self._error(f.status, f.code, "so the fault says", **f.headers)
        else:
            if f.kind == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not self.server.owner.stopping.wait(0.2):
                    self.wfile.write(b"x")
                    self.wfile.flush()
            self.server.owner.stopping.wait(300)
            self.close_connection = True

    def _repo(self, name: str, files: bool = False) -> Repo | None:
        """The repository if this request may read it; otherwise it is answered.

        What gated repositories are called and hold may be read by all, their files (`files`) not.
        """
        owner, authorised = self.server.owner, self.headers.get("Authorization")
        found = owner.repos.get(name)
        if found is not None and found.access == "private" and authorised is None:
            self._error(401, "RepoNotFound", "Repository not found")
        elif found is not None and found.access == "gated" and files and authorised is None:
            self._error(401, "GatedRepo", "Access to this model is restricted")
        elif found and found.access == "gated" and files and authorised != f"Bearer {TOKEN}":
            self._error(403, "GatedRepo", "Ask for access first")
        elif found is None:
            self._error(401 if authorised is None else 404, "RepoNotFound", "Repository not found")
        else:
            return found
        return None

    def _api(self, path: str, blobs: bool) -> None:
        owner = self.server.owner
        name, _, revision = path.partition("/revision/")
        found = self._repo(name)
        if found is None:
            return
        commit = owner.commit_of(name, revision or "main")
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        siblings: list[dict[str, Any]] = []
        for file, content in found.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": file}
            if blobs:
                entry |= {"size": len(content), "blobId": git_id(content)}
                if file.endswith(_LARGE):
                    sha = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"size": len(content), "sha256": sha, "pointerSize": 130}
                    entry["blobId"] = git_id(f"version lfs {sha}".encode())
            siblings.append(entry)
        called = name.removeprefix(_DATASETS)
        body = {"_id": "1", "id": called, "sha": commit, "siblings": siblings}
        body["private"] = found.access == "private"
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _tree(self, path: str) -> None:
        """All files of a folder of a commit, as the client's own downloads list them."""
        name, _, rest = path.partition("/tree/")
        found = self._repo(name)
        if found is None:
            return
        revision, _, folder = rest.partition("/")
        commit = self.server.owner.commit_of(name, revision)
        files = found.commits.get(commit or "", {})
        entries = [
            {"type": "file", "path": n, "size": len(c), "oid": git_id(c)}
            | ({"lfs": {"oid": blob_name(n, c), "size": len(c), "pointerSize": 130}}
               if n.endswith(_LARGE) else {})
            for n, c in files.items() if n.startswith(folder)
        ]  # fmt: skip
        if not entries:
            self._error(404, "EntryNotFound", "not there")
            return
        self._answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str) -> None:
        owner = self.server.owner
        name, _, rest = path.partition("/resolve/")
        found = self._repo(name, files=True)
        if found is None:
            return
        revision, _, file = rest.partition("/")
        commit = owner.commit_of(name, revision)
        content = found.commits[commit].get(file) if commit else None
        if commit is None or content is None:
            self._error(404, "EntryNotFound" if commit else "RevisionNotFound", "not there")
            return
        etag = f'"{blob_name(file, content)}"'
        said = {"X-Repo-Commit": commit, "ETag": etag}
        if not file.endswith(_LARGE):
            self._send(file, content, said)
            return
        place = f"http://localhost:{owner.port}/storage/{name}/{commit}/{file}?sig={SIGNATURE}"
        size = str(len(content))
        self._answer(302, b"", said | {
            "Location": place, "X-Linked-Etag": etag, "X-Linked-Size": size,
        })  # fmt: skip

    def _storage(self, path: str, query: Mapping[str, list[str]]) -> None:
        owner = self.server.owner
        with owner.lock:
            owner.leaks += "Authorization" in self.headers
        if query.get("sig") != [SIGNATURE]:
            self._answer(403)
            return
        found = re.fullmatch(r"/storage/(.+?)/([0-9a-f]{40})/(.+)", path)
        assert found is not None
        name, commit, file = found.groups()
        self._send(file, owner.repos[name].commits[commit][file], {})

    def _send(self, file: str, content: bytes, headers: Mapping[str, str]) -> None:
        owner, low, high = self.server.owner, 0, len(content)
        asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = bool(asked[0]) and not owner.fault(file, {"whole"})
        if part:
            low = int(asked[0])
            high = min(high, int(asked[2] or high - 1) + 1)
        kinds = {"cut", "short", "flip", "slow", "stall", "gzip"}
        f = None if self.command == "HEAD" else owner.fault(file, kinds, low, high)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {low}-{high - 1}/{len(content)}")
        if f and f.kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(high - low))
        for k, v in headers.items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self._body(file, content, low, high, f)

    def _body(self, file: str, content: bytes, low: int, high: int, f: Fault | None) -> None:
        owner, begun = self.server.owner, time.monotonic()
        end = min(high, low + f.at) if f and f.kind in ("cut", "short", "stall") else high
        if f and f.kind == "flip":
            content = content[: f.at] + bytes([content[f.at] ^ 1]) + content[f.at + 1 :]
        for at in range(low, end, _PIECE):
            if owner.stopping.is_set():
                break
            piece = content[at : min(at + _PIECE, end)]
            if f and f.rate:
                n = max(1, int(f.rate / 20))
                for small in range(0, len(piece), n):
                    self._write(file, piece[small : small + n])
                    ahead = (at - low + small + n) / f.rate - (time.monotonic() - begun)
                    if ahead > 0 and owner.stopping.wait(ahead):
                        break
            else:
                self._write(file, piece)
        if f and f.kind == "cut":
            linger = struct.pack("ii", 1, 0)  # a reset, not a clean end
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if f and f.kind == "stall":
            owner.stopping.wait(300)
        if end < high:
            self.close_connection = True
            if f and f.kind == "cut":
                self.request.close()

    def _write(self, file: str, piece: bytes) -> None:
        self.wfile.write(piece)
        with self.server.owner.lock:
            self.server.owner.sent[file] += len(piece)
