"""Names, config rows and the reader of W&B's file format."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.config import DataConfig, EpochLog, Phase, Recipe, RunConfig
from kdbench.errors import BadInput
from kdbench.tracking import NullTracker, find_runs, make_tracker, read_offline, run_id
from kdbench.tracking.base import describe, flatten, history_row, tags


def trial(phase: Phase = "search", **more: object) -> RunConfig:
    fields = {"data": DataConfig(name="digits"), "model": "resnet18", "teacher": "resnet50", "method": "kd"}
    fields |= {"hyper": {"temperature": 4.0, "alpha": 0.5}, "recipe": Recipe(), "seed": 1, "phase": phase}
    return RunConfig.model_validate(fields | more)


def test_run_ids_are_valid_and_differ_by_trial_attempt_and_sweep() -> None:
    ids = [run_id(t, s, a) for t in ("0" * 12, "f" * 12) for s in ("one", "a/b: #?%\\") for a in (1, 2, 11)]
    assert len(set(ids)) == len(ids)
    assert not set("/\\#?%:") & set("".join(ids))


def test_config_row_holds_every_field_of_the_trial_flat() -> None:
    config = trial()
    row = describe(config, sweep="s", attempt=3, extra={"git": {"rev": "abc"}})
    assert row["recipe_lr"] == config.recipe.lr and row["data_name"] == row["dataset"] == "digits"
    assert (row["temperature"], row["hyper_alpha"], row["student"], row["git_rev"]) == (4.0, 0.5, "resnet18", "abc")
    assert row["retry_of"] == run_id(config.id, "s", 2)
    assert row["trial_id"] == config.id
    assert not any(isinstance(value, dict) or "." in key for key, value in row.items())
    fields = flatten(config.model_dump(mode="json"))
    assert fields == {key: row[key] for key in fields}
    assert "retry_of" not in describe(config, sweep="s", attempt=1, extra={})


def test_a_teacher_is_its_own_teacher_and_nobodys_student() -> None:
    row = describe(trial("teacher", model="resnet50", teacher=None, method="hard"), sweep="s", attempt=1, extra={})
    assert (row["teacher"], row["student"]) == ("resnet50", None)
    assert tags(row) == ("digits", "resnet50", "hard", "teacher")


def test_long_tags_are_cut() -> None:
    row = describe(trial(data=DataConfig(name="folder:" + "x" * 200)), sweep="s", attempt=1, extra={})
    assert max(map(len, tags(row))) == 64


def test_history_row_drops_what_was_not_measured() -> None:
    log = EpochLog(epoch=2, lr=0.1, train_loss=1, train_acc=0, val_loss=1, val_acc=0, val_kl=0.0, parts={"soft": 2})
    row = history_row(log)
    assert row["val_kl"] == 0.0 and row["parts/soft"] == 2 and "val_agreement" not in row


@pytest.mark.parametrize(("mode", "project"), [("on", "p"), ("offline", "a/b"), ("offline", "")])
def test_bad_choices_are_refused(tmp_path: Path, mode: str, project: str) -> None:
    with pytest.raises(BadInput):
        make_tracker(mode, root=tmp_path, project=project)
    assert not list(tmp_path.iterdir())


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    tracker = make_tracker("disabled", root=tmp_path, project="p")
    assert isinstance(tracker, NullTracker)
    assert tracker.start(trial(), sweep="s", attempt=1, extra={}) is None
    tracker.close()
    assert not list(tmp_path.iterdir())


def framed(payloads: list[bytes]) -> bytes:
    """``payloads`` in LevelDB's framing, written as its specification says (an oracle for the reader)."""
    out = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
    for payload in payloads:
        rest, first = payload, True
        while first or rest:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return out


def history(values: list[str]) -> bytes:
    from wandb.proto.wandb_internal_pb2 import Record

    payloads = []
    for step, text in enumerate(values):
        record = Record()
        record.history.step.num = step
        record.history.item.add(key="text", value_json=f'"{text}"')
        payloads.append(record.SerializeToString())
    return framed(payloads)


@settings(deadline=None)  # the first example imports wandb
@given(st.lists(st.integers(0, 70_000), max_size=6), st.data())
def test_reader_gives_every_whole_record_of_any_prefix(sizes: list[int], data: st.DataObject) -> None:
    import tempfile

    texts = ["x" * size for size in sizes]
    whole = history(texts)
    cut = data.draw(st.integers(7, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run-a.wandb")
        file.write_bytes(whole[:cut])
        run = read_offline(file)
    read = [row["text"] for row in run.history]
    assert read == texts[: len(read)]
    ends = [len(history(texts[:n])) for n in range(len(texts) + 1)]
    assert len(read) == max(n for n, end in enumerate(ends) if end <= cut)
    assert run.truncated == (cut not in ends) or set(whole[max(e for e in ends if e <= cut) : cut]) <= {0}


def test_a_damaged_block_loses_only_itself(tmp_path: Path) -> None:
    texts = [letter * 20_000 for letter in "abcde"]
    data = bytearray(history(texts))
    data[100] ^= 1
    file = tmp_path / "run-a.wandb"
    file.write_bytes(data)
    run = read_offline(tmp_path)
    assert [row["text"][0] for row in run.history] == ["c", "d", "e"] and run.truncated


@pytest.mark.parametrize("content", [b"", struct.pack("<4sHB", b":W&B", 0xBEE1, 0)])
def test_dead_files_are_dead(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "wandb" / "offline-run-1-a"
    folder.mkdir(parents=True)
    (folder / "run-a.wandb").write_bytes(content)
    (found,) = find_runs(tmp_path)
    run = read_offline(found)
    assert run.dead and run.last_step == -1 and run.exit_code is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.wandb"
    file.write_bytes(b"not a run at all")
    with pytest.raises(BadInput, match="not a W&B run"):
        read_offline(file)
    with pytest.raises(BadInput, match="cannot read"):
        read_offline(tmp_path / "absent.wandb")
