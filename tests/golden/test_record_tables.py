"""Tables made again from committed records equal the committed ones, byte for byte."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kdbench.errors import BadInput
from kdbench.run.store import LOGITS, recorded_logits, run_folder, write_config, write_result
from kdbench.train.checkpoint import write_metrics
from tests.support.helpers import ROOT, Cli

RECORDS = ROOT / "results" / "records"


@pytest.mark.parametrize("name", ["digits-resnet50-mobilenetv3-kd", "fashion-mnist"])
def test_a_sweep_s_tables_and_figures(name: str, cli: Cli, tmp_path: Path) -> None:
    """From runs.jsonl come the committed tables, and every figure again; a record is not recorded twice."""
    copy = shutil.copytree(RECORDS / name, tmp_path / name)
    tables = ("pareto.csv", "pareto.md", "pareto.tex", "trials.csv", "size_saved.csv", "cost.csv")
    for path in (*copy.glob("*.png"), *(copy / file for file in tables)):
        path.unlink()
    done = cli("report", copy)
    assert done.code == 0 and "Over the 5 sizes, kd gains" in " ".join(done.out.split()), done.err
    for file in tables:
        assert (copy / file).read_bytes() == (RECORDS / name / file).read_bytes(), file
    drawn = {path.name for path in copy.iterdir() if path.suffix != ".pdf"}  # kept out of records
    assert drawn == {path.name for path in (RECORDS / name).iterdir() if path.suffix != ".pdf"}
    assert cli("record", copy).code == 2


def test_the_readme_shows_what_the_record_says() -> None:
    """Every number of the README's block stands in the record's own table or sentences; a quotation is one."""
    for name, quoted in re.findall(
        r"\(results/records/([\w-]+)/\)\):\n\n((?:> .*\n)+)", (ROOT / "README.md").read_text()
    ):
        held = " ".join((RECORDS / name / "pareto.md").read_text().replace("\\", "").split())
        assert " ".join(quoted.replace("> ", "").split()) in held, name
    block = re.search(r"experiments/fashion-mnist.yaml --workers 2\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    table = (RECORDS / "fashion-mnist" / "pareto.md").read_text()
    assert block is not None
    rows = [line.split() for line in block[1].splitlines() if line.startswith(" mobilenetv3")]
    assert len(rows) == 5
    for words in rows:
        line = next(line for line in table.splitlines() if line.startswith(f"| {words[0]} "))
        missing = [word for word in words if word not in line and word not in ("★", "±")]
        assert not missing, (words[0], missing)
    told = " ".join(block[1].split()).partition("Over the")
    held = " ".join(table.replace("\\", "").split())
    for sentence in (told[1] + told[2]).replace(" Searches", "\nSearches").replace(" With", "\nWith").splitlines():
        assert sentence in held, sentence


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("fashion-mnist-crd", "fashion-mnist-crd"),
        ("hinton2015-mnist", "hinton2015-mnist"),
        ("hinton2015-mnist-s5", "hinton2015-mnist --first-seed 5 --rows teacher --rows without-3* --rows only-7-8*"),
    ],
)
def test_a_paper_s_table(name: str, asked: str, tmp_path: Path, bench: Path, cli: Cli) -> None:
    from kdbench.run.store import load_runs
    from kdbench.sweeps.record import copy_record

    folder, runs = tmp_path / "results" / name, load_runs(RECORDS / name, epochs=True)
    for run in runs:
        place = run_folder(folder, run.config.id)
        write_config(place, run.config)
        write_metrics(place, run.epochs)
        write_result(place, run.result)
        if (kept := recorded_logits(RECORDS / name, run.config.id)).exists():
            shutil.copyfile(kept, place / LOGITS)
    if not list(folder.glob(f"trials/*/{LOGITS}")):  # a record that is older than its logits
        shutil.copyfile(RECORDS / name / "values.csv", folder / "values.csv")
    done = cli("reproduce", *asked.split(), "--table", "--out", tmp_path / "results", "--quiet")
    assert done.code == 0, done.err
    for file in ("table.csv", "table.md", "table.tex", "values.csv"):
        assert (folder / file).read_bytes() == (RECORDS / name / file).read_bytes(), file
    again, ids = shutil.copytree(RECORDS / name, tmp_path / "record"), [run.config.id for run in runs]
    copy_record(folder, again, ids)  # nothing is lost by this
    with pytest.raises(BadInput, match=rf"holds 1 of {len(ids)} runs that this one lacks: say --why"):
        copy_record(folder, again, ids[1:])
    copy_record(folder, again, ids[1:], "one was left out")
    history = (again / "history.md").read_text()
    assert {path.stem for path in again.glob("logits/*")} <= {*ids[1:]}
    assert "because: one was left out" in history and (RECORDS / name / "table.md").read_text() in history


def test_the_leaderboard(tmp_path: Path, cli: Cli) -> None:
    """It holds every record as it is now: after a new one the command of docs/guide.md writes it again."""
    assert cli("leaderboard", f"the kdbench authors={RECORDS}", "--out", tmp_path).code == 0
    for file in ("leaderboard.csv", "leaderboard.md"):
        assert (tmp_path / file).read_bytes() == (RECORDS / "leaderboard" / file).read_bytes(), file
    rows = re.findall(r"^- [A-Z]+\d+ \((.*?)\): seed", (tmp_path / "leaderboard.md").read_text(), re.M)
    told = {name for row in rows for name in row.split(", ")}
    assert told >= {path.parent.name for path in RECORDS.glob("*/runs.jsonl")}
