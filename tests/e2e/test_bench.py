"""``kdbench bench`` measures what it says and divides what it measured."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import ROOT, run_process

PEERS = ("tutorial loop", "timm", "timm channels_last", "torchdistill")

SMALL = ["--pair", "test_resnet:test_efficientnet", "--dataset", "digits", "--limit", "300", "--batch-size", "64"]
BRIEF = ["--rounds", "2", "--seconds", "0.1", "--no-compile"]


@pytest.mark.slow
def test_rates_and_ratios_belong_together(tmp_path: Path) -> None:
    words = [*SMALL, *BRIEF, "--mlp", "--json", "--out", tmp_path]
    done = run_process("bench", *words, KDBENCH_THREADS="1")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    rates, ratios = figures["rates"], figures["ratios"]
    trial, peer = rates["kdbench trial (whole machine)"], rates["timm (whole machine)"]
    quotients = [a / b for a, b in zip(trial, peer, strict=True)]
    assert statistics.median(quotients) in [pytest.approx(ratio[0]) for ratio in ratios.values()]
    here = importlib.util.find_spec("torchdistill") is not None
    assert set(figures["absent"]) == (set() if here else {"torchdistill"})
    assert {peer for peer in PEERS if f"{peer} (whole machine)" not in rates} == set(figures["absent"])
    mlp = figures["mlp"]["networks"]["hinton_mlp_800"]
    step, plain = (mlp["milliseconds"][name] for name in ("kdbench trial", "plain PyTorch"))
    each = [b / a for a, b in zip(step, plain, strict=True)]
    assert mlp["ratios"]["plain PyTorch / kdbench trial"][0] == pytest.approx(statistics.median(each))
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "| hinton_mlp_1200 |" in page
    assert json.loads((tmp_path / "bench.json").read_text()) == figures


@pytest.mark.slow
def test_methods_beside_kd(tmp_path: Path) -> None:
    words = ["--pair", "test_resnet:test_efficientnet", "--methods", "sp,vid", "--dataset", "digits", "--limit", "100"]
    brief = ["--rounds", "2", "--seconds", "0.05", "--batch-size", "32", "--out", str(tmp_path)]
    program = [sys.executable, str(ROOT / "experiments" / "bench" / "methods.py"), *words, *brief]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["methods"]
    assert list(found) == ["kd", "sp", "vid"] and found["kd"]["of_kd"] == [1.0, 1.0, 1.0]
    assert found["vid"]["extra"] > found["sp"]["extra"] == 0 and all(row["mb"] > 50 for row in found.values())
    assert (tmp_path / "methods.md").read_text().count("| vid |") == 1
