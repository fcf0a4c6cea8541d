"""A stand-in W&B server on loopback: enough for the real client's online runs, resumed runs, public API, artifacts,
reports and saved views.

It keeps what it is sent in ``runs``, ``artifacts`` (by name, a list of versions), ``views`` (by id) and ``stored``
(bytes by path); every GraphQL operation it was asked is counted in ``asked``.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote

ENTITY = "someone"
KEY = "0" * 40


class StandIn:
    """``with StandIn() as server:`` serves at ``server.url``.

    ``server.drop`` names runs whose uploads are lost, ``server.refuse`` operations that end in an error.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.drop: set[str] = set()
        self.refuse: set[str] = set()
        handler = type("Handler", (_Handler,), {"standin": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The response to one operation; unknown ones get empty data."""
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = operation[1] if operation else ""
        self.asked[name] += 1
        if name in self.refuse:
            return {"data": None, "errors": [{"message": "permission denied"}]}
        answer = getattr(self, f"do_{name}", None)
        return {"data": answer(variables) if answer else {}}

    def do_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def do_GetViewer(self, _: dict[str, Any]) -> dict[str, Any]:
        keys: dict[str, Any] = {"edges": []}
        about = {"email": None, "admin": False, "deletedAt": None, "name": ENTITY, "flags": "{}", "apiKeys": keys}
        return {"viewer": self.do_Viewer({})["viewer"] | about}

    def do_GetDefaultEntity(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": ENTITY}}

    def do_UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v["name"]
        run = self.runs.setdefault(name, {"name": name, "history": {}, "summary": {}, "config": {}, "exit": None})
        run["config"] |= json.loads(v.get("config") or "{}")
        run.setdefault("createdAt", _moment(len(self.runs)))
        for key in ("groupName", "jobType", "tags", "displayName", "project"):
            run[key] = v.get(key) or run.get(key)
        project = {"id": "p", "name": v.get("project"), "entity": {"id": "e", "name": ENTITY}}
        bucket = {"id": name, "name": name, "displayName": run["displayName"], "description": None, "config": None}
        bucket |= {"sweepName": None, "project": project, "historyLineCount": len(run["history"])}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def do_RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        if run is None:
            return {"model": {"id": "p", "name": v["project"], "bucket": None}}
        tail = json.dumps([json.dumps(run["history"][max(run["history"])])] if run["history"] else [])
        tails = {"summaryMetrics": "{}", "logLineCount": 0, "historyTail": tail, "eventsTail": "[]", "config": "{}"}
        bucket = {"id": run["name"], "name": run["name"], "historyLineCount": len(run["history"]), **tails}
        bucket |= {"eventsLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}'}
        return {"model": {"id": "p", "name": v["project"], "bucket": bucket}}

    def do_CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def do_Run(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        return {"project": {"run": run and self._node(run)}}

    def do_Runs(self, v: dict[str, Any]) -> dict[str, Any]:
        """Filters on ``jobType`` alone; pages as long as asked for."""
        wanted = json.loads(v["filters"]).get("jobType")
        kinds = wanted["$in"] if isinstance(wanted, dict) else [wanted] if wanted else None
        mine = [run for run in self.runs.values() if run["project"] == v["project"]]
        if not mine:
            return {"project": None}
        found = [run for run in mine if kinds is None or run["jobType"] in kinds]
        first = int(v.get("cursor") or 0)
        last = min(first + v["perPage"], len(found))
        edges = [{"node": self._node(run), "cursor": str(first + k + 1)} for k, run in enumerate(found[first:last])]
        page = {"endCursor": str(last), "hasNextPage": last < len(found)}
        runs = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}

    def _node(self, run: dict[str, Any]) -> dict[str, Any]:
        state = {None: "running", 0: "finished"}.get(run["exit"], "failed")
        about = {"projectId": "1", "id": run["name"], "name": run["name"], "state": state}
        about |= {"config": json.dumps(run["config"]), "summaryMetrics": json.dumps(run["summary"])}
        about |= {"user": {"name": ENTITY, "username": ENTITY}, "tags": run["tags"], "group": run["groupName"]}
        about |= {"jobType": run["jobType"], "createdAt": run["createdAt"], "displayName": run["displayName"]}
        return about

    def do_RunHistoryKeys(self, v: dict[str, Any]) -> dict[str, Any]:
        steps = self.runs[v["name"]]["history"]
        return {"project": {"run": {"historyKeys": {"lastStep": max(steps, default=-1)}}}}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """Take one file-stream request in: history rows by line number, the summary, the exit code."""
        run = self.runs[name]
        for file, chunk in (body.get("files") or {}).items():
            if name in self.drop:
                continue
            for line, text in enumerate(chunk["content"], start=chunk["offset"]):
                if file == "wandb-history.jsonl":
                    run["history"][line] = json.loads(text)
                elif file == "wandb-summary.json":
                    run["summary"] = json.loads(text)
        if body.get("complete"):
            run["exit"] = body.get("exitcode")

    def do_GetProjects(self, v: dict[str, Any]) -> dict[str, Any]:
        names = sorted({run["project"] for run in self.runs.values()})
        user = {"id": "u", "name": ENTITY, "username": ENTITY, "email": None, "admin": False, "flags": "{}"}
        user |= {"entity": ENTITY, "deletedAt": None, "apiKeys": {"edges": []}, "teams": {"edges": []}}
        about = {"__typename": "Project", "entityName": ENTITY, "createdAt": _moment(0), "isBenchmark": False}
        nodes = [about | {"id": name, "name": name, "user": user} for name in names]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}

    def do_ProjectInternalId(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"id": "p", "internalId": "1"}}

    def do_ProjectViews(self, v: dict[str, Any]) -> dict[str, Any]:
        found = [view for view in self.views.values() if view["type"] == v.get("viewType", "runs")]
        edges = [{"node": view, "cursor": view["id"]} for view in found]
        return {"project": {"allViews": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}}

    def do_View(self, v: dict[str, Any]) -> dict[str, Any]:
        found = [view for view in self.views.values() if (view["type"], view["name"]) == (v["viewType"], v["viewName"])]
        return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}

    def do_upsertView(self, v: dict[str, Any]) -> dict[str, Any]:
        """A view with an id is replaced, one without is always new: two calls without one make two views."""
        key = v.get("id") or f"view{len(self.views)}"
        before = self.views.get(key, {"createdAt": _moment(len(self.views))})
        kept = {name: v.get(name) for name in ("type", "name", "displayName", "description", "spec")}
        project = {"id": "p", "name": v["projectName"], "entityName": v["entityName"]}
        self.views[key] = before | kept | {"id": key, "project": project, "updatedAt": _moment(0)}
        return {"upsertView": {"view": self.views[key], "inserted": v.get("id") is None}}

    do_UpsertView2 = do_upsertView

    def do_ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:
        versions = self.artifacts.get(v["name"].partition(":")[0])
        return {"project": {"artifact": {"artifactType": {"name": versions[0]["type"]}} if versions else None}}

    def do_CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        """As W&B does: content that is there is the version that is there, and aliases move to it."""
        asked = v["input"]
        (name,) = asked.get("artifactCollectionNames") or [asked["artifactCollectionName"]]
        versions = self.artifacts.setdefault(name, [])
        aliases = {each["alias"] for each in asked["aliases"]}
        for version in versions:
            version["aliases"] -= aliases
        same = [version for version in versions if version["digest"] == asked["digest"]]
        if not same:
            about = {"id": f"{name}-{len(versions)}", "index": len(versions), "name": name, "state": "PENDING"}
            about |= {"type": asked["artifactTypeName"], "digest": asked["digest"], "aliases": set[str]()}
            versions.append(about | {"metadata": asked.get("metadata"), "project": asked["projectName"]})
        chosen = (same or versions[-1:])[0]
        chosen["aliases"] |= aliases
        latest = {"id": versions[-1]["id"]} if same else None
        sequence = {"id": name, "latestArtifact": latest}
        return {
            "createArtifact": {"artifact": {"id": chosen["id"], "state": chosen["state"], "artifactSequence": sequence}}
        }

    def do_CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        file = {"id": v["artifactID"], "uploadUrl": f"{self.url}/storage/{v['artifactID']}/manifest"}
        file |= {"uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": v["artifactID"], "file": file}}}

    def do_CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": spec["name"],
                "uploadUrl": f"{self.url}/storage/{spec['artifactID']}/{spec['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": spec["artifactID"]},
            }
            for spec in v["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def do_CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        version = self._version(v["artifactID"])
        version["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": version["id"], "digest": version["digest"]}}}

    def do_ArtifactByID(self, v: dict[str, Any]) -> dict[str, Any]:
        version = self._version(v["id"])
        project = {"id": "p", "internalId": "1", "name": version["project"], "entity": {"name": ENTITY}}
        sequence = {"__typename": "ArtifactSequence", "name": version["name"], "project": project}
        aliases = [
            {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": sequence}
            for alias in sorted(version["aliases"])
        ]
        about = {"__typename": "Artifact", "id": version["id"], "artifactSequence": sequence, "tags": [], "size": 1}
        about |= {"versionIndex": version["index"], "artifactType": {"name": version["type"]}, "description": None}
        about |= {"metadata": version["metadata"], "ttlDurationSeconds": -2, "ttlIsInherited": False}
        about |= {"historyStep": None, "state": version["state"], "digest": version["digest"], "commitHash": None}
        about |= {"fileCount": 1, "createdAt": _moment(0), "updatedAt": None, "aliases": aliases}
        return {"artifact": about}

    def _version(self, key: str) -> dict[str, Any]:
        return next(one for versions in self.artifacts.values() for one in versions if one["id"] == key)


def _moment(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}"


class _Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.0"  # no kept-alive connections: a stopped server is gone for its clients too

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path.endswith("/graphql"):
            answer = self.standin.graphql(body["query"], body.get("variables") or {})
        elif self.path.endswith("/file_stream"):
            self.standin.stream(self.path.split("/")[-2], body)
            answer = {}
        else:
            answer = {}
        self._send(answer)

    def do_PUT(self) -> None:
        self.standin.stored[unquote(self.path).removeprefix("/storage/")] = self._body()
        self._send({})

    def do_GET(self) -> None:
        self._send({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Quiet."""
