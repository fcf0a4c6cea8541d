"""The command line: speed, errors, listings, views. No network is trained here."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli
from rich.console import Console

from kdbench import __version__
from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.methods import METHODS
from kdbench.cli import ls, main, status
from kdbench.cli.live import LiveView
from kdbench.cli.view import JsonView, PlainView, duration
from kdbench.errors import BadInput, MachineFault
from kdbench.sweep.events import EpochEvent, Plan, PlanRow, TrialEvent, View

HEAVY = {"torch", "timm", "pandas", "wandb", "optuna", "scipy", "sklearn", "matplotlib"}
PROBE = """
import sys
from kdbench.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(f"{code} " + " ".join({m.partition('.')[0] for m in sys.modules}))
"""
LIMIT_S = 1.0


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["ls", "pairs"], ["sweep", "--help"], ["version"]])
def test_answers_within_a_second_and_imports_nothing_heavy(arguments: list[str]) -> None:
    spent = []
    for _ in range(2):  # the second has its byte code compiled
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
        code, *modules = done.stderr.split()
        assert code == "0"
        assert not HEAVY & set(modules)
    print(f"kdbench {' '.join(arguments)}: {spent[-1]:.2f} s of CPU, {wall:.2f} s of waiting (the machine may be busy)")
    assert spent[-1] < LIMIT_S


@pytest.mark.parametrize("kind", list(ls.Kind))
def test_every_listing_is_json_and_table(kind: ls.Kind, cli: Cli) -> None:
    listed = json.loads(cli("ls", kind.value, "--json").out)
    table = cli("ls", kind.value)
    assert listed
    assert table.code == 0
    assert len(table.out.splitlines()) >= len(listed) + 1


def test_listings_hold_every_registered_name(cli: Cli) -> None:
    assert [entry["name"] for entry in json.loads(cli("ls", "methods", "--json").out)] == METHODS.names()
    assert [entry["name"] for entry in json.loads(cli("ls", "datasets", "--json").out)] == DATASETS.names()
    recipes = json.loads(cli("ls", "recipes", "--json").out)
    assert {name for entry in recipes for name in entry["datasets"]} == set(DATASETS.names())


def test_help_shows_examples_for_every_verb(cli: Cli) -> None:
    for verb in ("sweep", "status", "report", "ls", "doctor", "worker", "sync"):
        told = cli(verb, "--help")
        assert told.code == 0
        assert f"kdbench {verb}" in told.out.split("Examples:")[1]
    assert cli("version").out.strip() == f"kdbench {__version__}"


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (BadInput("no such thing"), 2, "error: no such thing"),
        (MachineFault("two\nlines"), 1, "error: two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "error: /data/x: no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: /x: permission denied"),
        (ZeroDivisionError("division by zero"), 1, "error: internal error (ZeroDivisionError: division by zero)"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on where it stopped"),
    ],
)
def test_every_failure_is_one_line(
    raised: BaseException, code: int, says: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr("kdbench.cli.version.__version__", type("Broken", (), {"__format__": fail})())
    done = cli("version")
    assert done.code == code
    assert done.err.startswith(says)
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    monkeypatch.setenv("KDBENCH_DEBUG", "1")
    assert ("Traceback" in cli("version").err) == (code != 130)


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "kdbench", "ls", "pairs", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""


def tell(view: View) -> None:
    """A small sweep's events."""
    trial: dict[str, Any] = dict(
        phase="search", trial_id="ab12", student="tiny", method="kd", seed=3, hyper={"temperature": 4.0}
    )
    view.phase("search", 3, 1)
    view.progress("teacher bank", 5, 10)
    view.trial_started(TrialEvent(**trial, epochs=2))
    view.epoch(
        EpochEvent(phase="search", trial_id="ab12", student="tiny", epoch=1, epochs=2, val_acc=0.5, train_loss=1)
    )
    view.note("no network: W&B goes on offline")
    view.trial_finished(TrialEvent(**trial, epochs=2, status="complete", val_acc=0.9123, seconds=61))
    view.trial_finished(TrialEvent(**trial, status="failed", error="loss is not finite at step 7"))
    view.close()
    view.close()


def test_plain_view_is_a_line_a_run() -> None:
    log = io.StringIO()
    tell(PlainView(log))
    lines = [line.split(" ", 1)[1] for line in log.getvalue().splitlines()]
    assert lines[:3] == ["search: 3 runs, 1 done before", "teacher bank: 5 of 10", "no network: W&B goes on offline"]
    assert lines[3].startswith("search 2/3 tiny kd T=4 seed=3: 91.23% val, 1 min 01 s")
    assert lines[4].startswith("search 3/3 tiny kd T=4 seed=3: failed after 0.0 s: loss is not finite at step 7")
    assert len(lines) == 5


def test_json_view_is_an_object_a_line() -> None:
    log = io.StringIO()
    tell(JsonView(log))
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    kinds = ["phase", "progress", "trial_started", "epoch", "note", "trial_finished", "trial_finished"]
    assert [event["event"] for event in events] == kinds
    assert events[5]["val_acc"] == 0.9123
    assert events[5]["hyper"] == {"temperature": 4.0}


def test_live_view_shows_what_runs_and_leaves_a_line_a_phase() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    view = LiveView(screen)
    view.phase("search", 2, 0)
    view.trial_started(TrialEvent(phase="search", trial_id="a", student="tiny", method="kd", epochs=4))
    view.epoch(EpochEvent(phase="search", trial_id="a", student="tiny", epoch=1, epochs=4, val_acc=0.5, train_loss=1))
    picture = Console(file=io.StringIO(), width=120)
    picture.print(view.render())
    shown = picture.file.getvalue()  # type: ignore[attr-defined]
    assert "search 0/2 runs" in shown
    assert "1/4" in shown
    assert "50.00%" in shown
    view.trial_finished(TrialEvent(phase="search", trial_id="a", student="tiny", method="kd", status="complete"))
    view.close()
    left = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "search 1/2 runs" in left.splitlines()[-1] or "search 1/2 runs" in left


def test_a_broken_log_does_not_stop_a_sweep() -> None:
    gone = io.StringIO()
    gone.close()
    for view in (PlainView(gone), JsonView(gone)):
        tell(view)


def test_an_estimate_needs_every_part() -> None:
    row = PlanRow(phase="search", model="tiny", method="kd", runs=4, epochs=2, seconds=60)
    done = PlanRow(phase="baseline", model="tiny", method="hard", runs=1, done=1, epochs=2)
    unknown = PlanRow(phase="confirm", model="tiny", method="kd", runs=1, epochs=2)
    plan: dict[str, Any] = dict(name="x", folder="results/x", hardware="cpu", workers=2)
    assert Plan(rows=(row, done), **plan).seconds == 30
    assert Plan(rows=(row, unknown), **plan).seconds is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (42, "42 s"), (185, "3 min 05 s"), (3599.9, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_sweep_names_those_that_are_there(bench: Path, cli: Cli) -> None:
    (bench / "results" / "mine").mkdir(parents=True)
    (bench / "results" / "mine" / "sweep.json").write_text("{}")
    for verb in ("status", "report", "sync", "worker"):
        done = cli(verb, "mien")
        assert (done.code, done.err) == (2, "error: no sweep 'mien': did you mean 'mine'?\n")


def test_doctor_says_what_works_and_what_to_do_about_the_rest(bench: Path, cli: Cli) -> None:
    checks = json.loads(cli("doctor", "--json").out)
    by_name = {check["name"]: check for check in checks}
    assert by_name["digits"]["state"] == by_name["torch"]["state"] == by_name["cores"]["state"] == "ok"
    assert by_name["key"]["state"] == "missing"
    assert {*DATASETS.names(), "kdbench", "results", "cache", "KDBENCH_DATA"} <= set(by_name)
    assert all(check["fix"] for check in checks if check["state"] != "ok")
    (bench / "results").write_text("a file in its place")
    told = cli("doctor")
    assert told.code == 1
    assert "pip install 'kdbench[" in told.out or find_spec("optuna_dashboard")
    assert "choose another folder with --out" in told.out


def test_status_shows_phases_and_runs_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    phases = {"search": {"planned": 4, "complete": 1}, "confirm": {"planned": 2, "complete": 0}}
    status._show({"name": "mine", "methods": ["kd", "dkd"], "phases": phases, "under_way": [{"student": "tiny"}]})
    shown = capsys.readouterr().out
    assert "methods: kd, dkd" in shown
    assert ["search", "4", "1"] in [line.split() for line in shown.splitlines()]
    assert "tiny" in shown


def test_main_is_the_console_script() -> None:
    assert main.entry.__module__ == "kdbench.cli.main"
