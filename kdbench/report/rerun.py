"""The command that makes one point of a report again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from kdbench.config import HARD
from kdbench.report.points import Points
from kdbench.sweeps.controls import SMOOTHING

PLAIN = (HARD, "smoothing", "compute")
"""What is trained on hard labels: the baseline of a sweep with that recipe."""
_REPLACED = (
    *("--pair", "--method", "--temperature", "--alpha", "--trials", "--sampler", "--name", "--tune", "--controls"),
    *("--teacher-seeds", "--repeat-search"),
)


def rerun_command(point: Any, points: Points, manifest: Mapping[str, Any]) -> str:
    """A sweep of this one student at this one setting, with the recipe, seeds and teacher of the original.

    The sweep's own command line (``manifest["command"]``) with the pair, method and hyper-parameters replaced by the
    point's, of several teachers under the first. Without it, what the runs tell, and the defaults of that data set. A
    point on hard labels is made again by any sweep of its student with its recipe, since every sweep runs its baseline.
    """
    spec, what, kept = manifest.get("spec") or {}, point.method, _known(point)
    recipe = {name: kept[f"hyper_{name}"] for name in spec.get("tuned", ()) if f"hyper_{name}" in kept}
    if what == "smoothing":
        recipe["label_smoothing"] = SMOOTHING
    if what == "compute" and point.student in (lengthened := spec.get("compute_epochs") or {}):
        recipe["epochs"] = lengthened[point.student]
    if what in PLAIN:
        beside = [other for other in points.compared if other.student == point.student and other.method != HARD]
        point = beside[0] if beside else point
    given = manifest.get("command")
    flags = ["--pair", f"{points.teacher or 'TEACHER'}:{point.student}"]
    if isinstance(given, str) and " sweep" in given:
        start = _without(shlex.split(given))
    else:
        start = ["kdbench", "sweep"]
        flags += ["--dataset", str(points.dataset), "--seeds", str(point.n_seeds)]
    if point.method not in PLAIN:
        held = _known(point)
        flags += ["--method", *(("kd", "--controls", "self") if what == "self" else (point.method,))]
        flags += [word for name in ("temperature", "alpha") if name in held for word in (f"--{name}", repr(held[name]))]
        further = {name[6:]: float(value) for name, value in held.items() if name.startswith("hyper_")}
        searched = {name: value for name, value in further.items() if name not in recipe}
        flags += [word for name, value in searched.items() for word in ("--set", f"space.{name}={value!r}")]
    for name, value in recipe.items():  # a flag has the last word: where there is one it is given
        key = name.replace("_", "-")
        flags += [f"--{key}", repr(value)] if name in ("lr", "epochs") else ["--set", f"recipe.{key}={value!r}"]
    # What the sweep measured: another machine could choose otherwise, and that is another run.
    measured = spec.get("precisions") or {}
    for role, model in (("recipe", point.student), ("teacher-recipe", points.teacher)):
        flags += ["--set", f"{role}.precision={measured[model]}"] if model in measured else []
    name = f"rerun-{point.student}-{what if recipe else point.method}"
    return shlex.join([*start, *flags, "--trials", "1", "--name", name])


def _known(point: Any) -> dict[str, Any]:
    return {name: value for name, value in point._asdict().items() if value == value}


def _without(words: list[str]) -> list[str]:
    """A command line without the options that a rerun gives anew."""
    kept, skip = [], False
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        replaced = flag in _REPLACED or (flag == "--set" and (value or following).startswith("space."))
        if not (skip or replaced):
            kept.append(word)
        skip = replaced and not value and not skip
    return kept
