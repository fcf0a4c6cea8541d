"""A stand-in W&B server on loopback: enough for the real client's online runs, ``wandb sync`` and public API.

It keeps what it is sent in ``runs``; every GraphQL operation it was asked is counted in ``asked``.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ENTITY = "someone"
KEY = "0" * 40


class StandIn:
    """``with StandIn() as server:`` serves at ``server.url``; ``server.drop`` names runs whose uploads are lost."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.drop: set[str] = set()
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
        """Answer one operation; unknown ones get an empty answer."""
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = operation[1] if operation else ""
        self.asked[name] += 1
        answer = getattr(self, f"do_{name}", None)
        return answer(variables) if answer else {}

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
        tails = {"summaryMetrics": "{}", "logLineCount": 0, "historyTail": "[]", "eventsTail": "[]", "config": "{}"}
        bucket = {"id": run["name"], "name": run["name"], "historyLineCount": len(run["history"]), **tails}
        bucket |= {"eventsLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}'}
        return {"model": {"id": "p", "name": v["project"], "bucket": bucket}}

    def do_CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def do_Run(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        if run is None:
            return {"project": {"run": None}}
        state = {None: "running", 0: "finished"}.get(run["exit"], "failed")
        about = {"projectId": "1", "id": run["name"], "name": run["name"], "state": state}
        about |= {"config": json.dumps(run["config"]), "summaryMetrics": json.dumps(run["summary"])}
        about["user"] = {"name": ENTITY, "username": ENTITY}
        return {"project": {"run": about | {"tags": run["tags"], "group": run["groupName"]}}}

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


class _Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.0"  # no kept-alive connections: a stopped server is gone for its clients too

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path.endswith("/graphql"):
            answer: dict[str, Any] = {"data": self.standin.graphql(body["query"], body.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.standin.stream(self.path.split("/")[-2], body)
            answer = {}
        else:
            answer = {}
        self._send(answer)

    def do_PUT(self) -> None:
        self._body()
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
