"""The loopback hub of `hub_server` with what its client asks for when it writes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import unquote

import pytest
from hub_server import _LARGE, TOKEN, Hub, Repo, _Handler, connect, git_id


class WritableHub(Hub):
    """stored, puts: files that were sent to the storage; commits: how many; die_after: commits after
    which every further one is refused, None for never."""

    def __init__(self) -> None:
        super().__init__()
        self._http.RequestHandlerClass = _Writes
        self.stored: dict[str, bytes] = {}
        self.puts = 0
        self.commits = 0
        self.die_after: int | None = None


class _Writes(_Handler):
    def _body_of(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def do_POST(self) -> None:
        owner, path, body = self.server.owner, unquote(self.path), self._body_of()
        assert isinstance(owner, WritableHub)
        with owner.lock:
            owner.asked.append(f"POST {path}")
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "", "log in")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            name = f"datasets/{name}" if asked.get("type") == "dataset" else name
            if name in owner.repos:
                self._json({"error": "exists", "url": f"{owner.url}/{name}"}, 409)
                return
            private = asked.get("visibility") == "private"
            owner.repos[name] = Repo(access="private" if private else "open")
            owner.add(name, {})
            self._json({"url": f"{owner.url}/{name}", "name": name})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            large = [f["path"] for f in files if f["path"].endswith((*_LARGE, ".h5"))]
            mode = {f["path"]: "lfs" if f["path"] in large else "regular" for f in files}
            self._json({"files": [
                {"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in mode.items()
            ]})  # fmt: skip
        elif path.endswith("/info/lfs/objects/batch"):
            objects = []
            for o in json.loads(body)["objects"]:
                action = {"upload": {"href": f"{owner.url}/put/{o['oid']}?sig=SECRETSIG"}}
                objects.append({**o} if o["oid"] in owner.stored else {**o, "actions": action})
            self._json({"objects": objects, "transfer": "basic"})
        elif "/commit/" in path:
            self._commit(path.split("/commit/")[0].removeprefix("/api/"), body)
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        owner = self.server.owner
        oid = self.path.split("/put/")[1].split("?")[0]
        content = self._body_of()
        assert hashlib.sha256(content).hexdigest() == oid
        owner.stored[oid] = content
        owner.puts += 1
        owner.leaks += "Authorization" in self.headers
        self._answer(200)

    def _commit(self, name: str, body: bytes) -> None:
        owner = self.server.owner
        name = name.removeprefix("models/")
        if owner.die_after is not None and owner.commits >= owner.die_after:
            self._error(403, "", "the hub refuses")
            return
        owner.commits += 1
        repo = owner.repos[name]
        files = dict(repo.commits[repo.refs["main"]])
        for line in body.decode().splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                files[value["path"]] = owner.stored[value["oid"]]
        oid = owner.add(name, files)
        url = f"{owner.url}/{name}/commit/{oid}"
        self._json({"success": True, "commitOid": oid, "commitUrl": url})


@pytest.fixture
def writable(tmp_path, monkeypatch):
    """A fresh hub that can be written to, which the client of this process asks, logged in."""
    with WritableHub() as made:
        connect(made, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        yield made


__all__ = ["WritableHub", "git_id", "writable"]
