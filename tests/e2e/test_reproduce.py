"""``kdbench reproduce`` end to end: real images, kills, several processes, CIFAR-100's own files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import kdbench
from kdbench.papers.measures import Trials
from kdbench.papers.plan import Protocol, Request
from kdbench.papers.schema import PaperFile
from kdbench.papers.table import paper_table
from kdbench.report.render import csv as rows_of
from kdbench.run.store import load_runs
from tests.support.helpers import Cli
from tests.support.processes import finish, start, wait_for
from tests.support.sweeps import here, once
from tests.support.wandb_files import find_runs, read_offline

SHORT = ["--epochs", "2", "--limit", "300", "--seeds", "2"]
ROWS = ["--rows", "T20-30", "--rows", "without-3*", "--rows", "speech-baseline"]
NAME = "hinton2015-mnist-e2-n300"


def words(out: Path, *more: str) -> list[str]:
    where = ["--out", str(out), "--cache", str(out / "cache"), "--workers", "1", "--device", "cpu"]
    return ["reproduce", "hinton2015-mnist", *ROWS, *SHORT, *where, *more]


def tables(folder: Path) -> dict[str, bytes]:
    names = ("table.md", "table.tex", "table.csv", "values.csv")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted rehearsal, shared by all test processes."""
    if not Path(os.environ.get("KDBENCH_DATA", "?")).is_dir():
        pytest.skip("KDBENCH_DATA names no folder of data sets")
    return once(tmp_path_factory, "paper", lambda out: here(words(out), out / "log"))


@pytest.fixture
def whole(paper: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(paper, tmp_path / "whole", symlinks=True))


def test_the_table_has_a_verdict_or_a_reason_in_every_row(whole: Path) -> None:
    folder = whole / NAME
    rows = {row["cell"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert rows["speech-baseline"]["verdict"] == "not run" and "not public" in rows["speech-baseline"]["reason"]
    assert rows["T20-30"]["verdict"] == "ours only" and rows["without-3"]["runs"] == "2"
    assert float(rows["without-3-threes"]["ours"]) <= 1010
    page = (folder / "table.md").read_text(encoding="utf-8")
    assert "at most 300 training samples" in page and "Departures" in page and "Not run" in page
    assert (folder / "table.tex").read_text(encoding="utf-8").count("\\\\") > len(rows)
    values = list(csv.DictReader((folder / "values.csv").open()))
    ids = {row["trial_id"] for row in values}
    assert ids <= {path.name for path in (folder / "trials").iterdir()}
    threes = [float(row["last"]) for row in values if row["cell"] == "without-3-threes"]
    assert np.mean(threes) == pytest.approx(float(rows["without-3-threes"]["ours"]))


def test_the_students_of_the_transfer_set_never_see_a_three_and_are_tracked(whole: Path) -> None:
    configs = [json.loads(path.read_text()) for path in whole.glob(f"{NAME}/trials/*/config.json")]
    without = [config for config in configs if "train_classes" in config["data"]]
    assert len(without) == 2 and all(3 not in config["data"]["train_classes"] for config in without)
    assert {config["phase"] for config in configs} == {"confirm"} and len(configs) == 6
    runs = [read_offline(path) for path in find_runs(whole / NAME)]
    assert {run.config["trial_id"] for run in runs} == {path.name for path in (whole / NAME / "trials").iterdir()}
    assert {run.config["sweep"] for run in runs} == {NAME}


def test_a_second_run_trains_nothing_and_prints_the_same(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.glob(f"{NAME}/trials/*/*")}
    first = here(words(whole, "--quiet"), whole / "first")
    held = tables(whole / NAME)
    assert here(words(whole, "--quiet"), whole / "again") == first
    assert tables(whole / NAME) == held
    assert {path: path.stat().st_mtime_ns for path in whole.glob(f"{NAME}/trials/*/*")} == before


@pytest.mark.usefixtures("hasty")
def test_a_kill_midway_leaves_the_same_table(whole: Path) -> None:
    asked, log, before = words(whole, "--wandb", "disabled"), whole / "killed", tables(whole / NAME)
    students = [
        path.parent for path in whole.glob(f"{NAME}/trials/*/config.json") if json.loads(path.read_text())["teacher"]
    ]
    for place in students:
        shutil.rmtree(place)

    def ended() -> list[bool]:
        return [(place / "result.json").exists() for place in students if (place / "metrics.jsonl").exists()]

    process = start(asked, log)
    wait_for(lambda: len(set(ended())) == 2, process, log)  # a run has ended, another one is under way
    os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    assert 0 < sum(ended()) < len(students) == 4
    here(asked, log)
    assert tables(whole / NAME) == before


@pytest.mark.slow
def test_two_processes_make_the_same_table(whole: Path, tmp_path: Path) -> None:
    several = [word if word != "1" else "2" for word in words(tmp_path, "--wandb", "disabled")]
    assert several[several.index("--workers") + 1] == "2"
    finish(several, tmp_path / "log")
    assert tables(tmp_path / NAME) == tables(whole / NAME)
    assert json.loads((tmp_path / NAME / "manifest.json").read_text())["hardware"]["workers"] == 2


def test_another_table_takes_over_runs_that_are_there(whole: Path) -> None:
    from kdbench.papers.load import paper_files

    mine = whole / "mine.yaml"
    mine.write_bytes(paper_files()["hinton2015-mnist"].read_bytes())
    other = [str(mine) if word == "hinton2015-mnist" else word for word in words(whole, "--wandb", "disabled")]
    log = here(other, whole / "mine")
    assert log.count(f"taken from {NAME}") == 6
    assert (whole / "mine-e2-n300" / "table.csv").read_bytes() == (whole / NAME / "table.csv").read_bytes()


def test_python_gives_the_same_page(whole: Path) -> None:
    before, limits = tables(whole / NAME), {"seeds": 2, "epochs": 2, "limit": 300}
    page = kdbench.reproduce("hinton2015-mnist", rows=ROWS[1::2], out=whole, progress=False, **limits)
    assert page.table.row("without-3").runs == 2 and tables(whole / NAME) == before


def test_a_record_holds_the_table_and_every_run(whole: Path) -> None:
    here(words(whole, "--record", "--quiet"), whole / "record")
    record = whole / "records" / NAME
    assert (record / "table.md").read_bytes() == (whole / NAME / "table.md").read_bytes()
    assert len((record / "runs.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    assert not list(record.glob("*.safetensors")) and (record / "manifest.json").is_file()
    assert len(list(record.glob("logits/*.npz"))) == 2
    (record / "values.csv").unlink()  # the cells come from the logits that the record has
    request = Request(rows=tuple(ROWS[1::2]), seeds=2, epochs=2, limit=300)
    spec = PaperFile.model_validate(json.loads((record / "manifest.json").read_text())["spec"])
    table = paper_table(Protocol(spec, request), Trials(record, load_runs(record)))
    assert rows_of(table.rows) == (record / "table.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_cifar100_from_files_in_its_own_layout(cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 and 10,000 records of coarse label, fine label, 3 x 1,024 bytes; one net of the table learns from them."""
    monkeypatch.setenv("KDBENCH_DATA", str(bench / "data"))
    folder = bench / "data" / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train.bin", 50_000), ("test.bin", 10_000)):
        records = np.zeros((count, 3074), np.uint8)
        records[:, 1] = np.arange(count) % 100
        records[:, 2::7] = rng.integers(0, 256, (count, 439), dtype=np.uint8)
        records.tofile(folder / name)
    rows = ["--rows", "vgg13:MobileNetV2:student", "--seeds", "1", "--epochs", "1", "--limit", "200"]
    done = cli("reproduce", "cifar100-crd", *rows, "--workers", "1", "--wandb", "disabled", "--json", "--quiet")
    assert done.code == 0, done.err
    row = json.loads(done.out.splitlines()[-1])["rows"][0]
    assert row["published"] == 64.6 and row["verdict"] == "one run" and row["best_epoch"] == row["ours"]


def test_a_dry_run_says_what_is_missing(cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_DATA", str(bench))
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    rows = ("--rows", "resnet56:resnet20:*", "--workers", "1")
    done = cli("reproduce", "cifar100-crd", *rows, "--dry-run")
    assert done.code == 0 and "16 runs to do" in done.out and (" h " in done.out or " days" in done.out)
    assert "cifar-100-binary" in done.out and str(bench / "cifar100") in done.out
    nothing = cli("reproduce", "hinton2015-mnist", "--rows", "jft-baseline", "--dry-run")  # that can be run
    assert nothing.code == 0 and "is not public" in nothing.out, nothing.err
    assert not (bench / "results").exists()
    run = cli("reproduce", "cifar100-crd", *rows, "--quiet")
    assert run.code == 1 and "not run" in run.out and "cifar100" in run.err and not (bench / "results").exists()


def test_what_would_take_too_long_is_refused_with_the_estimate(bench: Path, kdbench_data: Path, cli: Cli) -> None:
    out = bench / "elsewhere"
    done = cli("reproduce", "hinton2015-mnist", "--rows", "T20-30", "--max-hours", "0.0001", "--out", out, "--quiet")
    assert done.code == 2 and "hours on this machine" in done.err and "--rows" in done.err
    assert "not run" in done.out and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hinton2015"], "did you mean 'hinton2015-mnist'?"),
        (["hinton2015-mnist", "--rows", "nothing"], "matches no row"),
        (["hinton2015-mnist", "--seeds", "0"], "--seeds"),
    ],
)
def test_mistakes_are_named(cli: Cli, bench: Path, arguments: list[str], says: str) -> None:
    done = cli("reproduce", *arguments)
    assert done.code == 2 and says in done.err
