"""``kdbench bench`` measures what it says and divides what it measured."""

from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

from tests.support.helpers import run_process

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
