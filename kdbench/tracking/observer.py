"""W&B as an observer: a child process holds the client, so that nothing it does can delay or end a run."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

import kdbench
from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import BadInput, KdbenchError, MachineFault
from kdbench.run.frame import row_of
from kdbench.run.launch import WandbOptions
from kdbench.run.observers import Progress
from kdbench.run.words import counted
from kdbench.tracking.client import INTERRUPTED, short
from kdbench.tracking.record import history_row, init_arguments, note, summary_row

PATIENCE = 90.0
"""Seconds without an answer after which the child counts as hung: more than the client's own time-outs allow."""
CLOSING = 60.0
"""Seconds that a plan waits in its end for the client."""
CHILDREN = 4
"""Processes of the client that a plan may lose before it goes on without."""
CLOSE = "close"
"""What stands in for a run's id in the last event."""


class Child:
    """A process with the client. ``tell`` never blocks."""

    def __init__(self, base_url: str | None = None) -> None:
        self.pending = 0
        """Events that were told and not answered."""
        self._since = 0.0
        self._told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        path = filter(None, [str(Path(kdbench.__file__).parent.parent), os.environ.get("PYTHONPATH")])
        more = {"WANDB_BASE_URL": base_url} if base_url else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kdbench.tracking.child"], text=True, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for target in (self._write, self._read):
            threading.Thread(target=target, daemon=True).start()

    def _write(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            for line in iter(self._told.get, None):
                self.process.stdin.write(line)
                self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.put(json.loads(line))
        self._heard.put({"error": "its process ended", "input": False})

    def tell(self, event: str, **more: Any) -> None:
        """Send an event."""
        if not self.pending:
            self._since = time.monotonic()
        self.pending += 1
        self._told.put(json.dumps({"event": event, **more}) + "\n")

    def hear(self, wait: float = 0.0) -> dict[str, Any] | None:
        """The next answer; None where there is none within ``wait`` seconds.

        Raises:
            MachineFault: the child has ended, or does not answer; it is killed then.
            BadInput: what the user gave is to blame.
        """
        try:
            answer = self._heard.get(wait > 0, wait)
        except queue.Empty:
            if not self.pending or time.monotonic() - self._since < PATIENCE:
                return None
            answer = {"error": f"no answer within {PATIENCE:.0f} s", "input": False}
        if "error" in answer:
            self.kill()
            raise (BadInput if answer["input"] else MachineFault)(answer["error"])
        self.pending -= 1
        self._since = time.monotonic()
        return answer

    def ask(self, event: str, **more: Any) -> dict[str, Any]:
        """The answer to an event, and to what was told before it; raises what ``hear`` raises."""
        self.tell(event, **more)
        answer: dict[str, Any] = {}
        while self.pending:
            answer = self.hear(1.0) or answer
        return answer

    def kill(self) -> None:
        """End it and the client's own background process, if they have not ended."""
        with suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
        self.process.kill()
        self._told.put(None)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


class WandbObserver:
    """Records every run of a plan named ``name`` below ``folder``; a failure costs records, never a run.

    A child that is lost costs nothing either while there may be another: it is told again, offline, of the runs that
    had not been recorded to their end. ``kdbench sync`` sends the rest from the run folders.
    """

    def __init__(
        self, folder: Path, name: str, options: WandbOptions, notify: Callable[[str], None],
        teacher: str | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._name, self._notify = folder, name, notify
        self._where = {"project": options.project, "entity": options.entity or os.environ.get("WANDB_ENTITY")}
        self._about = {"teacher": teacher} if teacher else {}
        self._mode: str = options.mode
        self._said: set[str] = set()
        self._under_way: dict[str, str] = {}
        self._kept: dict[str, list[dict[str, Any]]] = {}
        """By W&B id, what was told of runs whose end the child has not confirmed."""
        self._starts = self._failures = self._losses = 0
        self.child = self._begin()  # a server is asked before much is trained

    def progress(self, state: Progress) -> None:
        self._hear()

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        self._hear()

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        if before := self._under_way.pop(config.id, None):  # its worker died: that attempt has no end
            self._tell(before, event="end", summary={}, code=INTERRUPTED)
        extra = {**self._about, **({"run": label} if label else {})}
        arguments = init_arguments(config, sweep=self._name, attempt=attempt, extra=extra) | self._where
        self._starts += 1
        self._under_way[config.id] = arguments["id"]
        try:
            note(self._folder, {"run": config.id, "about": self._about, "arguments": arguments})
        except OSError as error:
            self._say(f"W&B: {short(error)}; training goes on")
        self._tell(arguments["id"], event="start", arguments=arguments)

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        if run := self._under_way.get(config.id):
            self._tell(run, event="epoch", row=history_row(log))

    def end(self, config: RunConfig, result: RunResult) -> None:
        if run := self._under_way.pop(config.id, None):
            row = {**row_of(self._name, config, result), **self._about}
            self._tell(run, event="end", summary=summary_row(row), code=int(result.status == "failed"))

    def close(self) -> None:
        """Runs under way end as interrupted. Waits at most ``CLOSING`` seconds."""
        until = time.monotonic() + CLOSING
        self._tell(CLOSE, event="close")
        while self.child and CLOSE in self._kept and time.monotonic() < until:
            self._hear(0.2)
        if self.child:
            self.child.kill()
            self.child = None
        interrupted = set() if CLOSE in self._kept else {*self._under_way.values()}
        self._failures += len(self._kept.keys() - {CLOSE} - interrupted)
        if self._failures:
            starts = counted(self._starts, "run")
            self._say(f"W&B: {self._failures} of {starts} not recorded whole: see `kdbench sync`")
        self._kept, self._under_way, self._failures, self._starts = {}, {}, 0, 0

    def _tell(self, run: str, **event: Any) -> None:
        self._hear()
        if self.child is not None:
            self._kept.setdefault(run, []).append({**event, "id": run})
            self.child.tell(**event, id=run)
        elif event["event"] == "start":
            self._failures += 1

    def _hear(self, wait: float = 0.0) -> None:
        """Take in what the child has answered."""
        while self.child is not None:
            try:
                answer = self.child.hear(wait)
            except KdbenchError as lost:
                return self._replace(str(lost))
            if answer is None:
                return
            if "note" in answer:
                self._mode = "offline"
                self._say(answer["note"])
            ended = answer.get("ended", "")
            self._kept.pop(ended, None)
            if ended == CLOSE:
                return

    def _replace(self, why: str) -> None:
        """Another child, told what the one before may not have recorded."""
        self.child, self._mode = None, "offline"
        self._losses += 1
        if self._losses < CHILDREN:
            self.child = self._begin()
        if self.child is not None:
            for event in [event for events in self._kept.values() for event in events]:
                self.child.tell(**event)
        else:
            why += "; nothing more is recorded"
            self._failures += len(self._kept.keys() - {CLOSE})
            self._kept.clear()
        self._say(f"W&B: recording failed ({why}); training goes on, `kdbench sync` sends what is missing")

    def _begin(self) -> Child | None:
        with suppress(OSError):  # no process to be had
            child = Child()
            child.tell("begin", root=str(self._folder.resolve()), mode=self._mode, strict=False)
            return child
        return None

    def _say(self, text: str) -> None:
        """Whatever is said again and again is said once."""
        if text not in self._said:
            self._said.add(text)
            self._notify(text)
