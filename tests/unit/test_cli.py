"""The command line: speed, errors, listings, views. No network is trained here."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdbench import __version__
from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.pairs import PAIRS
from kdbench.catalog.recipes import PRESETS
from kdbench.cli import folders, ls, main
from kdbench.config import DataConfig, EpochLog, Recipe, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault
from kdbench.methods import METHODS
from kdbench.run.estimate import DryRun, Row
from kdbench.run.observers import Observer, Progress
from kdbench.run.watch import JsonLines, Lines, LiveTable
from kdbench.run.words import duration
from tests.support.helpers import ROOT, Cli, run_process

HEAVY = {"torch", "timm", "pandas", "wandb", "optuna", "scipy", "sklearn", "matplotlib"}
PROBE = """
import sys
from kdbench.cli.main import main
codes = {main(words.split()) for words in sys.argv[1:]}
sys.stderr.write(f"{codes} " + " ".join({m.partition('.')[0] for m in sys.modules}))
"""


def test_answers_at_once_because_it_imports_nothing_heavy() -> None:
    lines = ("--help", "ls", "ls pairs", "sweep --help", "version")
    done = subprocess.run([sys.executable, "-c", PROBE, *lines], capture_output=True, text=True, check=True)
    codes, *modules = done.stderr.split()
    assert codes == "{0}"
    assert not HEAVY & set(modules)


@pytest.mark.parametrize("kind", list(ls.Kind))
def test_every_listing_is_json_and_table(kind: ls.Kind, cli: Cli) -> None:
    listed = json.loads(cli("ls", kind.value, "--json").out)
    table = cli("ls", kind.value)
    assert listed
    assert table.code == 0
    assert len(table.out.splitlines()) >= len(listed) + 1


def test_listings_hold_every_registered_name(cli: Cli) -> None:
    assert [entry["name"] for entry in json.loads(cli("ls", "methods", "--json").out)] == METHODS.names()
    assert max(map(len, cli("ls", "methods").out.splitlines())) <= 100
    assert [entry["name"] for entry in json.loads(cli("ls", "datasets", "--json").out)] == DATASETS.names()
    recipes = json.loads(cli("ls", "recipes", "--json").out)
    assert {name for entry in recipes for name in entry.get("datasets", ())} == set(DATASETS.names())
    assert [entry["preset"] for entry in recipes if "preset" in entry] == list(PRESETS)


def test_help_shows_examples_for_every_verb(cli: Cli) -> None:
    for verb in ("sweep", "status", "report", "ls", "doctor", "reproduce", "sync"):
        told = cli(verb, "--help")
        assert told.code == 0
        assert f"kdbench {verb}" in told.out.split("Examples:")[1]
    assert cli("version").out == cli("--version").out == f"kdbench {__version__}\n"


def test_help_shows_choices_and_whole_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = cli("sweep", "--help").out
    assert "tpe|random|grid|qmc|gp" in told and "auto|fp32|bf16" in told and not re.search("<(bool|str|int)", told)
    examples = told.split("Examples:")[1].split("╭")[0].splitlines()
    assert all(line.strip().startswith(("kdbench", "--")) for line in examples if line.strip())


def test_completion_knows_verbs_and_choices() -> None:
    for words, expected in (("kdbench sw", "sweep"), ("kdbench sweep --sampler t", "tpe")):
        shell = {"_KDBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        assert expected in run_process(**shell).out


def test_names_are_not_folded_at_80_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("kdbench.cli.common.console", lambda: Console(file=screen, width=80))
    assert cli("ls", "pairs").code == 0
    assert all(pair.name in screen.getvalue() for pair in PAIRS.entries.values())


def test_a_word_comes_before_torch_is_imported(bench: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "kdbench", "sweep", "--pair", "resnet50:nothing"], stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None and "reading the plan" in started.stderr.readline()
        started.kill()


def test_the_command_reference_is_fresh() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_commands.py"))["pages"]()
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == made


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

    monkeypatch.setattr("kdbench.__version__", type("Broken", (), {"__format__": fail})())
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


def config(**more: Any) -> RunConfig:
    about: dict[str, Any] = dict(
        data=DataConfig(name="digits"), model="tiny", method="kd", seed=3, hyper={"temperature": 4.0},
        recipe=Recipe(epochs=2), phase="search",
    )  # fmt: skip
    return RunConfig(**(about | more))


def log(epoch: int) -> EpochLog:
    return EpochLog(epoch=epoch, lr=0.1, train_loss=1, train_acc=0.5, val_loss=1, val_acc=0.5)


def tell(watcher: Observer) -> None:
    """A small sweep's events."""
    run, other = config(), config(seed=4)
    watcher.progress(Progress(phases={"search": (1, 3)}, seconds_left=200))
    watcher.message("teacher's logits", 5, 10)
    watcher.start(run, 1, "")
    watcher.epoch(run, log(1))
    watcher.message("no network: W&B goes on offline")
    watcher.end(run, RunResult(id=run.id, status="complete", val_acc=0.9123, seconds=61, epochs=2))
    watcher.progress(Progress(phases={"search": (2, 3)}, seconds_left=90))
    watcher.start(other, 1, "")
    watcher.end(other, RunResult(id=other.id, status="failed", error="loss is not finite at step 7"))
    watcher.close()
    watcher.close()


def test_plain_lines_tell_every_run_and_one_estimate() -> None:
    out = io.StringIO()
    tell(Lines(out))
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "teacher's logits: 5 of 10",
        "search: 3 runs, 1 done before (3 min 20 s left)",
        "no network: W&B goes on offline",
        "search 2/3 tiny kd T=4 seed=3: 91.23% val, 1 min 01 s (3 min 20 s left)",
        "search 3/3 tiny kd T=4 seed=4: failed after 0.0 s: loss is not finite at step 7 (1 min 30 s left)",
    ]


def test_json_lines_are_an_object_each() -> None:
    out = io.StringIO()
    tell(JsonLines(out))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    kinds = ["phase", "progress", "trial_started", "epoch", "note", "trial_finished", "phase"]
    assert [event["event"] for event in events] == [*kinds, "trial_started", "trial_finished"]
    assert events[5]["val_acc"] == 0.9123
    assert events[5]["hyper"] == {"temperature": 4.0}
    assert (events[6]["runs_done"], events[6]["seconds_left"]) == (2, 90)


def test_the_live_table_shows_what_runs_and_leaves_one_line() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    watcher, run = LiveTable(screen), config(recipe=Recipe(epochs=4))
    watcher.progress(Progress(phases={"search": (0, 2)}, seconds_left=75))
    watcher.start(run, 1, "")
    watcher.epoch(run, log(1))
    picture = Console(file=io.StringIO(), width=120)
    picture.print(watcher.render())
    shown = picture.file.getvalue()  # type: ignore[attr-defined]
    assert "search 0/2 (1 min 15 s left)" in shown
    assert "1/4" in shown
    assert "50.00%" in shown
    watcher.end(run, RunResult(id=run.id, status="complete", val_acc=0.5))
    watcher.progress(Progress(phases={"search": (1, 2)}))
    watcher.close()
    assert "search 1/2" in screen.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]


def test_a_row_of_the_table_is_told_as_its_seeds_come_and_controls_stay_apart() -> None:
    out, picture = io.StringIO(), Console(file=io.StringIO(), width=120)
    watchers = Lines(out), LiveTable(Console(file=io.StringIO(), width=120))
    for method, control, acc in (("hard", None, 0.90), ("hard", "smoothing", 0.50), ("kd", None, 0.95)):
        run = config(phase="confirm", method=method, control=control)
        for watcher in watchers:
            watcher.start(run, 1, "")
            watcher.end(run, RunResult(id=run.id, status="complete", test_acc=acc))
    picture.print(watchers[1].render())
    watchers[1].close()
    shown = picture.file.getvalue().partition("so far (test)")[2].splitlines()  # type: ignore[attr-defined]
    assert "; so far kd 95.00% against 90.00% on hard labels (1 seed)" in out.getvalue().splitlines()[-1]
    assert ["tiny", "kd", "95.00%", "90.00%", "1"] in [line.split() for line in shown]


def test_a_broken_log_does_not_stop_a_sweep() -> None:
    gone = io.StringIO()
    gone.close()
    for watcher in (Lines(gone), JsonLines(gone)):
        tell(watcher)


def test_an_estimate_needs_every_part() -> None:
    kind: dict[str, Any] = dict(label="tiny", model="tiny", method="kd", epochs=2, params=1)
    row = Row(phase="search", runs=4, done=0, seconds=60, **kind)
    done = Row(phase="baseline", runs=1, done=1, seconds=None, **kind)
    unknown = Row(phase="confirm", runs=1, done=0, seconds=None, **kind)
    plan: dict[str, Any] = dict(name="x", folder="results/x", hardware="cpu", workers=2, notes=())
    assert DryRun(rows=(row, done), **plan).seconds == 30
    assert DryRun(rows=(row, unknown), **plan).seconds is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (42, "42 s"),
        (185, "3 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (12 * 86400, "12 days"),
        (1.6e5 * 3600, "18 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_sweep_names_those_that_are_there(bench: Path, cli: Cli) -> None:
    (bench / "results" / "mine").mkdir(parents=True)
    (bench / "results" / "mine" / "sweep.json").write_text("{}")
    for verb in ("status", "report", "sync"):
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
    folders.show_status(
        {"name": "mine", "methods": ["kd", "dkd"], "phases": phases, "under_way": [{"student": "tiny"}]}
    )
    shown = capsys.readouterr().out
    assert "methods: kd, dkd" in shown
    assert ["search", "4", "1"] in [line.split() for line in shown.splitlines()]
    assert "tiny" in shown


def test_main_is_the_console_script() -> None:
    assert main.entry.__module__ == "kdbench.cli.main"
