"""Every analysis script on made-up sweeps and on the committed records: they run, they draw, they say what is wrong."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.helpers import ROOT, Outcome
from tests.support.report_frames import LADDER, sweep_frame

SCRIPTS = ("pareto", "size_saved", "temperature_alpha", "temperature_vs_width", "calibration")
SCRIPTS += ("summary", "seeds")
RECORDS = sorted(path.parent for path in (ROOT / "results" / "records").rglob("trials.csv"))
GAIN = 0.02


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """``script("pareto", folder)`` runs it in this process, as ``python analysis/pareto.py folder`` would."""
    monkeypatch.syspath_prepend(str(ROOT / "analysis"))

    def call(name: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"analysis/{name}.py", *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(ROOT / "analysis" / f"{name}.py"), run_name="__main__")
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def write(folder: Path, **changes: object) -> Path:
    """Two sweeps on two data sets as a ladder under ``folder``; the gain is 2 points at every size, dkd's more."""
    rng = np.random.default_rng(1)
    for dataset, methods in (("fashion-mnist", ("kd",)), ("digits", ("kd", "dkd"))):
        frame = sweep_frame(gains=[GAIN] * len(LADDER), methods=methods, noise=0.0005, seeds=4).assign(**changes)
        softer = frame["method"] != "hard"
        frame["ece"] = 0.03 - 0.01 * softer + rng.normal(0, 0.001, len(frame))
        frame["scaled_ece"] = 0.01 + rng.normal(0, 0.001, len(frame)) if dataset == "digits" else np.nan
        frame["nll"] = 0.35 - 0.05 * softer + rng.normal(0, 0.005, len(frame))
        (folder / dataset).mkdir(parents=True)
        frame.assign(sweep=dataset, dataset=dataset).to_csv(folder / dataset / "trials.csv", index=False)
    return folder


def assert_whole(picture: Path) -> None:
    """Something is drawn, and nothing touches the edge, where it would be cut off."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.min() < 100
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_draws_both_sweeps(name: str, script, sweeps: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "picture.png"
    done = script(name, sweeps, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert f"wrote {out}" in done.out
    assert_whole(out)
    if name != "seeds":
        assert "fashion-mnist" in done.out and "digits" in done.out and "dkd" in done.out


def test_scripts_find_what_was_put_in(script, sweeps: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Distilling was made 2 points better everywhere, dkd 2.6, and better calibrated."""
    text = {
        name: script(name, sweeps, "--out", tmp_path / "x.md").out for name in ("summary", "calibration", "size_saved")
    }
    ranks = re.search(r"mean rank, 5 of 10 blocks \| \| (\S+) \| (\S+) \| (\S+) \|", text["summary"])
    assert ranks and ranks.groups() == ("3.00", "1.00", "2.00")
    assert (tmp_path / "x.md").read_text() in text["size_saved"]
    assert text["calibration"].count(" ece lower at 5 of 5 sizes, different at 5% after Holm at 5") == 3
    assert (
        len(re.findall(r"scaled_ece lower at \d of 5 sizes, different at 5% after Holm at 0", text["calibration"])) == 2
    )
    table = pd.DataFrame({"params": [p for p, _ in LADDER.values()], "acc": [a for _, a in LADDER.values()]})
    needed = np.exp(np.interp(table["acc"] - GAIN, table["acc"], np.log(table["params"])))
    for (student, (params, _)), wanted in list(zip(LADDER.items(), needed, strict=True))[3:]:
        found = re.search(rf"{student}: \S+ M -> (\d+)% saved \[(-?\d+), (\d+)\]", text["size_saved"])
        assert found is not None
        saved, lo, hi = map(int, found.groups())
        assert lo <= saved <= hi and lo - 1 <= 100 * (1 - wanted / params) <= hi + 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_line_when_nothing_can_be_drawn(name: str, script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "waiting", phase="teacher", method="hard")
    for arguments, hint in [
        ([tmp_path / "empty"], "no trials.csv in"),
        ([tmp_path / "waiting", "--out", tmp_path / "x.png"], "here"),
        ([tmp_path / "waiting", "--out", tmp_path / "x.jpeg"], "must end in"),
    ]:
        done = script(name, *arguments)
        assert done.code == 2 and done.err.startswith("error: ") and hint in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_as_a_command(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_bytes(b"\x93\xff\x00")
    command = [sys.executable, str(ROOT / "analysis" / "pareto.py"), "trials.csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "is no trials table" in done.stderr and done.stderr.count("\n") == 1


def test_coverage_keeps_its_promises_in_small(script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "coverage.md"
    assert script("coverage", "--out", out, "--sweeps", 100).code == 0
    rows = [line.split("|") for line in out.read_text().splitlines() if line.startswith(("| covers", "| false"))]
    shares = [(row[1].strip(), row[2].strip(), float(row[4].split("±")[0])) for row in rows]
    assert {kind for _, kind, _ in shares} == {"normal", "heavy", "skewed", "steps", "unequal", "collapsing", "loud"}
    normal = [(what, share) for what, kind, share in shares if kind == "normal" and "size saved" not in what]
    assert len(normal) == 3 * 7 + 2 + 2 * 9
    assert all(share > 86 if what.startswith("covers") else share < 14 for what, share in normal), normal


@pytest.mark.parametrize("name", SCRIPTS)
def test_committed_records(name: str, script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = script(name, *RECORDS, "--out", tmp_path / "x.png")
    assert done.code == 0, done.err
    assert_whole(tmp_path / "x.png")
