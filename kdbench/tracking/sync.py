"""Send a plan's runs to W&B from their folders, and believe only what the server then says it holds."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kdbench.errors import BadInput, KdbenchError
from kdbench.run.frame import row_of
from kdbench.run.scheduler import alone
from kdbench.run.store import Run, read_config, read_epochs, read_result, run_folder
from kdbench.run.words import counted
from kdbench.tracking.client import Notify, check_name, say
from kdbench.tracking.observer import Child
from kdbench.tracking.record import TARGET, history_row, read_journal, summary_row


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
    folder: Path, *, entity: str | None = None, project: str | None = None, base_url: str | None = None,
    notify: Notify = say, verify_seconds: float = 20.0,
) -> SyncReport:  # fmt: skip
    """Send the finished runs of a plan's folder that W&B does not hold whole, one by one.

    Each run is asked for before and after: it is whole when the server has its last
    epoch and its status, which may take ``verify_seconds`` to show. A second call sends only what is missing.
    ``project`` and ``entity`` default to the ones that were recorded and the key's own.

    Raises:
        BadInput: no runs in ``folder``, no key, an invalid name.
        MachineFault: the server is not reached.
    """
    starts = read_journal(folder, notify)
    if not starts:
        old = f"`wandb sync {folder}/wandb/offline-*` sends what an earlier release recorded"
        raise BadInput(f"no W&B runs under {folder}: was the sweep run with --wandb disabled? ({old})")
    check_name("entity", entity)
    check_name("project", project)
    try:
        with alone(folder):
            running = False
    except BadInput:
        running = True
    with tempfile.TemporaryDirectory(prefix="kdbench-") as place:
        sender = _Sender(Path(place), base_url, notify, verify_seconds)
        try:
            sender.child()
            for run_id, start in starts.items():
                about, where = start["arguments"], run_folder(folder, run_id)
                about |= {"project": project or about["project"], "entity": entity or about["entity"]}
                config, result = read_config(where), read_result(where)
                if config is None or result is None:
                    sender.skip(about["id"], "it has not ended")
                else:
                    sender.bring(start, Run(config, result, read_epochs(where)), running)
        finally:
            sender.close()
    return sender.report


class _Sender:
    """One call's child and report."""

    def __init__(self, place: Path, base_url: str | None, notify: Notify, verify: float) -> None:
        self.report = SyncReport()
        self._place, self._base_url, self._notify, self._verify = place, base_url, notify, verify
        self._child: Child | None = None

    def child(self) -> Child:
        """The child, begun anew where the one before was lost.

        Raises:
            KdbenchError: no key, or no answer of the server.
        """
        if self._child is None:
            child = Child(self._base_url)
            child.ask("begin", root=str(self._place), mode="online", strict=True)
            self._child = child
        return self._child

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            with suppress(KdbenchError):
                self._child.ask("close", id="")
            self._child.kill()

    def skip(self, name: str, why: str) -> None:
        """Leave a run for a later call."""
        self.report.busy.append(name)
        self._notify(f"skipped {name}: {why}")

    def bring(self, start: dict[str, Any], run: Run, running: bool) -> None:
        """Send a run unless the server has it, has another of its id, or cannot be asked."""
        about = start["arguments"]
        name, target = about["id"], "/".join(filter(None, (about[key] for key in TARGET)))
        try:
            held = self.child().ask("look", run=target)
            mine, other = about["config"]["started"], held.get("started")
            if held.get("epochs") is not None and other != mine:
                held["why"] = f"{target} is another run, started {other} and not {mine}: choose another --wandb-project"
            elif _whole(held, run):
                return self.report.already.append(name)
            elif running and held.get("epochs") is not None:
                return self.skip(name, "it may still be sent by the sweep that runs")
            if "why" not in held:
                self._send(start, run, held["epochs"])
                until = time.monotonic() + self._verify
                while not _whole(held := self.child().ask("look", run=target), run) and time.monotonic() < until:
                    time.sleep(0.5)
                if _whole(held, run):
                    self._notify(f"uploaded {target}")
                    return self.report.uploaded.append(name)
            why = held.get("why") or f"{target} has {held['epochs'] or 0} of {counted(len(run.epochs), 'epoch')}"
        except KdbenchError as error:
            self._child, why = None, f"W&B: {error}"
        self.report.failed[name] = why
        self._notify(f"not uploaded: {name}: {why}")

    def _send(self, start: dict[str, Any], run: Run, held: int | None) -> None:
        """Tell the child of a run as the observer would have, each epoch at the time that it ended."""
        about, name, child = start["arguments"], start["arguments"]["id"], self.child()
        child.tell("start", id=name, arguments=about, resume="never" if held is None else "allow")
        at = datetime.fromisoformat(about["config"]["started"]).timestamp()
        for number, log in enumerate(run.epochs):
            at += log.seconds
            if number >= (held or 0):
                child.tell("epoch", id=name, row={**history_row(log), "_timestamp": at})
        row = {**row_of(about["group"], run.config, run.result), **start["about"]}
        child.ask("end", id=name, summary=summary_row(row), code=int(run.result.status == "failed"))


def _whole(held: dict[str, Any], run: Run) -> bool:
    """Whether the server holds a run to its end."""
    return (held.get("epochs") or 0) >= len(run.epochs) and held.get("status") == run.result.status
