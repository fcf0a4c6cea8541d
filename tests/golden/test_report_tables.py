"""A committed sweep gives the committed tables.

After a change that is meant to alter them: ``python tests/golden/test_report_tables.py`` writes them anew;
read the difference before committing it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.report.points import gather, pareto_table
from kdbench.report.tables import write_tables
from kdbench.report.worth import worth

HERE = Path(__file__).parent / "report"
LATENCY = {"mobilenetv3_small_050": 3.21, "mobilenetv3_large_100": 9.87}
TABLES = ("pareto.csv", "pareto.md", "pareto.tex")


def made(out: Path) -> None:
    trials = pd.read_csv(HERE / "trials.csv", dtype={"trial_id": str})
    points = gather(trials)
    write_tables(trials, points, pareto_table(points, LATENCY), worth(points), out)


@pytest.mark.parametrize("name", ["trials.csv", "pareto.md", "pareto.tex"])
def test_text_is_the_committed_one(name: str, tmp_path: Path) -> None:
    made(tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == (HERE / name).read_text(encoding="utf-8")


def test_numbers_are_the_committed_ones(tmp_path: Path) -> None:
    made(tmp_path)
    found, wanted = (pd.read_csv(folder / "pareto.csv") for folder in (tmp_path, HERE))
    assert found.columns.tolist() == wanted.columns.tolist()
    # The bootstrap depends on numpy's random stream, which may change between its releases.
    assert np.abs(found.pop("p_on_front") - wanted.pop("p_on_front")).max() < 0.02
    pd.testing.assert_frame_equal(found, wanted, check_exact=False, rtol=1e-9)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder))
        for table in TABLES:
            shutil.copy(Path(folder) / table, HERE / table)
