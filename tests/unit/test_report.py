"""The report on made-up sweeps whose answer is known."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats as oracle

from kdbench.errors import BadInput
from kdbench.report.numbers import millions, percent, short_names, signed, spread
from kdbench.report.page import page
from kdbench.report.points import PARETO_COLUMNS, Points, gather, pareto_table
from kdbench.report.render import Column, Grid, csv, escape_latex, markdown, plain
from kdbench.report.report import judged, write_report
from kdbench.report.rerun import rerun_command
from kdbench.report.tables import pareto_latex, pareto_markdown, render_table
from kdbench.report.verdicts import headline, judge, verdicts
from kdbench.report.worth import points_of, worth
from kdbench.run.frame import COLUMNS, conform
from kdbench.run.words import counted
from kdbench.stats import holm
from tests.support.report_frames import GAINS, LADDER, sweep_frame

LONG = {
    "mobilenetv4_conv_small_035.e3000_r224_in1k": (480_000, 0.86),
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": (5_500_000, 0.87),
    "resnet18": (11_200_000, 0.925),
}


def shown(points: Points, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(render_table(pareto_table(points), points))
    return console.file.getvalue()  # type: ignore[attr-defined]


def printed(points: Points) -> tuple[str, str]:
    """Markdown and LaTeX."""
    pareto, value = pareto_table(points), worth(points)
    return pareto_markdown(pareto, points, value), pareto_latex(pareto, points, value)


def confirm(frame: pd.DataFrame, method: str, student: str = "mobilenetv3_small_050") -> pd.Series:
    return (frame["phase"] == "confirm") & (frame["method"] == method) & (frame["student"] == student)


def test_pareto_columns_and_numbers_against_scipy() -> None:
    frame = sweep_frame(seeds=5)
    pareto = pareto_table(frame, {"mobilenetv3_small_050": 3.5})
    assert tuple(pareto.columns) == PARETO_COLUMNS
    assert pareto["student"].tolist() == list(LADDER)
    row = pareto.iloc[0]
    soft = frame.loc[confirm(frame, "kd"), "test_acc"].to_numpy(dtype=float)
    hard = frame.loc[confirm(frame, "hard"), "test_acc"].to_numpy(dtype=float)
    wanted = oracle.ttest_rel(soft, hard)
    assert row["p_value"] == pytest.approx(wanted.pvalue)
    assert (row["gain_lo"], row["gain_hi"]) == pytest.approx(tuple(wanted.confidence_interval()))
    assert row["gain"] == pytest.approx(row["test_acc"] - row["baseline_acc"])
    assert row["baseline_acc"] == pytest.approx(hard.mean())
    assert (row["n_seeds"], row["latency_ms"], row["teacher_acc"]) == (5, 3.5, 0.9312)
    assert pareto["latency_ms"].iloc[1:].isna().all()


def test_a_size_whose_baseline_wins_is_off_the_front() -> None:
    pareto = pareto_table(sweep_frame(noise=1e-5))
    assert pareto["on_front"].tolist()[:3] == [True] * 3
    assert not pareto["on_front"].iloc[4]  # -0.6 points: large_100's hard labels hold its place


def test_seed_pairing_ignores_row_order() -> None:
    frame = sweep_frame()
    pd.testing.assert_frame_equal(pareto_table(frame), pareto_table(frame.sample(frac=1, random_state=1)))


def test_failed_runs_are_left_out_with_their_partner_and_counted() -> None:
    frame = sweep_frame(seeds=4)
    lost = confirm(frame, "kd") & (frame["seed"] == 1002)
    frame.loc[lost, ["status", "test_acc"]] = ["failed", None]
    row = pareto_table(frame).iloc[0]
    rest = frame[frame["seed"] != 1002]
    assert row["n_seeds"] == 3
    assert row["baseline_acc"] == pytest.approx(rest.loc[confirm(rest, "hard"), "test_acc"].mean())
    assert row["gain"] == pytest.approx(row["test_acc"] - row["baseline_acc"])
    assert (
        "1 of 40 confirm runs failed (diverged, say) and left out: mobilenetv3_small_050 kd 1." in gather(frame).notes
    )


def test_one_seed_gives_no_interval_and_the_verdict_says_so() -> None:
    pareto = pareto_table(sweep_frame(seeds=1))
    assert pareto[["test_acc_lo", "gain_lo", "p_value", "p_on_front"]].isna().all(axis=None)
    assert verdicts(pareto)[0] == "+1.4 points, 1 seed: cannot tell (one seed gives no interval)"


def row(gain: float, lo: float, hi: float, p: float, n: int = 5) -> dict[str, object]:
    filled = dict.fromkeys(PARETO_COLUMNS, math.nan)
    return {
        **filled,
        "student": "s",
        "method": "kd",
        "gain": gain,
        "gain_lo": lo,
        "gain_hi": hi,
        "p_value": p,
        "n_seeds": n,
    }


def test_verdicts_are_holm_corrected_over_the_rows() -> None:
    pareto = pd.DataFrame(
        [
            row(0.013, 0.006, 0.020, 0.002),
            row(-0.012, -0.02, -0.004, 0.015),
            row(0.004, 0.001, 0.007, 0.03),
            row(-0.001, -0.004, 0.002, 0.4),
        ]
    )
    assert verdicts(pareto) == [
        "+1.3 points [0.6, 2.0], 5 seeds: distilling helps",
        "-1.2 points [-2.0, -0.4], 5 seeds: distilling hurts",
        "+0.4 points [0.1, 0.7], 5 seeds: no difference (the interval alone excludes 0, Holm's correction over 4 "
        "comparisons does not: p = 0.06)",
        "-0.1 points [-0.4, 0.2], 5 seeds: no difference",
    ]
    assert [verdict.p_holm for verdict in judge(pareto)] == pytest.approx([0.008, 0.045, 0.06, 0.4])


def test_equal_gains_on_all_seeds_are_not_certain() -> None:
    frame = sweep_frame()
    frame.loc[confirm(frame, "kd"), "test_acc"] = frame.loc[confirm(frame, "hard"), "test_acc"].to_numpy() + 0.01
    assert verdicts(pareto_table(frame))[0] == (
        "+1.0 points, 3 seeds: no difference (all seeds gave the same difference, so there is no interval)"
    )


def test_no_size_is_called_different_when_none_is() -> None:
    """200 sweeps of five sizes without any effect: at most about one in twenty says anything."""
    said = 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = [oracle.ttest_1samp(rng.normal(size=5), 0).pvalue for _ in range(5)]
        pareto = pd.DataFrame([row(0.01, -0.01, 0.02, value) for value in p])
        said += any(verdict.kind != "none" for verdict in judge(pareto))
    assert said / 200 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_several_methods_share_one_front_and_one_correction() -> None:
    points = gather(sweep_frame(methods=("kd", "dkd")))
    pareto = pareto_table(points)
    assert len(pareto) == 10
    assert set(pareto["method"]) == {"kd", "dkd"}
    assert judge(pareto)[0].p_holm == pytest.approx(holm(pareto["p_value"])[0])
    assert "Method" in shown(points, 100)


@pytest.mark.parametrize("phases", [(), ("teacher",), ("teacher", "baseline", "search"), ("confirm",)])
def test_an_interrupted_sweep_gives_what_there_is(phases: tuple[str, ...], tmp_path: Path) -> None:
    frame = sweep_frame(dict(list(LADDER.items())[:2]), GAINS[:2], trials=3)
    files = write_report(tmp_path, frame[frame["phase"].isin(phases)])
    assert len(files.pareto) == (2 if "confirm" in phases else 0)
    assert any("report is partial" in note for note in files.notes)
    assert all(path.stat().st_size for path in files.paths.values())
    assert {path.name for path in tmp_path.iterdir()} == set(files.paths)


def test_a_student_without_distilled_runs_keeps_a_row() -> None:
    frame = sweep_frame()
    pareto = pareto_table(frame[~confirm(frame, "kd")])
    assert (pareto["method"].iloc[0], math.isnan(pareto["gain"].iloc[0])) == ("hard", True)
    assert verdicts(pareto)[0] == "hard labels only, nothing distilled yet"
    frame = frame[~confirm(frame, "hard")]
    assert verdicts(pareto_table(frame))[0] == "no hard-label run on the same seeds to compare with"


def test_files_agree_and_are_deterministic(tmp_path: Path) -> None:
    frame = sweep_frame(dict(list(LADDER.items())[:1]), GAINS[:1], trials=3).assign(hyper_beta=2.0)
    first, second = (write_report(tmp_path / name, frame, {"command": "kdbench sweep"}) for name in "ab")
    for name in first.paths:
        assert first.paths[name].read_bytes() == second.paths[name].read_bytes(), name
    trials = pd.read_csv(first.paths["trials.csv"], dtype={"trial_id": str})
    assert tuple(trials.columns) == (*COLUMNS, "hyper_beta")
    stored = pd.read_parquet(first.paths["trials.parquet"])
    for name in ("trial_id", "temperature", "test_acc", "params"):
        left, right = stored[name], trials[name]
        assert (left.eq(right) | (left.isna() & right.isna())).all(), name
    pareto = pd.read_csv(first.paths["pareto.csv"])
    np.testing.assert_allclose(pareto["gain"], first.pareto["gain"])
    assert first.as_json()["rows"][0]["verdict"] == first.verdicts[0]
    assert first.as_json()["rows"][0]["latency_ms"] is None


def test_trials_are_put_in_one_order() -> None:
    frame = sweep_frame(trials=3)
    confirmed, rest = frame[frame["phase"] == "confirm"], frame[frame["phase"] != "confirm"]
    mixed = pd.concat([confirmed.sample(frac=1, random_state=2), rest])
    pd.testing.assert_frame_equal(conform(mixed), conform(frame))
    assert conform(mixed)["phase"].iloc[0] == "teacher"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": ["a", "b"]}, "several values of 'dataset': a, b"),
        ({"phase": ["confirm", "confrim"]}, "unknown phase 'confrim'"),
        ({"trial_id": ["x", "x"]}, "trial 'x' is in the trials table twice"),
    ],
)
def test_wrong_frames_are_refused(change: dict[str, list[str]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        pareto_table(sweep_frame().tail(2).assign(**change))
    with pytest.raises(BadInput, match="lacks the column"):
        pareto_table(pd.DataFrame({"student": ["a"]}))


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("ladder", [LADDER, LONG])
def test_terminal_table_fits(width: int, ladder: dict[str, tuple[int, float]]) -> None:
    text = shown(gather(sweep_frame(ladder, GAINS[: len(ladder)])), width)
    assert max(map(len, text.splitlines())) <= width
    # Nothing but a name may be cut: gain and verdict are what the table is for.
    assert "…" not in text.partition("───")[2]
    for gain in ("+1.3",):
        assert gain in text
    assert ("89.7 ± 0.3 ★" in text) == (ladder is LADDER)


def test_latex_and_markdown_escape_what_names_may_hold() -> None:
    assert escape_latex(r"a_b%c&d#e{f}\g~h^i$") == (
        r"a\_b\%c\&d\#e\{f\}\textbackslash{}g\textasciitilde{}h\textasciicircum{}i\$"
    )
    md, tex = printed(gather(sweep_frame({"a|b<i>_c": (1000, 0.5)}, [0.01])))
    assert r"a\|b\<i\>\_c" in md and r"a|b<i>\_c" in tex


def test_numbers_for_people() -> None:
    assert (percent(-0.0004), percent(0.123456, 2), signed(0.013), signed(-0.013), signed(0.0)) == (
        *("0.0", "12.35", "+1.3", "-1.3", "0.0"),
    )
    counts = [999, 52_000, 582_722, 4_214_842, 23_528_522, 632_045_800, 1.3e9, math.nan]
    assert [millions(n) for n in counts] == ["1.00 k", "52.0 k", "0.58 M", "4.21 M", "23.5 M", "632 M", "1.30 G", ""]
    assert short_names(tuple(LADDER))["mobilenetv3_small_050"] == "small_050"
    assert short_names(["resnet18.a1_in1k", "resnet18.tv_in1k"])["resnet18.a1_in1k"] == "resnet18.a1_in1k"


def test_an_interval_that_was_cut_is_given_by_its_ends() -> None:
    assert (spread(0.897, 0.894, 0.900), spread(0.685, 0.252, 1.0)) == ("89.7 ± 0.3", "68.5 [25.2, 100.0]")
    assert spread(0.5, math.nan, math.nan) == "50.0"


def test_what_guessing_reaches_is_named_and_gets_no_star() -> None:
    frame, small = sweep_frame(), "mobilenetv3_small_050"
    at_chance = (frame["phase"] == "confirm") & (frame["student"] == small)
    frame.loc[at_chance, "test_acc"] = 0.10
    points, pareto, value = judged(frame, {"samples": {"classes": 10}})
    assert gather(frame).find(small, "hard").on_front  # the smallest of all
    assert not any(points.find(small, method).on_front for method in ("hard", "kd"))
    assert f"No better than guessing (10.0%), so nothing was learned there: {small} hard, {small} kd." in points.notes
    texts = [shown(points, 160), pareto_markdown(pareto, points, value), pareto_latex(pareto, points, value)]
    rows = [line for text in texts for line in text.splitlines() if "050" in line and "10.0" in line]
    assert not any(mark in line for line in rows[:3] for mark in ("★", "textbf")) and len(rows) >= 3


def test_what_is_cut_is_printed_by_its_ends_in_every_form(tmp_path: Path) -> None:
    frame = sweep_frame({"net": (1000, 0.5)}, [0.0])
    frame.loc[confirm(frame, "kd", "net"), "test_acc"] = [0.99, 0.6, 0.2]
    points = gather(frame)
    assert points.find("net", "kd").gain_lo > -1.0 and points.find("net", "kd").test_acc_hi == 1.0
    page = write_report(tmp_path, frame).paths["report.html"].read_text(encoding="utf-8")
    for text in (shown(points, 160), *printed(points), page):
        assert re.search(r"59\.7}? \[0\.0, 100\.0\]", text) and "59.7 ±" not in text
    assert "59.67% [0.00, 100.00]" in page  # a point's own lines


def test_one_of_a_thing_is_no_plural() -> None:
    assert [points_of(value) for value in (0.00999, 0.01, 0.0999, 0.2)] == [
        "1 point",
        "1.0 points",
        "10.0 points",
        "20 points",
    ]
    some = ((1, "run"), (1200, "run"), ("1 to 3", "seed"), (2, "pass"), (2, "search"), (2, "epoch"), (1, "more line"))
    assert ", ".join(counted(*of).replace(",", "") for of in some) == (
        "1 run, 1200 runs, 1 to 3 seeds, 2 passes, 2 searches, 2 epochs, 1 more line"
    )
    about = {"spec": {"budget": {"name": "smoke", "trials": 1, "seeds": 1}, "recipe": {"epochs": 1}}}
    points, pareto, value = judged(sweep_frame(seeds=1), about)
    text = page(sweep_frame(seeds=1), points, pareto, about, value, pd.DataFrame(), {"pareto": "<svg></svg>"})
    assert "smoke: 1 search trial per size and method, 1 seed, 1 epoch" in text


def test_further_settings_stand_in_every_table() -> None:
    points = gather(sweep_frame().assign(hyper_beta=2.5))
    assert list(pareto_table(points).columns[len(PARETO_COLUMNS) :]) == ["hyper_beta"]
    for text in (*printed(points), shown(points, 160)):
        assert "beta 2.5" in text


def test_headline_counts_the_verdicts() -> None:
    rows = [row(0.013, 0.006, 0.020, 0.002), row(-0.012, -0.02, -0.004, 0.015), row(-0.001, -0.004, 0.002, 0.4)]
    assert headline(pd.DataFrame(rows), ["kd"]) == [
        "Distilling by kd helps at 1 of 3 sizes, hurts at 1, makes no difference that these seeds could show at 1. "
        "Gains run from -1.2 to +1.3 points."
    ]
    assert "helps at 1 of 1 size." in headline(pd.DataFrame(rows[:1]), ["kd"])[0]


@pytest.mark.parametrize("asked", [["kd", "dkd"], ["dkd", "kd"]])
def test_sentences_come_in_the_order_asked_for(asked: list[str]) -> None:
    points, pareto, value = judged(sweep_frame(methods=("kd", "dkd")), {"spec": {"methods": asked}})
    told = [re.match(r"Over the 5 sizes, (\S+) .* \(paired", text) for text in value.sentences]
    assert [found[1] for found in told if found][:2] == asked
    assert [text.split()[2] for text in headline(pareto, points.methods)] == asked


def test_what_steers_a_terminal_or_a_spreadsheet_is_text() -> None:
    assert plain("a\x1b[31mb\nc\u202ed") == "a�[31mb c�d"
    grid = Grid.of([Column("a", "A", left=True), Column("b", "B")], [{"a": "x\x07|y"}])
    assert markdown(grid) == ["| A |", "| --- |", r"| x�\|y |"]
    assert (
        csv(pd.DataFrame({"a": ["=1+1", "-2+3", "ok"], "b": [-1.0, 2.0, 3.0]}))
        == "a,b\n'=1+1,-1.0\n'-2+3,2.0\nok,3.0\n"
    )


def test_rerun_command_replaces_what_the_point_fixes() -> None:
    frame = sweep_frame().assign(hyper_beta=2.0)
    found = gather(frame)
    command = (
        "python -m kdbench sweep --pair resnet50:mobilenetv3 --temperature 1..20 --alpha=0..1 --trials 20 --seeds 3 "
        "--set space.beta=1..4 --set recipe.lr=0.05 --name mine"
    )
    point = found.find("mobilenetv3_small_050", "kd")
    assert point is not None
    assert rerun_command(point, found, {"command": command}) == (
        "python -m kdbench sweep --seeds 3 --set recipe.lr=0.05 --pair resnet50:mobilenetv3_small_050 --method kd "
        "--temperature 4.0 --alpha 0.75 --set space.beta=2.0 --trials 1 --name rerun-mobilenetv3_small_050-kd"
    )
    assert "--dataset fashion-mnist" in rerun_command(point, found, {})
