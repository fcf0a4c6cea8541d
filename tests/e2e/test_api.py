"""kdbench from Python: the same folders as the command line's, tables as frames, students that predict."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from sklearn.datasets import load_digits

import kdbench
from kdbench.errors import BadInput
from kdbench.run.student import Student
from tests.support.helpers import ROOT, Cli
from tests.support.sweeps import LARGE, SMALL, TEACHER

WORDS = {"budget": "smoke", "precision": "fp32", "workers": 1, "wandb": "disabled", "progress": False}


def test_a_sweep_gives_frames_figures_and_the_command_line_s_folder(finished: Path, cli: Cli) -> None:
    result = kdbench.sweep(f"{TEACHER}:{SMALL},{LARGE}", **WORDS)  # it takes over the runs of the one beside it
    assert result.folder.name != finished.name and not kdbench.load(finished).pareto.empty
    assert set(result.runs["phase"]) == {"teacher", "baseline", "search", "confirm"}
    assert set(result.points["method"]) == {"hard", "kd"} and result.points["test_acc"].between(0, 1).all()
    assert list(result.pareto["student"]) == [SMALL, LARGE] and len(result.verdicts) == 2
    assert result.figure("pareto").axes and result.epochs["val_acc"].between(0, 1).all()
    command = result.manifest["command"].split()[1:]
    again = cli(*command, "--json")
    kinds = [json.loads(line)["event"] for line in again.out.splitlines()]
    assert again.code == 0 and "trial_started" not in kinds  # the command written down asks for the very same sweep
    pd.testing.assert_frame_equal(kdbench.load(result.folder).runs, result.runs)
    with pytest.raises(BadInput, match="did you mean 'pareto'"):
        result.figure("paretto")


def test_a_student_predicts_as_its_row_says(finished: Path) -> None:
    result = kdbench.load(finished)
    student = result.student(SMALL)
    assert not student.network.training and student.run.config.method == "kd"
    data = kdbench_test_split(student)
    with torch.inference_mode():
        logits = torch.cat([student.network(student.preprocess(image)) for image in data[0]])
    assert float((logits.argmax(1).numpy() == data[1]).mean()) == pytest.approx(student.run.result.test_acc)
    assert student.predict(data[0][0]).sum() == pytest.approx(1)
    assert result.student(SMALL, method="hard").run.config.teacher is None
    with pytest.raises(BadInput, match=f"confirmed: {SMALL}"):
        result.student(TEACHER)


def kdbench_test_split(student: Student) -> tuple[np.ndarray, np.ndarray]:
    """Images as stored, and labels."""
    from kdbench.data import resolve_dataset
    from kdbench.data.sources import read_part

    samples = read_part(resolve_dataset(student.run.config.data.name)[0], "test")
    assert samples is not None
    images = np.stack([np.asarray(samples.image(row)) for row in range(len(samples.labels))])
    return images, samples.labels


def test_records_and_leaderboards_are_frames() -> None:
    found = kdbench.load(ROOT / "results" / "records" / "fashion-mnist")
    committed = pd.read_csv(found.folder / "pareto.csv")
    assert found.pareto["student"].tolist() == committed["student"].tolist()
    np.testing.assert_allclose(found.pareto["gain"].astype(float), committed["gain"])
    board = kdbench.leaderboard(found.folder)
    assert {"student", "method", "test_acc"} <= set(board.columns) and len(board) == 10
    with pytest.raises(BadInput, match="keeps no weights"):
        found.student("mobilenetv3_small_050")


def test_mistakes_raise_and_say_what_the_command_line_says(bench: Path) -> None:
    with pytest.raises(BadInput, match="unknown key 'epoch': did you mean 'epochs'"):
        kdbench.sweep("test_resnet:test_efficientnet", epoch=3, progress=False)
    with pytest.raises(BadInput, match="no sweep"):
        kdbench.load(bench / "nothing")


def test_the_notebook_runs(bench: Path) -> None:
    notebook = nbformat.read(ROOT / "analysis" / "tour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    small = {"epochs=4": "epochs=1", "epochs=8": "epochs=1", "trials=3": "trials=1", "seeds=3": "seeds=2"}
    small |= {"test_efficientnet,test_vit": "test_efficientnet", "wandb=": 'limit=60, budget="smoke", wandb='}
    sweep = next(cell for cell in notebook.cells if "kdbench.sweep" in cell.source)
    for written, instead in small.items():
        assert written in sweep.source
        sweep.source = sweep.source.replace(written, instead)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(bench)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds  # tables and pictures
    assert load_digits().target[0] == 0
