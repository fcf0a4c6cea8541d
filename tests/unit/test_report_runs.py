"""What a run leaves for the report: its bins of confidence, and the same runs from a folder and from a record."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import MachineFault
from kdbench.run.store import RUNS_FILE, load_runs, run_folder, run_line, write_config, write_result
from kdbench.sweeps.groups import Group
from kdbench.sweeps.plan import SweepPlan
from kdbench.sweeps.store import load_trials, write_spec
from kdbench.train import expected_calibration_error
from kdbench.train.checkpoint import write_metrics
from kdbench.train.metrics import reliability
from tests.support.sweeps import SMALL, spec

BINS = ((0, 0.0, 0),) * 13 + ((40, 36.5, 31), (60, 59.25, 58))


def test_bins_hold_every_sample_once() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(500, 4, generator=generator) * 3, torch.randint(4, (500,), generator=generator)
    bins = reliability(logits, labels)
    confidence, predicted = logits.double().softmax(1).max(1)
    assert len(bins) == 15
    assert sum(n for n, _, _ in bins) == 500
    assert sum(right for _, _, right in bins) == int((predicted == labels).sum())
    assert sum(total for _, total, _ in bins) == pytest.approx(float(confidence.sum()))
    for k, (n, total, right) in enumerate(bins):
        assert 0 <= right <= n and k / 15 * n <= total + 1e-9 and total <= (k + 1) / 15 * n + 1e-9
    gaps = [abs(right - total) for _, total, right in bins]
    assert expected_calibration_error(logits, labels) == pytest.approx(sum(gaps) / 500)


def test_results_without_bins_are_written_as_they_were() -> None:
    bare = RunResult(id="x", status="complete")
    assert "reliability" not in bare.model_dump_json()
    kept = bare.model_copy(update={"reliability": BINS})
    assert RunResult.model_validate_json(kept.model_dump_json()) == kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's folder with two confirm runs."""
    sweep = spec()
    out = tmp_path / sweep.name
    write_spec(out, sweep, None)
    for slot, lane in enumerate((Group("confirm", SMALL, "hard"), Group("confirm", SMALL, "kd"))):
        hyper = {"temperature": 4.0, "alpha": 0.5} if slot else {}
        config: RunConfig = SweepPlan(sweep).config(lane, hyper, 1001)
        trial = run_folder(out, config.id)
        write_config(trial, config)
        logs = [EpochLog(epoch=1, lr=0.1, train_loss=1.0, train_acc=0.5, val_loss=0.9, val_acc=0.6)]
        write_metrics(trial, logs)
        result = RunResult(id=config.id, status="complete", test_acc=0.7 + slot / 10, reliability=BINS)
        write_result(trial, result.model_copy(update={"scaled_ece": 0.01}) if slot else result)
    return out


def test_a_record_holds_the_runs_of_the_sweep(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.mkdir()
    (record / "sweep.json").write_bytes((folder / "sweep.json").read_bytes())
    lines = [run_line(path.parent) for path in sorted(folder.glob("trials/*/result.json"))]
    (record / RUNS_FILE).write_text("\n".join(lines) + "\n")
    assert load_runs(record, epochs=True) == load_runs(folder, epochs=True)
    assert [len(run.epochs) for run in load_runs(folder, epochs=True)] == [1, 1]
    assert all(run.epochs == [] for run in load_runs(record))
    pd.testing.assert_frame_equal(load_trials(record), load_trials(folder))
    assert load_trials(record)["test_acc"].tolist() == pytest.approx([0.7, 0.8])
    assert load_trials(record)["scaled_ece"].tolist() == pytest.approx([math.nan, 0.01], nan_ok=True)
    assert "scaled_nll" not in load_trials(record)  # nor in the records that were made before it was measured
    (record / RUNS_FILE).write_text("{\n")
    with pytest.raises(MachineFault, match="cannot be read"):
        load_runs(record)
