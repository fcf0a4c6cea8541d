"""A whole sweep against the clock: every second from the command to the report."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rounds import PEERS, WHOLE, Report

from kdbench.errors import MachineFault
from kdbench.models import build
from kdbench.run.worker import save_weights

TRIALS, EPOCHS = 20, 4


def run_ledger(report: Report, *, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Run a sweep of 20 trials, its baseline and one confirming seed, its teacher given and its logit cache empty.

    Peers and the bare step are charged for the same training images at the rates just measured, and for nothing
    else: no evaluation, no start-up, no teacher but the one in their steps.
    """
    setting = report.setting
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        progress("a whole sweep", 0, 1)
        spent = _sweep(report, place)
        rows = list(csv.DictReader((place / "results/bench/trials.csv").open(encoding="utf-8")))
    students = [row for row in rows if row["phase"] != "teacher"]
    own = sum(float(row["seconds"]) for row in students) / report.machine["cores"]
    images = sum(int(row["epochs"]) for row in students) * (setting.limit // setting.batch_size) * setting.batch_size
    seconds = {"the sweep, everything counted": spent["wall"], "of which the teacher's passes": spent["cache"]}
    seconds["of which students, training and evaluation, per core"] = own
    best = report.best("bare", WHOLE)
    seconds["bare student steps alone"] = images / statistics.median(best)
    for peer in PEERS:
        if rates := report.rates.get(f"{peer} ({WHOLE})"):
            seconds[f"the same runs by {peer}"] = images / statistics.median(rates)
    wall = seconds["the sweep, everything counted"]
    ratios = {f"{name} / the sweep": value / wall for name, value in seconds.items() if name.startswith("the same")}
    ratios["the sweep / bare student steps alone"] = wall / seconds["bare student steps alone"]
    what = (
        f"{len(students)} runs ({TRIALS} trials, a baseline, one confirming seed each for both) of {EPOCHS} epochs of "
        f"{setting.limit:,} images; the teacher's weights are given, its logit cache is empty. Other loops are charged "
        "for the training images alone, at the rates above."
    )
    return {"what": what, "seconds": seconds, "ratios": ratios}


def _sweep(report: Report, place: Path) -> dict[str, float]:
    """Wall-clock seconds of the command, and of the logit cache's filling within it."""
    setting = report.setting
    teacher = build(setting.teacher, classes=10, channels=1, input_size=32, seed=0)
    save_weights(teacher, place / "teacher.safetensors")
    words: list[object] = ["sweep", "--pair", f"{setting.teacher}:{setting.student}", "--dataset", setting.dataset]
    words += ["--limit", setting.limit, "--epochs", EPOCHS, "--trials", TRIALS, "--seeds", 1, "--pruner", "none"]
    words += ["--teacher-weights", place / "teacher.safetensors", "--teacher-floor", 0, "--name", "bench"]
    words += ["--batch-size", setting.batch_size, "--precision", "fp32", "--set", "data.val-fraction=0.02"]
    words += ["--json", "--out", place / "results", "--cache", place / "cache", "--device", setting.device]
    command = [sys.executable, "-m", "kdbench", *map(str, words)]
    start, cache, begun = time.perf_counter(), 0.0, None
    before = start
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line) if line.startswith("{") else {}
            filling = event.get("event") == "progress" and "teacher's logits" in str(event.get("label"))
            if filling and begun is None:
                begun = before  # the first line comes after the first pass
            if begun is not None and filling and event.get("done") == event.get("total"):
                cache = time.perf_counter() - begun
            before = time.perf_counter()
    if process.returncode != 0:
        raise MachineFault(f"the timed sweep ended with exit code {process.returncode}")
    return {"wall": time.perf_counter() - start, "cache": cache}
