"""Send a plan's runs to W&B from their folders, and believe only what the server then says it holds."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault
from kdbench.run.scheduler import alone
from kdbench.run.store import read_config, read_epochs, read_result, run_folder
from kdbench.tracking.client import Notify, check_name, say
from kdbench.tracking.observer import Child, Lost, Row
from kdbench.tracking.record import history_row, note, read_journal, summary_row


@dataclass
class SyncReport:
    """What came of each run, by its W&B id."""

    uploaded: list[str] = field(default_factory=list)
    """Sent now and found on the server with their last epoch and their result."""
    already: list[str] = field(default_factory=list)
    """Were there whole before."""
    busy: list[str] = field(default_factory=list)
    """Have not ended."""
    failed: dict[str, str] = field(default_factory=dict)
    """Not on the server, or not whole, and why."""

    @property
    def ok(self) -> bool:
        """Everything that could be sent is there."""
        return not self.failed

    def __str__(self) -> str:
        counts = {"uploaded": self.uploaded, "already there": self.already, "failed": self.failed, "running": self.busy}
        return ", ".join(f"{len(runs)} {name}" for name, runs in counts.items() if runs or name == "uploaded")


def sync(
    folder: Path, row: Row, *, notify: Notify = say, entity: str | None = None, project: str | None = None,
    base_url: str | None = None, verify_seconds: float = 20.0,
) -> SyncReport:  # fmt: skip
    """Send the finished runs of a plan's folder that W&B does not hold whole, one by one.

    ``row`` makes a run's summary. Each run is asked for before and after: it is done when the server has its last
    epoch and its status, which may take ``verify_seconds`` to show. A second call sends only what is missing.
    ``project`` and ``entity`` default to the ones that were recorded and the key's own.

    Raises:
        BadInput: no runs in ``folder``, no key, an invalid name.
        MachineFault: the server is not reached.
    """
    starts, whole = read_journal(folder)
    if not starts:
        raise BadInput(f"no W&B runs under {folder}: was the sweep run with --wandb disabled?")
    check_name("entity", entity)
    check_name("project", project)
    try:
        with alone(folder):
            running = False
    except BadInput:
        running = True
    with tempfile.TemporaryDirectory(prefix="kdbench-") as place:
        sender = _Sender(folder, Path(place), row, notify, base_url, verify_seconds)
        try:
            sender.connect()
            for run_id, start in starts.items():
                about = start["arguments"]
                about["project"] = project or about["project"]
                about["entity"] = entity or about["entity"] or sender.entity
                sender.bring(run_id, start, running, whole.get(about["id"]))
        except Lost as lost:
            raise (BadInput if lost.input else MachineFault)(str(lost)) from lost
        finally:
            sender.close()
    return sender.report


_There = Literal["whole", "part", "absent", "foreign", "unknown"]


class _Sender:
    """One call's connection and report."""

    def __init__(
        self, folder: Path, place: Path, row: Row, notify: Notify, base_url: str | None, verify: float
    ) -> None:
        self.report, self.entity, self._server = SyncReport(), "", ""
        self._folder, self._place, self._row, self._notify = folder, place, row, notify
        self._base_url, self._verify = base_url, verify
        self._child: Child | None = None

    def connect(self) -> Child:
        """The child, begun anew where it was lost.

        Raises:
            Lost: no key, or no answer of the server.
        """
        if self._child is None:
            child = Child(self._place, "online", strict=True, base_url=self._base_url)
            about = child.wait()
            self._child, self.entity, self._server = child, about["entity"], about["server"]
        return self._child

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            with suppress(Lost):
                self._child.ask("close", id="")
            self._child.kill()

    def bring(self, run_id: str, start: dict[str, Any], running: bool, mark: Any) -> None:
        """Send a run unless the server has it, has another of its id, or cannot be asked."""
        about, place = start["arguments"], run_folder(self._folder, run_id)
        name, target = about["id"], "/".join(str(about[key]) for key in ("entity", "project", "id"))
        config, result, epochs = read_config(place), read_result(place), read_epochs(place)
        if config is None or result is None:
            self.report.busy.append(name)
            return self._notify(f"skipped {name}: it has not ended")
        whole = {"run": target, "server": self._server, "epochs": len(epochs)}
        if mark == whole:
            return self.report.already.append(name)
        wanted = {"epochs": len(epochs), "status": result.status, "started": about["config"]["started"]}
        try:
            there, why, held = self._look(target, wanted)
            if there == "part" and running:
                self.report.busy.append(name)
                return self._notify(f"skipped {name}: it may still be sent by the sweep that runs")
            if there in ("foreign", "unknown"):
                return self._fail(name, why)
            if there != "whole":
                self._send(start, config, result, epochs[held:], sum(log.seconds for log in epochs[:held]), there)
                until = time.monotonic() + self._verify
                while (found := self._look(target, wanted))[0] != "whole" and time.monotonic() < until:
                    time.sleep(0.5)
                if found[0] != "whole":
                    return self._fail(name, found[1])
                self._notify(f"uploaded {target}")
        except Lost as lost:
            self._child = None
            return self._fail(name, f"W&B: {lost}")
        note(self._folder, {"id": name, "whole": whole})
        (self.report.already if there == "whole" else self.report.uploaded).append(name)

    def _fail(self, name: str, why: str) -> None:
        self.report.failed[name] = why
        self._notify(f"not uploaded: {name}: {why}")

    def _look(self, target: str, wanted: dict[str, Any]) -> tuple[_There, str, int]:
        """What the server has of a run, that in words, and how many epochs."""
        found = self.connect().ask("look", run=target)
        if "why" in found:
            return "unknown", found["why"], 0
        if found["epochs"] is None:
            return "absent", f"{target} is not on the server", 0
        if found["started"] != wanted["started"]:
            other = f"{target} is another run, started {found['started']} and not {wanted['started']}"
            return "foreign", f"{other}: choose another --wandb-project", 0
        whole = found["epochs"] >= wanted["epochs"] and found["status"] == wanted["status"]
        return (
            "whole" if whole else "part",
            f"{target} has {found['epochs']} of {wanted['epochs']} epochs",
            found["epochs"],
        )

    def _send(
        self, start: dict[str, Any], config: RunConfig, result: RunResult, epochs: list[EpochLog], after: float,
        there: _There,
    ) -> None:  # fmt: skip
        """Tell the child of a run as the observer would have, each epoch at the time that it ended."""
        child, about = self.connect(), start["arguments"]
        child.tell("start", id=about["id"], arguments=about, resume="never" if there == "absent" else "allow")
        at = datetime.fromisoformat(about["config"]["started"]).timestamp() + after
        for log in epochs:
            at += log.seconds
            child.tell("epoch", id=about["id"], row={**history_row(log), "_timestamp": at})
        row = {**self._row(about["group"], config, result), **start["about"]}
        child.ask("end", id=about["id"], summary=summary_row(row), code=int(result.status == "failed"))
