"""``python -m kdbench.tracking.child``: the wandb client in a process of its own, told of runs through stdin.

Every line is a JSON object ``{"event": ..., ...}`` and is answered by one line on stdout: ``begin`` (root, mode,
strict), then for any number of runs at a time ``start`` (id, arguments of ``wandb.init``, resume), ``epoch`` (id,
row), ``end`` (id, summary, code); ``look`` (run) asks the server; ``close`` ends it, as the end of stdin does. After an
``error`` the process ends: no state of the client's is repaired.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import BadInput, KdbenchError
from kdbench.tracking.client import INTERRUPTED, connect, run_settings, set_environment, short, silence

API_TIMEOUT = 15
ENDING = 90
"""Seconds that the end may take where no parent watches it."""


class Client:
    """What is told of runs, done; a method an event."""

    def __init__(self) -> None:
        self._runs: dict[str, Any] = {}
        self._api: Any = None

    def begin(self, root: str, mode: Literal["offline", "online"], strict: bool) -> dict[str, Any]:
        """Ask the server, where there is to be one; without it go on offline, unless ``strict``."""
        self._root = Path((not strict and os.environ.get("WANDB_DIR")) or root)
        self._mode: Literal["offline", "online"] = mode
        set_environment(Path(root))
        os.environ.pop("WANDB_SERVICE", None)
        if mode == "offline":
            silence()
            return {}
        try:
            self._api = connect(API_TIMEOUT)
            return {}
        except KdbenchError as error:
            if strict:
                raise
            self._mode = "offline"
            return {"note": f"{error}. Going on offline; `kdbench sync` sends the runs later"}

    def start(self, id: str, arguments: dict[str, Any], resume: str = "never") -> dict[str, Any]:
        """``never`` makes the server refuse an id that it has: another sweep's run is not overwritten."""
        folder = self._root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # the client would write to the system's temporary folder instead
            raise PermissionError(f"{folder} cannot be written to")
        import wandb

        more = {"resume": resume} if self._mode == "online" else {}
        self._runs[id] = run = wandb.init(**arguments, settings=run_settings(self._root, self._mode, **more))
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return {}

    def epoch(self, id: str, row: dict[str, Any]) -> dict[str, Any]:
        self._runs[id].log(row)
        return {}

    def end(self, id: str, summary: dict[str, Any], code: int) -> dict[str, Any]:
        run = self._runs.pop(id)
        run.summary.update(summary)
        run.finish(exit_code=code)
        return {"ended": id}

    def look(self, run: str) -> dict[str, Any]:
        """What the server has of ``[entity/]project/id``: epochs (None: no such run), start, status."""
        from wandb.apis.public.runs import RunNotFoundError

        self._api.flush()
        try:
            found = self._api.run(run)
            about = {"started": found.config.get("started"), "status": found.summary_metrics.get("status")}
            return {"epochs": found.lastHistoryStep + 1, **about}
        except Exception as error:  # noqa: BLE001  (the client wraps its own RunNotFoundError in some calls only)
            if isinstance(getattr(error, "exc", error), RunNotFoundError):
                return {"epochs": None}
            return {"why": f"the server did not answer about {run}: {short(error)}"}

    def close(self, id: str) -> dict[str, Any]:
        """Runs that have not ended were interrupted."""
        import wandb

        for run in self._runs.values():
            run.finish(exit_code=INTERRUPTED)
        wandb.teardown()
        return {"ended": id}


def main() -> None:
    """Do what stdin says until it ends; Ctrl-C is the parent's to act upon."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    answers = os.dup(1)
    os.dup2(2, 1)  # what the client prints is no answer
    client = Client()

    def do(told: dict[str, Any]) -> None:
        try:
            answer = getattr(client, told.pop("event"))(**told)
        except Exception as error:  # noqa: BLE001  (whatever it is costs records, which the parent says)
            answer = {"error": short(error), "input": isinstance(error, BadInput)}
        with suppress(OSError):  # the parent is gone: what it said last is still recorded
            os.write(answers, (json.dumps(answer) + "\n").encode())
        if "error" in answer:
            os._exit(1)

    told = {"event": ""}
    while told["event"] != "close":
        line = sys.stdin.readline()
        told = json.loads(line) if line.endswith("\n") else {"event": "close", "id": ""}  # the parent is gone
        if told["event"] == "close":
            faulthandler.dump_traceback_later(ENDING, exit=True)
        do(dict(told))
    os._exit(0)


if __name__ == "__main__":
    main()
