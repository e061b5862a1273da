"""A loopback server that speaks the slice of the Weights & Biases service that its client needs.

    with Server() as server:
        server.add_artifact("team/project/acts", {"a.pt": b"..."})
        server.faults.append(Fault("drop", "a.pt", at=600_000))

The API answers on 127.0.0.1 and signed URLs point to `localhost`, so that a client that sends its
key along to the storage host is caught (`Counters.leaks`). GraphQL answers are in
`wandb_graphql.py`; nothing here reaches the network. `python wandb_server.py FOLDER` serves the
files of a folder from a process of its own (for benchmarks).
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from wandb_graphql import Service

SIGNATURE = "SIGNATUREabcdef0123456789"
EXPIRED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
EXPIRED_TOKEN = EXPIRED.replace(b"AccessDenied", b"ExpiredToken")  # with 400, as Google's storage
_PIECE = 1 << 16


@dataclass
class Fault:
    """One injected fault.

    kind: status, drop (reset after `at` body bytes), short (declares all, ends after `at`),
    corrupt (flips the file's byte `at`), stall (stops after `at`), slow (`rate` bytes a second),
    expire (403), norange (200 and the whole file), wrongrange (a Content-Range off by one), drip
    (one byte at a time, `rate` a second), drippinghead (the same of the headers), packed (gzip,
    whatever was asked for), redirect (to `headers["Location"]`), badhead (a header line that is
    none), more (bytes behind the body's end), chunked (no Content-Length, and bytes behind).
    match: part of the file's name or the GraphQL operation. skip: let so many matching requests
    pass first; times: then apply to so many.
    """

    kind: str
    match: str
    times: float = 1
    skip: int = 0
    at: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    rate: float = 0.0
    body: bytes = EXPIRED


@dataclass
class Counters:
    """What the server saw; `requests` and `sent` count storage GETs and their body bytes."""

    requests: int = 0
    sent: int = 0
    active: int = 0
    most_active: int = 0
    leaks: int = 0
    connections: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)


class Server:
    """The service with its state; see the module's docstring."""

    def __init__(self, rate: float | None = None, lifetime: float = 3600.0) -> None:
        self.rate, self.lifetime = rate, lifetime
        self.etags = True  # and If-Match is heeded
        self.cut_after: int | None = None  # reset every connection that has carried so many bytes
        self.faults: list[Fault] = []
        self.count = Counters()
        self.blobs: dict[str, bytes | Path] = {}
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.service = Service(self)
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.add_artifact, self.add_run = self.service.add_artifact, self.service.add_run
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def sign(self, blob: str, name: str) -> str:
        """A signed URL on the storage host, valid for `lifetime` seconds."""
        exp = time.time() + self.lifetime
        return (
            f"http://localhost:{self.port}/storage/{blob}/{quote(name)}?exp={exp}&sig={SIGNATURE}"
        )

    def upload(self, blob: str, name: str) -> str:
        """Where the client may PUT a file."""
        return f"{self.url}/upload/{blob}/{quote(name)}"

    def reset(self) -> Counters:
        """The counters so far; counting starts again from zero."""
        with self.lock:
            old, self.count = self.count, Counters()
        return old

    def fault(self, name: str, kinds: set[str], low: int = 0, high: int = 1 << 62) -> Fault | None:
        """The next fault for this file or operation; a byte is corrupted only in its own range."""
        with self.lock:
            for f in self.faults:
                if f.kind not in kinds or f.match not in name or f.times <= 0:
                    continue
                if f.kind == "corrupt" and not low <= f.at < high:
                    continue
                if f.skip > 0:
                    f.skip -= 1
                    continue
                f.times -= 1
                return f
        return None


def _etag(content: bytes | Path) -> str:
    if isinstance(content, Path):
        return f'"{content.stat().st_size}-{content.stat().st_mtime_ns}"'
    return f'"{zlib.crc32(content):08x}"'


@pytest.fixture
def server() -> Iterator[Server]:
    """A fresh server for one test."""
    with Server() as made:
        yield made


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def setup(self) -> None:
        # Little in flight, so that `sent` says what a client that is killed can have received.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.carried = 0
        with self.server.owner.lock:
            self.server.owner.count.connections += 1
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def do_POST(self) -> None:
        owner, body = self.server.owner, self._body()
        if urlsplit(self.path).path == "/graphql":
            asked = json.loads(body)
            operation = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
            name = operation[1] if operation else "?"
            if f := owner.fault(name, {"status", "slow"}):
                self._answer(f.status, b"{}", f.headers)
                return
            with owner.lock:
                owner.count.operations[name] += 1
                data = owner.service.answer(name, asked.get("variables") or {})
                if data is None:
                    owner.count.unknown.append(name)
            reply = json.dumps({"data": data or {}}).encode()
            self._answer(200, reply, {"Content-Type": "application/json"})
        elif self.path.endswith("/file_stream"):
            with owner.lock:
                owner.service.streamed.append(json.loads(body))
            self._answer(200, b'{"exitcode": null, "limits": {}}')
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        owner, body = self.server.owner, self._body()
        _, _, blob, _ = urlsplit(self.path).path.split("/", 3)
        with owner.lock:
            owner.blobs[blob] = body
        self._answer(200)

    def do_GET(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        kind, *rest = unquote(parts.path).lstrip("/").split("/")
        if kind == "storage":
            self._storage(rest[0], "/".join(rest[1:]), parse_qs(parts.query))
            return
        if "Authorization" not in self.headers:
            self._answer(401)
            return
        with owner.lock:
            found = owner.service.locate(kind, rest)
        if found is None:
            self._answer(404)
        else:
            self._answer(302, headers={"Location": owner.sign(*found)})

    do_HEAD = do_GET

    def _storage(self, blob: str, name: str, query: dict[str, list[str]]) -> None:
        owner, count = self.server.owner, self.server.owner.count
        with owner.lock:
            count.requests += 1
            count.files[name] += 1
            count.leaks += "Authorization" in self.headers
            content = owner.blobs.get(blob)
        if content is None:
            self._answer(404, b"gone")
            return
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        low, high = 0, size
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            low, high = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
        if f := owner.fault(name, {"status", "expire"}):
            self._answer(403 if f.kind == "expire" else f.status, f.body, f.headers)
            return
        if float(query["exp"][0]) < time.time() or query["sig"] != [SIGNATURE]:
            self._answer(403, EXPIRED)
            return
        if low >= size and asked:
            self._answer(416, headers={"Content-Range": f"bytes */{size}"})
            return
        f = owner.fault(
            name,
            {"drop", "short", "corrupt", "stall", "slow", "norange", "wrongrange"},
            low,
            high,
        )
        if f and f.kind == "norange":
            asked, low, high = None, 0, size
        etag = _etag(content) if owner.etags else None
        if etag and self.headers.get("If-Match", etag) != etag:
            self._answer(412)
            return
        odd = {"redirect", "drippinghead", "packed", "badhead", "more", "chunked", "drip"}
        f = f or owner.fault(name, odd)
        if f and self._odd(f, content, low, high, size):
            return
        self.send_response(206 if asked else 200)
        if etag:
            self.send_header("ETag", etag)
        if f and f.kind == "badhead":
            self._headers_buffer.append(b"this is no header line\r\n")  # type: ignore[attr-defined]
        if asked:
            shift = int(bool(f and f.kind == "wrongrange"))
            self.send_header("Content-Range", f"bytes {low + shift}-{high - 1 + shift}/{size}")
        self.send_header("Content-Length", str(high - low))
        self.end_headers()
        if self.command == "HEAD":
            return
        with owner.lock:
            count.active += 1
            count.most_active = max(count.most_active, count.active)
        try:
            self._send(content, low, high, f)
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True
        finally:
            with owner.lock:
                count.active -= 1

    def _odd(self, f: Fault, content: Any, low: int, high: int, size: int) -> bool:
        """Answers that are none of the usual kind; True when that was it."""
        part = bytes(content[low:high])
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {low}-{high - 1}/{size}\r\n"
        length = f"Content-Length: {len(part)}\r\n\r\n"
        raw, slow = b"", b""
        if f.kind == "redirect":
            self._answer(302, headers=f.headers)
            return True
        if f.kind == "packed":
            part = gzip.compress(part)
            raw = f"{head}Content-Encoding: gzip\r\nContent-Length: {high - low}\r\n\r\n".encode()
            raw += part.ljust(high - low, b"\0")
        elif f.kind == "more":
            raw = (head + length).encode() + part + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        elif f.kind == "chunked":
            raw = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(part) + 5:x}\r\n".encode()
            raw += part + b"extra\r\n0\r\n\r\n"
        elif f.kind == "drip":
            raw, slow = (head + length).encode(), part
        elif f.kind == "drippinghead":
            slow = (head + length).encode() + part
        else:
            return False
        self.server.owner.count.sent += len(raw)
        self.wfile.write(raw)
        for i in range(len(slow)):
            if self.server.owner.stopping.wait(1 / f.rate):
                break
            self.wfile.write(slow[i : i + 1])
        self.close_connection = bool(slow)
        return True

    def _send(self, content: bytes | Path, low: int, high: int, f: Fault | None) -> None:
        owner = self.server.owner
        rate = f.rate if f and f.kind == "slow" else owner.rate
        end = min(high, low + f.at) if f and f.kind in ("drop", "short", "stall") else high
        begun = time.monotonic()
        source = open(content, "rb") if isinstance(content, Path) else None  # noqa: SIM115
        at = low
        if source:
            source.seek(low)
        while at < end and not owner.stopping.is_set():
            n = min(_PIECE, end - at)
            piece = source.read(n) if source else memoryview(content)[at : at + n]  # type: ignore[arg-type]
            if f and f.kind == "corrupt" and at <= f.at < at + n:
                damaged = bytearray(piece)
                damaged[f.at - at] ^= 0xFF
                piece = bytes(damaged)
            self.wfile.write(piece)
            at += n
            self.carried += n
            with owner.lock:
                owner.count.sent += n
            if owner.cut_after is not None and self.carried >= owner.cut_after:
                f, end = Fault("drop", ""), at
            if rate and (ahead := (at - low) / rate - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)
        if source:
            source.close()
        if f and f.kind == "drop":
            linger = struct.pack("ii", 1, 0)  # a reset, not a clean end
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if f and f.kind == "stall":
            owner.stopping.wait(60)
        if end < high:
            self.close_connection = True
            if f and f.kind == "drop":
                self.request.close()


def main(folder: str, rate: float) -> None:
    """Serve the files of a folder, both as artifact `team/project/dump:v0` and as run files."""
    with Server(rate=rate or None) as server:
        files: dict[str, Any] = {p.name: p for p in sorted(Path(folder).iterdir())}
        server.add_artifact("team/project/dump", files)
        server.add_run("team/project/run1", files)
        print(server.url, flush=True)
        for line in sys.stdin:  # any line: print the counters and start again
            old = server.reset()
            print(json.dumps([line.strip(), old.requests, old.sent, old.most_active]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
