"""Several sweeps by one command: what is asked for, and what is drawn of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from kdbench.errors import BadInput
from kdbench.report.series import COLUMNS, FIGURES, series_figure, series_grid
from kdbench.sweeps.config import SweepConfig
from kdbench.sweeps.series import Sweeps, read_sweeps

A, B = "resnet50:resnet18", "resnet50>resnet34:resnet18"


def asked(**given: Any) -> Sweeps:
    found = read_sweeps(None, (), {"out": "o", **given})
    assert isinstance(found, Sweeps)
    return found


def test_several_pairs_and_epochs_are_a_sweep_each_in_one_folder() -> None:
    found = asked(pair=[A, B], epochs="5, 15", name="s", lr=0.1)
    assert str(found.folder) == "o/s"
    assert [(one.pair, one.epochs, one.name, str(one.out), one.lr) for one in found.each] == [
        (pair, epochs, f"s-{teacher}-{epochs}-epochs", "o/s", 0.1)
        for pair, teacher in ((A, "resnet50"), (B, "resnet50-resnet34"))
        for epochs in (5, 15)
    ]
    assert asked(pair=[A, B]).each[0].name == "digits-teachers-resnet18-kd-resnet50"
    assert asked(pair=A, epochs=[1, 2]).folder.name == "digits-resnet50-resnet18-kd-epochs"
    students = asked(pair=["resnet50:resnet18", "resnet50:resnet34"], name="s").each
    assert [one.name for one in students] == ["s-resnet18", "s-resnet34"]
    again = read_sweeps(None, (), dict(zip(*[iter(_flags(found.each[1]))] * 2, strict=True)))
    assert again == found.each[1], "each of them goes on as an ordinary sweep"


def _flags(config: SweepConfig) -> list[str]:
    return [word.removeprefix("--") for word in config.words()]


@pytest.mark.parametrize("given", [{"pair": [A]}, {"pair": A, "epochs": "3"}, {"pair": [A], "epochs": [3]}])
def test_one_of_each_is_a_sweep(given: dict[str, Any]) -> None:
    found = read_sweeps(None, (), given)
    assert isinstance(found, SweepConfig) and found.pair == A and found.epochs in (None, 3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pair": [A, A]}, "asked for twice"),
        ({"pair": A, "epochs": "5,5"}, "asked for twice"),
        ({"pair": A, "epochs": "5,x"}, "epochs: "),
        ({"pair": [3, A]}, "a list of such"),
        ({"epochs": "5,15"}, "no pair given"),
        ({"pair": [A, B], "name": "a/b"}, "must be letters"),
    ],
)
def test_what_is_no_series_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_sweeps(None, (), given)


def table(teachers: list[str], epochs: list[int]) -> pd.DataFrame:
    rows = [
        {**dict.fromkeys(COLUMNS, 0.01 * k + 0.5), "teacher": teacher, "epochs": count, "student": "s", "method": "kd",
         "n_seeds": 3, "teacher_params": 1e6, "gain": 0.01, "gain_lo": float("nan")}
        for k, teacher in enumerate(teachers) for count in epochs
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("teachers", "epochs", "drawn"),
    [(["a", "b"], [5], {"capacity_gap"}), (["a"], [5, 15], {"budget_curve"}), (["a", "b"], [1, 2], {*FIGURES}),
     (["a"], [5], set())],
)  # fmt: skip
def test_what_differs_is_drawn(teachers: list[str], epochs: list[int], drawn: set[str]) -> None:
    rows = table(teachers, epochs)
    figures = {name: series_figure(rows, name) for name in FIGURES}
    assert {name for name, figure in figures.items() if figure is not None} == drawn
    if gap := figures["capacity_gap"]:
        assert len(gap.axes) == 3
        for axes in gap.axes:  # teachers of one size stand side by side, and each row is drawn once
            points = {tuple(bar.lines[0].get_xydata()[0]) for bar in axes.containers}
            assert len(points) == len(rows)
    if curve := figures["budget_curve"]:
        assert [axes.get_title(loc="left") for axes in curve.axes] == [f"under {teacher}" for teacher in teachers]
    assert len(series_grid(rows).rows) == len(rows)
    with pytest.raises(BadInput, match="did you mean 'budget_curve'"):
        series_figure(rows, "budget_curves")
