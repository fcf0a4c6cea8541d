"""Write each trial attempt as a W&B run with the real client, offline unless a server answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import KdbenchError
from kdbench.tracking import lock
from kdbench.tracking.apart import apart
from kdbench.tracking.base import describe, history_row, run_id, tags
from kdbench.tracking.service import (
    CALL_PATIENCE,
    INTERRUPTED,
    Notify,
    Service,
    connect,
    settings,
    silence,
    wandb_faults,
)

FAILED = 1
"""Exit code of a failed trial."""


class _Record:
    """One attempt's W&B run, from when it is asked for until it is over or given up."""

    def __init__(self) -> None:
        self.service = Service.generation
        self.run: Any = None
        self._lock: IO[bytes] | None = None
        self._dropped = False

    def begin(self, root: Path, mode: str, about: Mapping[str, Any]) -> None:
        """Start the run under ``root``. One that comes after it was given up ends as interrupted."""
        import wandb

        silence()
        folder = root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # the client would write to the system's temporary folder instead
            raise PermissionError(f"{folder} cannot be written to")
        # `never` makes the server refuse an id it has: another sweep's run of the same name is not overwritten.
        more = {"resume": "never"} if mode == "online" else {}
        self.run = run = wandb.init(**about, settings=settings(root, mode, **more))
        try:
            self._lock = lock.hold(Path(run.dir).parent)
            run.define_metric("epoch")
            run.define_metric("*", step_metric="epoch")
            if self._dropped:
                self.end(INTERRUPTED)
        finally:
            if self._dropped:
                self.drop()

    def end(self, exit_code: int) -> None:
        """Finish the run, if there is one."""
        if self.run is not None:
            self.run.finish(exit_code=exit_code)

    def drop(self) -> None:
        """Let go of the run's folder."""
        self._dropped = True
        held, self._lock = self._lock, None
        if held is not None:
            held.close()


class WandbTracker:
    """One run a trial attempt: group = sweep, job type = phase, history against ``epoch``, summary = the trial's row.

    Runs are independent of each other (``reinit="create_new"``) and ``wandb.run`` is never set. A recording failure
    ends the record of that attempt, and of those that other trackers of the process have under way (all share the
    client's background process, which is dropped): the next ``start`` tries again.
    """

    def __init__(
        self, root: Path, *, project: str, entity: str | None, online: bool, base_url: str | None, notify: Notify
    ) -> None:
        self.root = root
        self.project = project
        self.entity = entity
        self.failures = 0
        self._notify = notify
        self._record: _Record | None = None
        self._attempts = 0
        self._doubted = False
        self._service = Service(root, base_url=base_url)
        self._mode = "online" if online and self._reachable() else "offline"

    @property
    def mode(self) -> str:
        """``online`` or ``offline``: what the next run will be."""
        return self._mode

    def start(self, config: RunConfig, *, sweep: str, attempt: int, extra: Mapping[str, Any]) -> str | None:
        """Begin the attempt's run; its id, or None where the client failed (said and counted)."""
        self._end(INTERRUPTED)
        self._attempts += 1
        config_row = describe(config, sweep=sweep, attempt=attempt, extra=extra)
        config_row["started"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        name = run_id(config.id, sweep, attempt)
        about = {
            "id": name,
            "name": f"{config.phase} {config.model} {config.method} s{config.seed}",
            "project": self.project,
            "entity": self.entity,
            "group": sweep,
            "job_type": config.phase,
            "tags": tags(config_row),
            "config": config_row,
        }
        if self._doubted:  # the last online run was not recorded whole: ask in 3 s, not in the 20 s of a start
            self._doubted = False
            self._mode = "online" if self._reachable() else "offline"
        if self._mode == "online":
            error = self._begin(about)
            if error is None:
                return name
            self._notify(f"W&B: no run online ({_short(error)}). Going on offline; `kdbench sync` sends the runs later")
            self._mode = "offline"
        return name if self._whole(self._begin(about)) else None

    def epoch(self, log: EpochLog) -> None:
        """One history row, with ``epoch`` as its axis."""
        record = self._record
        if record is not None:
            self._guard(lambda: record.run.log(history_row(log)))

    def finish(self, result: RunResult, row: Mapping[str, Any]) -> None:
        """Write the trial's row as summary and end the run: exit code 1 for a failed trial, else 0."""
        record = self._record
        if record is None:
            return
        if self._guard(lambda: record.run.summary.update({key: _plain(value) for key, value in row.items()})):
            self._end(FAILED if result.status == "failed" else 0)

    def close(self) -> None:
        """End an unfinished run as interrupted, then wandb's background process. Safe to call twice."""
        try:
            self._end(INTERRUPTED)
        finally:  # a second Ctrl-C
            self._service.close()
        if self.failures:
            self._notify(f"W&B: {self.failures} of {self._attempts} trial attempts were not recorded whole")
            self.failures, self._attempts = 0, 0

    def _reachable(self) -> bool:
        try:
            apart(connect, CALL_PATIENCE)
        except wandb_faults(KdbenchError, ValueError) as error:
            self._notify(f"{error}. Going on offline; `kdbench sync` sends the runs later")
            if Service.users == 1:  # runs of other trackers may be going on
                self._service.restart()
            return False
        return True

    def _begin(self, about: Mapping[str, Any]) -> BaseException | None:
        record, mode = _Record(), self._mode
        self._record = record
        return self._attempt(lambda: record.begin(self.root, mode, about))

    def _end(self, exit_code: int) -> None:
        record = self._record
        if record is not None:
            self._guard(lambda: record.end(exit_code))  # after a start that was interrupted, and goes on
            self._forget()

    def _forget(self) -> None:
        if self._record is not None:
            self._record.drop()
            self._record = None

    def _guard(self, action: Callable[[], Any]) -> bool:
        """Do ``action``; where that fails give up this run's record."""
        return self._whole(self._attempt(action))

    def _whole(self, error: BaseException | None) -> bool:
        """Whether there is none; one is counted, and the first is told."""
        if error is None:
            return True
        self.failures += 1
        self._doubted = self._mode == "online"
        if self.failures == 1:
            kept = self.root / "wandb"
            self._notify(f"W&B: recording failed ({_short(error)}); training goes on, {kept} keeps what was written")
        return False

    def _attempt(self, action: Callable[[], Any]) -> BaseException | None:
        """Do ``action``; what the client raised, after dropping the run and the background process it was with."""
        since = self._record.service if self._record is not None else None
        try:
            apart(action, CALL_PATIENCE)
        except wandb_faults(ValueError) as error:  # "inside async loop": a thread with a dropped client's number
            self._forget()
            self._service.restart(since)
            return error
        return None


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".strip(": ").split())[:300]


def _plain(value: Any) -> Any:
    """Scalars of numpy as Python's, NaN as None (W&B would store a text)."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
