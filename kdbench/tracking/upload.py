"""Send a sweep's offline runs to W&B later, and believe only what the server then says it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import BadInput, MachineFault
from kdbench.tracking import lock
from kdbench.tracking.make import say
from kdbench.tracking.offline import OfflineRun, find_runs, read_offline
from kdbench.tracking.service import Notify, Service, check_name, connect, wandb_faults

_MARK = "uploaded.json"
_API_TIMEOUT = 15
_UPLOAD_TIMEOUT = 900


@dataclass
class SyncReport:
    """What came of each run: ids, or files where a run has no id."""

    uploaded: list[str] = field(default_factory=list)
    """Sent now and found on the server with their last step."""
    already: list[str] = field(default_factory=list)
    """Were there whole before."""
    dead: list[Path] = field(default_factory=list)
    """Files with nothing to send: killed within their first second, or begun anew offline."""
    busy: list[str] = field(default_factory=list)
    """Still being written."""
    failed: dict[str, str] = field(default_factory=dict)
    """Not on the server, or not whole, and why."""

    @property
    def ok(self) -> bool:
        """Everything that could be sent is there."""
        return not self.failed

    def __str__(self) -> str:
        counts = {"uploaded": len(self.uploaded), "already there": len(self.already), "failed": len(self.failed)}
        counts |= {"still running": len(self.busy), "empty": len(self.dead)}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "uploaded")


def sync(
    root: Path,
    *,
    entity: str | None = None,
    project: str | None = None,
    base_url: str | None = None,
    notify: Notify = say,
    verify_seconds: float = 20.0,
) -> SyncReport:
    """Upload the runs under ``root`` that the server does not hold whole, one by one, with the client's ``wandb sync``.

    ``wandb sync`` reports success whatever happens, so each run is asked for afterwards: it is done when the server
    has its last step; it may take ``verify_seconds`` to show it. A second call sends only what is missing. ``project``
    and ``entity`` default to the one recorded and the key's own.

    Raises:
        BadInput: no runs under ``root``, no key, an invalid name.
        MachineFault: the server is not reached.
    """
    files = find_runs(root)
    if not files:
        raise BadInput(f"no W&B runs under {root}: was the sweep run with --wandb disabled?")
    for kind, name in (("entity", entity), ("project", project)):
        if name is not None:
            check_name(kind, name)
    service = Service(root, base_url=base_url)
    try:
        sender = _Sender(connect(_API_TIMEOUT), entity, project, notify, verify_seconds)
        for file in files:
            sender.bring(file, files)
    finally:
        service.close()
    return sender.report


_There = Literal["whole", "part", "absent", "foreign", "unknown"]


class _Sender:
    """One call's connection and report."""

    def __init__(self, api: Any, entity: str | None, project: str | None, notify: Notify, verify: float) -> None:
        self.report = SyncReport()
        self._api = api
        self._entity = entity or api.default_entity or ""
        self._project = project
        self._host = str(api.settings["base_url"])
        self._notify = notify
        self._verify = verify

    def bring(self, file: Path, files: list[Path]) -> None:
        """Bring the run of one of ``files`` to the server, and note in ``report`` how that went."""
        report = self.report
        try:
            run = read_offline(file)
        except BadInput as error:
            self._fail(str(file), str(error))
            return
        target = f"{self._entity}/{self._project or run.project}/{run.run_id}"
        mark = {"run": target, "last_step": run.last_step, "server": self._host}
        if run.dead or _superseded(run, files):
            report.dead.append(file)
            self._notify(f"skipped {file}: nothing was recorded in it")
        elif lock.held(file.parent):
            report.busy.append(run.run_id)
            self._notify(f"skipped {run.run_id}: it is still being written")
        elif _marked(file.parent) == mark:
            report.already.append(run.run_id)
        else:
            self._bring_missing(file.parent, run, target, mark)

    def _bring_missing(self, folder: Path, run: OfflineRun, target: str, mark: dict[str, Any]) -> None:
        """Upload unless the server has the run, has another of its id, or cannot be asked (a second copy of rows)."""
        there, why = self._look(target, run)
        if there == "whole":
            self.report.already.append(run.run_id)
            _mark(folder, mark)
            return
        if there in ("foreign", "unknown"):
            self._fail(run.run_id, why)
            return
        if there == "part":
            self._notify(f"{why}: sending all of it, rows that are there will be there twice")
        said = _upload(folder, target)
        there, why = self._await(target, run)
        if there == "whole":
            self.report.uploaded.append(run.run_id)
            _mark(folder, mark)
            self._notify(f"uploaded {target}")
        else:
            self._fail(run.run_id, f"{why}; wandb said: {said}")

    def _fail(self, name: str, why: str) -> None:
        self.report.failed[name] = why
        self._notify(f"not uploaded: {name}: {why}")

    def _look(self, target: str, run: OfflineRun) -> tuple[_There, str]:
        """What the server has of ``run``, and that in words."""
        from wandb.apis.public.runs import RunNotFoundError

        self._api.flush()
        try:
            remote = self._api.run(target)
            step = remote.lastHistoryStep
        except wandb_faults(ValueError) as error:  # the client wraps its own RunNotFoundError in some calls only
            if isinstance(getattr(error, "exc", error), RunNotFoundError):
                return "absent", f"{target} is not on the server"
            return "unknown", f"the server did not answer about {target}: {error}"
        mine, theirs = run.config.get("started"), remote.config.get("started")
        if mine and theirs and mine != theirs:
            why = f"{target} is another run, started {theirs} and not {mine}: choose another --wandb-project"
            return "foreign", why
        return ("part" if step < run.last_step else "whole"), f"{target} has step {step} of {run.last_step}"

    def _await(self, target: str, run: OfflineRun) -> tuple[_There, str]:
        """``_look`` once the server has had time to take the upload in."""
        end = time.monotonic() + self._verify
        while (found := self._look(target, run))[0] != "whole" and time.monotonic() < end:
            time.sleep(0.5)
        return found


def _superseded(run: OfflineRun, files: list[Path]) -> bool:
    """Whether this is what a failed online start leaves: no rows, and the same run written anew, offline."""
    if run.history or run.path.parent.name.startswith("offline-"):
        return False
    return any(other.name == run.path.name and other.parent.name.startswith("offline-") for other in files)


def _upload(folder: Path, target: str) -> str:
    """Run ``wandb sync`` on one run's folder in a process of its own; the last lines it printed."""
    entity, project, _ = target.split("/")
    where = ["--entity", entity, "--project", project]
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", "--include-online", *where, str(folder)]
    env = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_UPLOAD_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"nothing within {_UPLOAD_TIMEOUT} s"
    except OSError as error:
        raise MachineFault(f"cannot start `wandb sync`: {error}") from error
    return " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:])


def _mark(folder: Path, mark: dict[str, Any]) -> None:
    (folder / _MARK).write_text(json.dumps(mark) + "\n")


def _marked(folder: Path) -> Any:
    """What an earlier call found whole, and where."""
    try:
        return json.loads((folder / _MARK).read_text())
    except (FileNotFoundError, ValueError):
        return None
