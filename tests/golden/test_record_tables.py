"""Tables made again from committed records equal the committed ones, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kdbench
from kdbench.run.store import run_folder, write_config, write_result
from kdbench.train.checkpoint import write_metrics
from tests.support.helpers import ROOT, Cli

RECORDS = ROOT / "results" / "records"


@pytest.mark.parametrize("name", ["digits-resnet50-mobilenetv3-kd", "fashion-mnist"])
def test_a_sweep_s_tables(name: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDS / name, tmp_path / name)
    for file in ("pareto.csv", "pareto.md", "pareto.tex", "trials.csv", "size_saved.csv", "cost.csv"):
        (tmp_path / name / file).unlink()
    kdbench.load(tmp_path / name).report()
    for file in ("pareto.csv", "pareto.md", "pareto.tex", "trials.csv", "size_saved.csv", "cost.csv"):
        assert (tmp_path / name / file).read_bytes() == (RECORDS / name / file).read_bytes(), file


@pytest.mark.parametrize("name", ["fashion-mnist-crd", "hinton2015-mnist"])
def test_a_paper_s_table(name: str, tmp_path: Path, bench: Path, cli: Cli) -> None:
    from kdbench.run.store import load_runs

    folder = tmp_path / "results" / name
    for run in load_runs(RECORDS / name, epochs=True):
        place = run_folder(folder, run.config.id)
        write_config(place, run.config)
        write_metrics(place, run.epochs)
        write_result(place, run.result)
    shutil.copyfile(RECORDS / name / "values.csv", folder / "values.csv")  # cells that take logits, which no record has
    done = cli("reproduce", name, "--table", "--out", tmp_path / "results", "--quiet")
    assert done.code == 0, done.err
    for file in ("table.csv", "table.md", "table.tex", "values.csv"):
        assert (folder / file).read_bytes() == (RECORDS / name / file).read_bytes(), file


def test_the_leaderboard(tmp_path: Path, cli: Cli) -> None:
    for record in RECORDS.iterdir():
        if (record / "sweep.json").exists():  # the committed one is of the sweeps
            shutil.copytree(record, tmp_path / "records" / record.name)
    named = f"the kdbench authors={tmp_path / 'records'}"
    assert cli("leaderboard", named, "--out", tmp_path / "out").code == 0
    for file in ("leaderboard.csv", "leaderboard.md"):
        assert (tmp_path / "out" / file).read_bytes() == (RECORDS / "leaderboard" / file).read_bytes(), file
