"""The command that makes one point of a report again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from kdbench.report._frames import HARD
from kdbench.report._points import Point, Points

_REPLACED = ("--pair", "--method", "--temperature", "--alpha", "--trials", "--sampler", "--name")


def rerun_command(point: Point, points: Points, frame: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A sweep of this one student at this one setting, with the recipe, seeds and teacher of the original.

    The sweep's own command line (``manifest["command"]``) with the pair, method and hyper-parameters
    replaced by the point's. Without it, what the trials tell, and the defaults of that data set.
    A hard-label point is made again by any sweep of its student, since every sweep runs its baseline.
    """
    if point.method == HARD:
        beside = [other for other in points.all if other.student == point.student and other.method != HARD]
        point = beside[0] if beside else point
    given = manifest.get("command")
    flags = ["--pair", f"{points.teacher or 'TEACHER'}:{point.student}"]
    if isinstance(given, str) and " sweep" in given:
        start = _without(shlex.split(given))
    else:
        start = ["kdbench", "sweep"]
        flags += ["--dataset", str(points.dataset), "--seeds", str(len(point.scores))]
    if point.method != HARD:
        flags += ["--method", point.method, *_hyper(point, frame)]
    flags += _precisions(point.student, points.teacher, manifest)
    flags += ["--trials", "1", "--name", f"rerun-{point.student}-{point.method}"]
    return shlex.join([*start, *flags])


def _precisions(student: str, teacher: str | None, manifest: Mapping[str, Any]) -> list[str]:
    """Flags that pin what the sweep measured: another machine could choose otherwise, and that is another run."""
    measured = (manifest.get("spec") or {}).get("precisions") or {}
    roles = (("recipe", student), ("teacher-recipe", teacher))
    return [
        word for role, model in roles if model in measured for word in ("--set", f"{role}.precision={measured[model]}")
    ]


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


def _hyper(point: Point, frame: pd.DataFrame) -> list[str]:
    """Flags that fix every hyper-parameter of the point to its exact value."""
    flags = []
    for name, value in (("--temperature", point.temperature), ("--alpha", point.alpha)):
        if value == value:
            flags += [name, repr(value)]
    rows = frame[frame["trial_id"].isin(list(point.trial_ids.values()))]
    for column in (name for name in frame.columns if name.startswith("hyper_")):
        values = rows[column].dropna()
        if len(values):
            flags += ["--set", f"space.{column.removeprefix('hyper_')}={float(values.iloc[0])!r}"]
    return flags
