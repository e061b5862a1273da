"""GraphQL operations of the loopback server that write: runs, artifacts, files."""

from __future__ import annotations

import json
from typing import Any

JSON = dict[str, Any]


class Writes:
    """Mixed into the service (`wandb_graphql.py`), whose state it changes."""

    _server: Any
    runs: dict[tuple[str, str, str], Any]
    new_run: Any
    _new: Any
    _by_id: Any
    _id: Any

    def _op_UpsertBucket(self, v: JSON) -> JSON:
        entity, project = v.get("entity") or "team", v.get("project") or "uncategorized"
        run = self.new_run(entity, project, v["name"])
        run.config = v.get("config") or run.config
        run.summary = v.get("summaryMetrics") or run.summary
        owner = {"id": "p1", "name": project, "entity": {"id": "e1", "name": entity}}
        bucket = {
            "id": f"Run{run.id}",
            "name": run.id,
            "displayName": v.get("displayName") or run.id,
            "description": None,
            "config": run.config,
            "sweepName": None,
            "project": owner,
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _op_ArtifactType(self, v: JSON) -> JSON:
        return {"project": {"artifact": None}}

    def _op_CreateArtifact(self, v: JSON) -> JSON:
        i = v.get("input") or v
        made = self._new(
            i["entityName"],
            i["projectName"],
            i["artifactCollectionName"],
            i["artifactTypeName"],
            [a["alias"] for a in i.get("aliases") or []],
            i.get("description") or "",
        )
        made.state = "PENDING"
        run = self.runs.get((made.entity, made.project, i.get("runName") or ""))
        if run:
            run.logged.append(made)
        node = {"id": made.id, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": node}}

    def _op_CreateArtifactManifest(self, v: JSON) -> JSON:
        blob = f"manifest-{v['artifactID']}"
        file: JSON = {"id": f"File{blob}"}
        if v.get("includeUpload"):
            url = self._server.upload(blob, "wandb_manifest.json")
            file |= {"uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": blob, "file": file}}}

    def _op_CreateArtifactFiles(self, v: JSON) -> JSON:
        edges = []
        for f in v["input"]["artifactFiles"]:
            blob = self._id("Blob")
            self._by_id(f["artifactID"]).blobs[f["name"]] = blob
            node = {
                "storagePath": None,
                "uploadUrl": self._server.upload(blob, f["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": f["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _op_CommitArtifact(self, v: JSON) -> JSON:
        a = self._by_id(v["artifactID"])
        a.entries = json.loads(self._server.blobs[f"manifest-{a.id}"])["contents"]
        a.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": a.id, "digest": a.digest}}}

    def _op_CreateRunFiles(self, v: JSON) -> JSON:
        run = self.runs[v["entity"], v["project"], v["run"]]
        files = []
        for name in v["files"]:
            run.blobs[name] = self._id("Blob")
            run.files.setdefault(name, {"sizeBytes": "0", "md5": None})
            files.append({"name": name, "uploadUrl": self._server.upload(run.blobs[name], name)})
        return {"createRunFiles": {"runID": f"Run{run.id}", "uploadHeaders": [], "files": files}}
