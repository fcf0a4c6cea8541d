"""Every file that a plan or the cache keeps, cut off, emptied or replaced: repaired by running again, or named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import kdbench
from kdbench.config import RunConfig
from kdbench.errors import MachineFault
from kdbench.run import worker
from kdbench.run.store import load_runs
from kdbench.train import RunOutcome
from tests.support.helpers import Cli
from tests.support.sweeps import SMALL, TEACHER, UNEQUAL, WHOLE

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda old: old[: len(old) // 2],
    "empty": lambda old: b"",
    "no text": lambda old: b"\xff\xfe\x00" * 99,
    "of another kind": lambda old: b'{"starts": 5, "latency_ms": [3], "sweep": [7], "x": "y"}\n',
    "a list": lambda old: b'[["x"], 7]\n',
}
pytestmark = pytest.mark.usefixtures("hasty")
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
turns = cycle(DAMAGES.values())
quickly = pytest.mark.parametrize(  # each trains some runs again
    "damage",
    [lambda old: next(turns)(old), *(pytest.param(f, marks=pytest.mark.slow) for f in DAMAGES.values())],
    ids=["one after another", *DAMAGES],
)
Damage = Callable[[bytes], bytes]


def spoil(damage: Damage, *paths: Path) -> None:
    assert paths
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))


def again() -> pd.DataFrame:
    """The runs table, after the finished sweep's command was given once more."""
    about = {"name": "whole", "budget": "smoke", "precision": "fp32", "workers": 1, "wandb": "disabled"}
    return kdbench.sweep(WHOLE[1], **about, progress=False).runs.drop(columns=UNEQUAL)


@quickly
def test_what_runs_and_cache_hold_is_made_again(damage: Damage, finished: Path) -> None:
    before = kdbench.load(finished).runs
    students = before.query("phase != 'teacher'")["trial_id"].tolist()
    (teacher,) = before.query("phase == 'teacher'")["trial_id"]
    for number, name in enumerate(students):
        place = finished / "trials" / name
        file = ("config.json", "result.json", "metrics.jsonl", "starts")[number % 4]
        spoil(damage, place / file)
        if number % 4 == 3:  # trained again with what the cache holds
            shutil.copy(place / file, place / "lease")
            (place / "result.json").unlink()
    (finished / "trials" / teacher / "result.json").unlink()
    cache = Path("cache")
    spoil(damage, finished / "search.jsonl", *(cache / name for name in ("speeds.json", "tune.json")))
    spoil(damage, *cache.glob("teachers/*/result.json"), *cache.glob("teachers/*/logits/*/*.*"))
    pd.testing.assert_frame_equal(again(), before.drop(columns=UNEQUAL))
    assert not list(finished.glob("trials/*/lease"))


def test_the_files_of_another_run_are_not_taken_for_its_own(finished: Path) -> None:
    before = kdbench.load(finished).runs
    one, other = (finished / "trials" / name for name in before.query("phase == 'search'")["trial_id"][:2])
    shutil.copyfile(one / "result.json", other / "result.json")
    pd.testing.assert_frame_equal(again(), before.drop(columns=UNEQUAL))


NAMED = {
    "sweep.json": ("status", "whole"),
    "manifest.json": ("report", "whole"),
    "records/whole/runs.jsonl": ("report", "results/records/whole"),
    "records/whole/sweep.json": ("report", "results/records/whole"),
    "wandb/runs.jsonl": ("sync", "whole"),
}


@damaged
@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_made_again_is_named(name: str, damage: Damage, finished: Path, cli: Cli) -> None:
    assert cli("record", "whole").code == 0
    path = (finished.parent if name.startswith("records") else finished) / name
    spoil(damage, path)
    done = cli(*NAMED[name])
    assert done.code != 0 and done.err.count("error: ") == 1 and done.err.splitlines()[-1].startswith("error: ")
    assert name in done.err or (name.startswith("wandb") and "no W&B runs" in done.err)
    assert "Traceback" not in done.err and "internal error" not in done.err


@pytest.mark.parametrize("damage", [*DAMAGES.values(), lambda old: old[:-9] + bytes([old[-9] ^ 1]) + old[-8:]])
def test_damaged_weights_are_named(damage: Damage, finished: Path) -> None:
    runs = kdbench.load(finished).runs
    spoil(damage, *finished.glob("trials/*/model.safetensors"), *Path("cache").glob("teachers/*/model.safetensors"))
    with pytest.raises(MachineFault, match=r"model\.safetensors cannot be read"):
        kdbench.load(finished).student(SMALL)
    shutil.rmtree(finished / "trials" / runs.query("phase == 'search'")["trial_id"].iloc[0])
    for place in Path("cache").glob("teachers/*/logits"):
        shutil.rmtree(place)
    with pytest.raises(MachineFault, match=r"delete .* and run again"):
        again()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, almost full."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a small file system needs root and mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode().strip()}")
    (disk / "ballast").write_bytes(bytes(1000 * 1024))
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_the_machines_fault_and_the_sweep_goes_on_elsewhere(
    bench: Path, tiny_disk: Path, cli: Cli
) -> None:
    asked = f"sweep --pair {TEACHER}:{SMALL} --budget smoke --limit 60 --trials 1 --seeds 1"
    words, places = [*asked.split(), "--wandb", "disabled", "--quiet"], []
    for option in ("--cache", "--out"):
        places += [option, tiny_disk / option[2:]]
        full = cli(*words, *places[-2:])
        assert full.code == 1
        assert full.err.startswith("error: ")
        assert "no space" in full.err.lower()
        assert str(tiny_disk) in full.err
        assert "Traceback" not in full.err
    (tiny_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    done = cli(*words, *places)
    assert done.code == 0 and SMALL in done.out  # --quiet prints the table


def test_a_batch_that_does_not_fit_fails_once_and_says_what_would(
    bench: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up: torch's own error where students train. Teachers do not meet it here."""
    real = worker.run_training

    def short(config: RunConfig, **about: Any) -> RunOutcome:
        if config.phase != "teacher":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(config, **about)

    monkeypatch.setattr(worker, "run_training", short)
    asked = (
        f"sweep --pair {TEACHER}:{SMALL} --budget smoke --limit 60 --trials 1 --seeds 1 --wandb disabled --workers 1"
    )
    done = cli(*asked.split(), "--workers", "1", "--batch-size", "16", "--name", "s")
    assert done.code == 1 and "--batch-size 8 --set recipe.accumulate=2" in done.err, done.err
    failed = [run.result for run in load_runs(bench / "results" / "s") if run.config.phase != "teacher"]
    assert failed and all((each.status, each.attempts) == ("failed", 1) for each in failed)
