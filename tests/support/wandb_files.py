"""W&B's ``.wandb`` files read back: protobuf records in LevelDB's log framing; the client ships no reader."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OfflineRun:
    """What a run's file holds; a row of ``history`` is one ``log`` call."""

    run_id: str = ""
    project: str = ""
    entity: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    """None where the run was never ended."""

    @property
    def dead(self) -> bool:
        """The process was killed before the run itself was written."""
        return not self.run_id


def find_runs(root: Path) -> list[Path]:
    """Every run's ``.wandb`` file under ``root``, oldest first."""
    return sorted(root.rglob("*run-*/*.wandb"), key=lambda path: (path.parent.name.removeprefix("offline-"), str(path)))


def read_offline(path: Path) -> OfflineRun:
    """The whole records of a file; a cut tail is left out."""
    from wandb.proto import wandb_internal_pb2 as protocol

    data, at, payload, run = path.read_bytes(), 7, b"", OfflineRun()
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:  # no chunk header fits: zeros
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        body = data[at + 7 : at + 7 + length]
        if not 1 <= kind <= 4 or len(body) < length:
            break
        at += 7 + length
        payload = body if kind in (1, 2) else payload + body  # whole or first; else a later part
        if kind in (1, 4):  # whole or last
            _apply(getattr(protocol, "Record").FromString(payload), run)  # noqa: B009  (made at import)
    return run


def logged(run: OfflineRun) -> list[dict[str, Any]]:
    """Its history without W&B's own columns."""
    return [{key: value for key, value in row.items() if key[0] != "_"} for row in run.history]


def _apply(record: Any, run: OfflineRun) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        about = record.run
        run.run_id, run.project, run.entity, run.name = about.run_id, about.project, about.entity, about.display_name
        run.group, run.job_type, run.tags = about.run_group, about.job_type, tuple(about.tags)
        run.config |= _values(about.config.update)
    elif kind == "config":
        run.config |= _values(record.config.update)
    elif kind == "summary":
        run.summary |= _values(record.summary.update)
    elif kind == "history":
        run.history.append(_values(record.history.item))
    elif kind == "exit":
        run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
