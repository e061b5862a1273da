"""GraphQL answers of the loopback server: operation name and variables in, `data` out.

No GraphQL is executed: the client's operations are known by name and get canned answers in the
shape (response names) that the client asks for. An unknown operation answers None and is recorded,
so that a new release of the client shows what changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from wandb_writes import Writes

JSON = dict[str, Any]
WHEN = "2026-01-02T03:04:05Z"


def digest(content: bytes | Path, alg: str = "md5") -> str:
    """Base64 digest as it stands in manifests."""
    h = hashlib.md5() if alg == "md5" else xxhash.xxh128()
    if isinstance(content, Path):
        with open(content, "rb") as f:
            while piece := f.read(1 << 20):
                h.update(piece)
    else:
        h.update(content)
    return base64.b64encode(h.digest()).decode()


def size_of(content: bytes | Path) -> int:
    """Bytes of a file given as content or as path."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


@dataclass
class Artifact:
    """One version of an artifact; `entries` is the manifest's content."""

    id: str
    entity: str
    project: str
    collection: str
    type: str
    version: int
    aliases: list[str]
    description: str
    entries: dict[str, JSON]
    blobs: dict[str, str]
    alg: str = "md5"
    state: str = "COMMITTED"
    metadata: str = "{}"

    @property
    def digest(self) -> str:
        h: Any = hashlib.md5() if self.alg == "md5" else xxhash.xxh128()
        h.update(b"wandb-artifact-manifest-v1\n")
        for path in sorted(self.entries):
            h.update(f"{path}:{self.entries[path]['digest']}\n".encode())
        return h.hexdigest()


@dataclass
class Run:
    """A run: its files (name -> node without URLs) and the artifacts it logged."""

    entity: str
    project: str
    id: str
    files: dict[str, JSON] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)
    logged: list[Artifact] = field(default_factory=list)
    config: str = "{}"
    summary: str = "{}"


class Service(Writes):
    """Projects, runs and artifacts. `server` offers `blobs`, `sign` and `upload`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.artifacts: list[Artifact] = []
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.streamed: list[JSON] = []
        self._made = 0

    def new_run(self, entity: str, project: str, name: str) -> Run:
        """The run of this name, which may be there already."""
        return self.runs.setdefault((entity, project, name), Run(entity, project, name))

    def _id(self, kind: str) -> str:
        self._made += 1
        return base64.urlsafe_b64encode(f"{kind}:{self._made}".encode()).decode().rstrip("=")

    def _store(self, content: bytes | Path) -> str:
        blob = self._id("Blob")
        self._server.blobs[blob] = content
        return blob

    def add_run(
        self, path: str, files: Mapping[str, bytes | Path] | None = None, md5: bool = True
    ) -> Run:
        """A run `entity/project/id` with files, with or without an MD5 in their listing."""
        entity, project, name = path.split("/")
        run = self.new_run(entity, project, name)
        for f, content in (files or {}).items():
            run.blobs[f] = self._store(content)
            run.files[f] = {
                "sizeBytes": str(size_of(content)),
                "md5": digest(content) if md5 else None,
            }
        return run

    def add_artifact(
        self,
        path: str,
        files: Mapping[str, bytes | Path],
        *,
        type: str = "activation_data",
        description: str = "",
        run: Run | None = None,
        alg: str = "md5",
        aliases: tuple[str, ...] = (),
        references: Mapping[str, str] | None = None,
    ) -> Artifact:
        """The next version of the artifact `entity/project/name`; it becomes `latest`."""
        entity, project, name = path.split("/")
        extra = {"extra": {"alg": "XXH128"}} if alg != "md5" else {}
        entries = {
            p: {"digest": digest(c, alg), "size": size_of(c), "birthArtifactID": "", **extra}
            for p, c in files.items()
        }
        for p, url in (references or {}).items():
            entries[p] = {"digest": "etag", "size": 1, "ref": url}
        made = self._new(entity, project, name, type, list(aliases), description, alg)
        made.entries, made.blobs = entries, {p: self._store(c) for p, c in files.items()}
        if run:
            run.logged.append(made)
        return made

    def _new(
        self,
        entity: str,
        project: str,
        name: str,
        type: str,
        aliases: list[str],
        description: str = "",
        alg: str = "md5",
    ) -> Artifact:
        same = [a for a in self.artifacts if (a.entity, a.project) == (entity, project)]
        same = [a for a in same if a.collection == name]
        for a in same:
            a.aliases = [x for x in a.aliases if x not in (*aliases, "latest")]
        made = Artifact(
            self._id("Artifact"),
            entity,
            project,
            name,
            type,
            len(same),
            sorted({"latest", *aliases}),
            description,
            {},
            {},
            alg,
        )
        self.artifacts.append(made)
        return made

    def _by_id(self, id: str) -> Artifact:
        return next(a for a in self.artifacts if a.id == id)

    def _by_name(self, entity: str, project: str, name: str, alias: str) -> Artifact | None:
        for a in self.artifacts:
            named = (a.entity, a.project, a.collection) == (entity, project, name)
            if named and a.state == "COMMITTED" and alias in (f"v{a.version}", *a.aliases):
                return a
        return None

    def locate(self, kind: str, rest: list[str]) -> tuple[str, str] | None:
        """Blob and name behind an API file path (`/files/...`, `/artifactsV2/...`)."""
        if kind == "files":
            run = self.runs.get((rest[0], rest[1], rest[2]))
            name = "/".join(rest[3:])
            return (run.blobs[name], name) if run and name in run.blobs else None
        hexdigest = rest[-2] if kind == "artifactsV2" else rest[-1]
        for a in self.artifacts:
            for name, entry in a.entries.items():
                if base64.b64decode(entry["digest"] + "==").hex() == hexdigest:
                    return a.blobs[name], name
        return None

    def answer(self, operation: str, v: JSON) -> JSON | None:
        """The data of an operation, or None when it is not known here."""
        method = getattr(self, f"_op_{operation}", None)
        return None if method is None else method(v)

    # --- who

    def _op_Viewer(self, v: JSON) -> JSON:
        return {
            "viewer": {
                "id": "VXNlcjox",
                "entity": "team",
                "username": "someone",
                "email": None,
                "flags": None,
                "teams": {"edges": []},
            }
        }

    def _op_GetDefaultEntity(self, v: JSON) -> JSON:
        return {"viewer": {"id": "VXNlcjox", "entity": "team"}}

    def _op_ServerFeaturesQuery(self, v: JSON) -> JSON:
        return {"serverInfo": {"features": []}}

    def _op_OrganizationCoreWeaveOrganizationID(self, v: JSON) -> JSON:
        return {"entity": {"organization": None}}

    # --- runs

    def _op_Run(self, v: JSON) -> JSON:
        run = self.runs.get((v["entity"], v["project"], v["name"]))
        if run is None:
            return {"project": {"run": None}}
        node = {
            "projectId": "1",
            "id": f"Run{run.id}",
            "tags": [],
            "name": run.id,
            "displayName": run.id,
            "state": "finished",
            "config": run.config,
            "readOnly": False,
            "createdAt": WHEN,
            "systemMetrics": "{}",
            "summaryMetrics": run.summary,
            "historyLineCount": 0,
            "user": {"name": "someone", "username": "someone"},
        }
        empty = "sweepName group jobType commit heartbeatAt description notes historyKeys".split()
        return {"project": {"run": {**dict.fromkeys(empty), **node}}}

    def _op_RunFiles(self, v: JSON) -> JSON:
        run = self.runs[v["entity"], v["project"], v["name"]]
        names = [n for n in sorted(run.files) if not v.get("fileNames") or n in v["fileNames"]]
        first = int(v.get("fileCursor") or 0)
        page = names[first : first + int(v.get("fileLimit") or 50)]
        edges = [
            {"cursor": str(first + i), "node": self._run_file(run, name)}
            for i, name in enumerate(page, 1)
        ]
        last = first + len(page)
        info = {"endCursor": str(last), "hasNextPage": last < len(names)}
        files = {"edges": edges, "pageInfo": info}
        return {
            "project": {"internalId": "1", "run": {"fileCount": len(run.files), "files": files}}
        }

    def _run_file(self, run: Run, name: str) -> JSON:
        return {
            "id": f"File{name}",
            "name": name,
            "url": f"{self._server.url}/files/{run.entity}/{run.project}/{run.id}/{name}",
            "directUrl": self._server.sign(run.blobs[name], name),
            "mimetype": None,
            "updatedAt": WHEN,
            **run.files[name],
        }

    def _op_RunOutputArtifacts(self, v: JSON) -> JSON:
        run = self.runs[v["entity"], v["project"], v["run"]]
        edges = [{"node": self._artifact(a), "cursor": a.id} for a in run.logged]
        found = {"totalCount": len(edges), "pageInfo": self._page(), "edges": edges}
        return {"project": {"run": {"artifacts": found}}}

    # --- artifacts, reading

    def _page(self) -> JSON:
        return {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}

    def _collection(self, a: Artifact) -> JSON:
        project = {
            "id": "p1",
            "internalId": "1",
            "name": a.project,
            "entity": {"name": a.entity},
        }
        return {"__typename": "ArtifactSequence", "name": a.collection, "project": project}

    def _aliases(self, a: Artifact, owned: bool) -> list[JSON]:
        more = {"artifactCollection": self._collection(a)} if owned else {}
        return [
            {"__typename": "ArtifactAlias", "id": f"Alias{x}", "alias": x, **more}
            for x in a.aliases
        ]

    def _artifact(self, a: Artifact) -> JSON:
        return {
            "__typename": "Artifact",
            "id": a.id,
            "artifactSequence": self._collection(a),
            "versionIndex": a.version,
            "artifactType": {"name": a.type},
            "description": a.description,
            "metadata": a.metadata,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": a.state,
            "size": sum(e["size"] for e in a.entries.values()),
            "digest": a.digest,
            "commitHash": None,
            "fileCount": len(a.entries),
            "createdAt": WHEN,
            "updatedAt": None,
            "aliases": self._aliases(a, owned=True),
        }

    def _op_ArtifactMembershipByName(self, v: JSON) -> JSON:
        collection, _, alias = v["name"].partition(":")
        a = self._by_name(v["entity"], v["project"], collection, alias or "latest")
        member = a and {
            "__typename": "ArtifactCollectionMembership",
            "id": f"Member{a.id}",
            "versionIndex": a.version,
            "createdAt": WHEN,
            "aliases": self._aliases(a, owned=False),
            "artifactCollection": self._collection(a),
            "artifact": self._artifact(a),
        }
        return {"project": {"artifactCollectionMembership": member}}

    def _op_ArtifactByID(self, v: JSON) -> JSON:
        return {"artifact": self._artifact(self._by_id(v["id"]))}

    def _op_FetchArtifactManifest(self, v: JSON) -> JSON:
        manifest = {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": "V2"},
            "contents": self._by_id(v["id"]).entries,
        }
        blob = self._store(json.dumps(manifest).encode())
        url = self._server.sign(blob, "wandb_manifest.json")
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def _membership(self, v: JSON, edges: list[JSON]) -> JSON:
        files = {"pageInfo": self._page(), "edges": edges, "totalCount": len(edges)}
        collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": collection}}

    def _op_GetArtifactMembershipFileUrls(self, v: JSON) -> JSON:
        a = self._by_name(v["entity"], v["project"], v["collection"], v["alias"])
        assert a is not None
        nodes = [
            {"__typename": "File", "name": n, "directUrl": self._server.sign(b, n)}
            for n, b in a.blobs.items()
        ]
        return self._membership(v, [{"node": n} for n in nodes])

    def _op_ArtifactMembershipFiles(self, v: JSON) -> JSON:
        a = self._by_name(v["entity"], v["project"], v["collection"], v["alias"])
        assert a is not None
        nodes = [
            {
                "__typename": "File",
                "id": f"File{n}",
                "name": n,
                "url": None,
                "sizeBytes": a.entries[n]["size"],
                "storagePath": None,
                "mimetype": None,
                "updatedAt": None,
                "digest": a.entries[n]["digest"],
                "md5": None,
                "directUrl": self._server.sign(b, n),
            }
            for n, b in a.blobs.items()
            if not v.get("fileNames") or n in v["fileNames"]
        ]
        return self._membership(v, [{"node": n} for n in nodes])
