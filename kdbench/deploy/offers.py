"""What a sweep offers to ``pick``: its points with validation accuracies and costs; the page; fronts over any cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.config import HARD
from kdbench.deploy.latency import PRECISIONS, costs, exported
from kdbench.deploy.pick import NAMES, Choice, Limit, Offer, called, choose, priced, sentences
from kdbench.errors import BadInput
from kdbench.files import atomic_text
from kdbench.report.axes import by_cost, write_front
from kdbench.report.page import environment
from kdbench.report.points import Points
from kdbench.report.render import Grid
from kdbench.run.store import Run


def limits_of(asked: Mapping[str, float | None]) -> list[Limit]:
    """The limits that were given.

    Raises:
        BadInput: one that nothing can meet.
    """
    for name, value in asked.items():
        flag = "min-acc" if name == "acc" else f"max-{name}"
        if value is not None and not (0 < value < (1 if name == "acc" else math.inf)):
            raise BadInput(f"{flag} must lie above 0{' and below 1' if name == 'acc' else ''}, not at {value:g}")
    return [Limit(name, value) for name, value in asked.items() if value is not None]


def pick(
    folder: Path, runs: Sequence[Run], points: Sequence[Mapping[str, Any]], asked: Mapping[str, float | None], *,
    runtime: str, precision: str, threads: int,
) -> tuple[Choice, list[str]]:  # fmt: skip
    """``kdbench.Result.pick``."""
    limits = limits_of(asked)
    if precision not in PRECISIONS:
        raise BadInput(f"unknown precision '{precision}' (one of {', '.join(PRECISIONS)})")
    wanted = {limit.measure for limit in limits}
    suffix = "-int8" if precision == "int8" else ""
    measured: dict[str, Mapping[str, float]] = {}
    if "ms" in wanted:
        measured["ms"] = costs(folder, f"{runtime}-{precision}-t{threads}")[0]
    if "mb" in wanted or suffix:
        measured["mb"] = costs(folder, f"file_mb{suffix}")[0]
    offers = _offers(runs, points, measured, _lost(folder) if suffix else {})
    by = next((limit.measure for limit in limits if limit.measure != "acc"), "params")
    choice = choose(offers, limits, by)
    told = sentences(choice, limits, folder.name)
    if suffix and choice.chosen is not None:
        told.insert(2, "Validation accuracies are those of the seeds less what that student's exported int8 file lost "
                       "there; test accuracies are in 32 bits.")  # fmt: skip
    kinds = ("params", "macs", *measured)
    rows = [
        (called(offer), *(priced(offer, name).rpartition(" ")[0] for name in kinds), f"{100 * offer.val_acc:.2f}",
         f"{100 * offer.test_acc:.2f}", not any(limit.excess(offer) for limit in limits), offer is choice.chosen)
        for offer in sorted(offers, key=lambda offer: (offer.costs.get(by, math.inf), offer.method != HARD))
    ]  # fmt: skip
    heads = ("student", *(NAMES[name] for name in kinds), "validation (%)", "test (%)")
    title = f"What to ship of {folder.name}"
    page = environment("kdbench.deploy").get_template("pick.html.j2")
    atomic_text(folder / "pick.html", page.render(title=title, sentences=told, heads=heads, rows=rows))
    return choice, told


def _lost(folder: Path) -> dict[str, float]:
    """By student: validation accuracy that its exported int8 file loses."""
    held = [json.loads((place / "export.json").read_text(encoding="utf-8")) for place in exported(folder)]
    return {one["student"]: file["val_drop"] for one in held for file in one["files"] if file["format"] == "int8"}


def _offers(
    runs: Sequence[Run], points: Sequence[Mapping[str, Any]], measured: Mapping[str, Mapping[str, float]],
    lost: Mapping[str, float],
) -> list[Offer]:  # fmt: skip
    held = {run.config.id: run for run in runs}
    offers = []
    for point in points:
        own = [held[name] for name in point["trial_ids"].values() if name in held]
        own = [run for run in own if run.result.val_acc is not None]
        if not own:
            continue
        student, first = str(point["student"]), own[0].result
        best = max(own, key=lambda run: (run.result.val_acc or 0.0, -run.config.seed))
        prices = {"params": float(first.params), "macs": float(first.macs)}
        prices |= {name: table[student] for name, table in measured.items() if student in table}
        val = {run.config.seed: (run.result.val_acc or 0.0) - lost.get(student, 0.0) for run in own}
        offers.append(
            Offer(student, str(point["method"]), best.config.id, best.config.hyper, val, point["test_acc"],
                  point["test_acc_lo"], point["test_acc_hi"], prices)
        )  # fmt: skip
    return offers


def over(folder: Path, points: Points, manifest: Mapping[str, Any], x: str) -> tuple[Grid, dict[str, Path]]:
    """``kdbench.Result.over``."""
    known = {"params": "Parameters", "macs": "Multiply-accumulates of an image"}
    if x in known:
        return write_front(folder, by_cost(points, points.frame[x]), x, known[x])
    if x == "latency_ms":
        table, axis = dict(manifest.get("latency_ms") or {}), "Latency (ms; torch, measured by the sweep)"
    else:
        table, axis = costs(folder, x)
    if not table:
        raise BadInput(f"nothing is known of {x} in {folder}")
    return write_front(folder, by_cost(points, table), x, axis)
