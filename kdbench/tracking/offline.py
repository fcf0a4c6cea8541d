"""Read a W&B run's ``.wandb`` file back, record by record, without a server.

The file is a log of protobuf records (``wandb.proto.wandb_internal_pb2.Record``) in LevelDB's framing: a 7-byte
header, then 32 KiB blocks of chunks, each with CRC-32, length and type. The client no longer ships a reader.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdbench.errors import BadInput

_HEADER = struct.Struct("<4sHB")
_MAGIC = (b":W&B", 0xBEE1)
_CHUNK = struct.Struct("<IHB")
_BLOCK = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What a run's file holds; a row of ``history`` is one ``log`` call, with W&B's ``_step`` and ``_timestamp``."""

    path: Path
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
    """None where the run was never ended (killed, or still going on)."""
    records: int = 0
    """Whole records read."""
    truncated: bool = False
    """The file ends within a record, or has damaged blocks, which were skipped."""

    @property
    def dead(self) -> bool:
        """Nothing to upload: the process was killed before the run itself was written."""
        return not self.run_id

    @property
    def last_step(self) -> int:
        """W&B's number of the last history row, -1 without any."""
        return int(self.history[-1].get("_step", len(self.history) - 1)) if self.history else -1


def find_runs(root: Path) -> list[Path]:
    """Every run's ``.wandb`` file under ``root`` (a sweep's folder), oldest first."""
    found = [path for path in root.rglob("*.wandb") if path.is_file() and path.parent.name.startswith(_RUN_FOLDERS)]
    return sorted(found, key=lambda path: (path.parent.name.removeprefix("offline-"), str(path)))


_RUN_FOLDERS = ("offline-run-", "run-")


def read_offline(path: Path) -> OfflineRun:
    """The run in ``path``, a ``.wandb`` file or the run folder that holds one. A cut tail is left out, not an error.

    Raises:
        BadInput: no such file, several, or not a W&B file.
    """
    from wandb.proto import wandb_internal_pb2 as protocol

    file = _file_of(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read W&B run {file}: {error}") from error
    run = OfflineRun(file)
    if not data:
        return run
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[:2] != _MAGIC:
        raise BadInput(f"{file} is not a W&B run file")
    record = getattr(protocol, "Record")  # noqa: B009  (made at import, unknown to type checkers)
    for payload in _records(data, run):
        _apply(record.FromString(payload), run)
        run.records += 1
    return run


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.wandb"))
    if len(files) != 1:
        raise BadInput(f"{path} holds {len(files)} .wandb files; name a run's own folder or file")
    return files[0]


def _records(data: bytes, run: OfflineRun) -> Iterator[bytes]:
    """Payloads of whole records; sets ``run.truncated`` where something was skipped."""
    at, parts = _HEADER.size, list[bytes]()
    while at < len(data):
        room = _BLOCK - at % _BLOCK
        if room < _CHUNK.size:  # the rest of a block that cannot hold a chunk header is zeros
            at += room
            continue
        if at + _CHUNK.size > len(data):
            break
        crc, length, kind = _CHUNK.unpack_from(data, at)
        body = data[at + _CHUNK.size : at + _CHUNK.size + length]
        if len(body) < length or zlib.crc32(body, zlib.crc32(bytes([kind]))) != crc:
            run.truncated, parts = True, []
            at += room  # the next block begins with a chunk again
            continue
        at += _CHUNK.size + length
        if kind in (_FULL, _FIRST):
            parts = [body]
        elif parts:
            parts.append(body)
        if kind in (_FULL, _LAST) and parts:
            yield b"".join(parts)
            parts = []
    run.truncated |= bool(parts) or at < len(data)


def _apply(record: Any, run: OfflineRun) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        about = record.run
        run.run_id, run.project, run.entity, run.name = about.run_id, about.project, about.entity, about.display_name
        run.group, run.job_type, run.tags = about.run_group, about.job_type, tuple(about.tags)
        _update(run.config, about.config)
        _update(run.summary, about.summary)
    elif kind == "config":
        _update(run.config, record.config)
    elif kind == "summary":
        _update(run.summary, record.summary)
    elif kind == "history":
        run.history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        if record.history.HasField("step"):
            run.history[-1].setdefault("_step", record.history.step.num)
    elif kind == "exit":
        run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)


def _update(target: dict[str, Any], change: Any) -> None:
    for item in change.update:
        target[_key(item)] = json.loads(item.value_json)
    for item in change.remove:
        target.pop(_key(item), None)


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)
