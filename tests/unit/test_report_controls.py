"""Controls and tuned baselines in tables, sentences, figures and the page, on sweeps whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as oracle

from kdbench.config import RunConfig, RunResult
from kdbench.report.costs import cost_table
from kdbench.report.figures import gain_figure
from kdbench.report.points import gather, pareto_table
from kdbench.report.report import judged
from kdbench.report.rerun import rerun_command
from kdbench.report.tables import pareto_grid, pareto_markdown
from kdbench.report.verdicts import headline, judge
from kdbench.report.worth import worth
from kdbench.run.frame import frame_of, row_of
from kdbench.stats import holm
from tests.support.report_frames import LADDER, sweep_frame
from tests.support.sweeps import spec

TESTED = ("smoothing", "self", "compute")


def controlled(seeds: int = 5, lead: float = 0.02) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sweep with every control, kd being ``lead`` better than each but ``compute``, which ties; and without them."""
    plain = sweep_frame(seeds=seeds)
    frame = sweep_frame(methods=("kd", *TESTED), seeds=seeds)
    frame = frame[(frame["phase"] != "search") | (frame["method"] == "kd")]
    kept = plain[plain["phase"] == "confirm"].set_index(["phase", "student", "method", "seed"])["test_acc"]
    rng = np.random.default_rng(1)
    for k, row in frame[frame["phase"] == "confirm"].iterrows():
        hard = row["method"] == "hard"
        like = kept["confirm", row["student"], "hard" if hard else "kd", row["seed"]]
        behind = rng.normal(lead * (row["method"] != "compute"), 0.001) if row["method"] in TESTED else 0.0
        frame.loc[k, "test_acc"] = like - behind
    return frame, plain


def test_controls_are_rows_that_leave_everything_else_as_it_is() -> None:
    frame, plain = controlled()
    with_them, without = pareto_table(frame), pareto_table(plain)
    kd = with_them[with_them["method"] == "kd"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kd, without)
    assert (
        with_them.groupby("student", sort=False)["method"].agg(list).tolist()
        == [["kd", "compute", "self", "smoothing"]] * 5
    )
    fronts = [
        found.frame[found.frame["method"] == "hard"]["on_front"].tolist() for found in map(gather, (frame, plain))
    ]
    assert fronts[0] == fronts[1]
    controls = with_them[with_them["method"] != "kd"]
    assert not controls["on_front"].any() and controls["p_on_front"].isna().all()
    row = controls.iloc[0]
    own = frame[(frame["phase"] == "confirm") & (frame["student"] == row["student"])]
    scores = own.pivot(index="seed", columns="method", values="test_acc")
    assert row["p_value"] == pytest.approx(oracle.ttest_rel(scores[row["method"]], scores["hard"]).pvalue)
    assert cost_table(frame, gather(frame))["method"].tolist() == cost_table(plain, gather(plain))["method"].tolist()
    told, alone = worth(gather(frame)), worth(gather(plain))
    assert told.sentences[: len(alone.sentences)] == alone.sentences
    assert headline(with_them, ["kd"]) == headline(without, ["kd"])


def test_methods_and_controls_are_corrected_apart() -> None:
    pareto = pareto_table(controlled()[0])
    verdicts = judge(pareto)
    for own in (pareto["method"] == "kd", pareto["method"] != "kd"):
        assert [v.p_holm for v, mine in zip(verdicts, own, strict=True) if mine] == pytest.approx(
            list(holm(pareto["p_value"][own]))
        )
    hurt = next(v for v, method in zip(verdicts, pareto["method"], strict=True) if method == "smoothing")
    assert hurt.text.endswith("label smoothing hurts") and hurt.short == "hurts"


def test_one_sentence_a_control_says_what_it_leaves_of_the_gain() -> None:
    frame, _ = controlled()
    found = worth(gather(frame))
    assert list(found.beyond) == [("kd", control) for control in TESTED]
    confirm = frame[frame["phase"] == "confirm"].pivot(index="seed", columns=["student", "method"], values="test_acc")
    means = {name: confirm.xs(name, axis=1, level="method").mean(axis=1) for name in ("kd", *TESTED)}
    raw = [oracle.ttest_rel(means["kd"], means[control]) for control in TESTED]
    for (gain, sizes), wanted, p in zip(found.beyond.values(), raw, holm([one.pvalue for one in raw]), strict=True):
        assert (gain.lo, gain.hi) == pytest.approx(tuple(wanted.confidence_interval()))
        assert (sizes, gain.p) == (5, pytest.approx(p))
    smoothing, own, compute = found.sentences[-3:]
    assert smoothing.startswith("Over the 5 sizes, kd gains +2.0 points [")
    assert "] over label smoothing (paired by seed, 5 seeds, p = " in smoothing
    assert smoothing.endswith("better than the control.") and " over self-distillation (" in own
    assert compute.endswith("no difference that these seeds can tell from chance.")
    assert "longer training on hard labels" in compute


def test_headings_and_legend_say_what_rows_are() -> None:
    frame, plain = controlled()

    def written(runs: pd.DataFrame) -> tuple[set[str], str]:
        points = gather(runs)
        heads = {column.head for column in pareto_grid(pareto_table(points), points).columns}
        return heads, pareto_markdown(pareto_table(points), points, worth(points))

    heads, text = written(frame)
    assert {"Accuracy (%)", "Hard labels (%)"} <= heads and "Distilled (%)" not in heads
    assert "Controls, without a star" in text
    heads, text = written(plain.assign(hyper_lr=0.03))
    assert "Tuned hard labels (%)" in heads
    assert "lr 0.03" in text and "Tuned baseline: lr searched on hard labels" in text
    for word in ("Tuned", "ontrol"):
        assert word not in written(plain)[1]
    figure = gain_figure(pareto_table(frame))
    assert figure is not None
    assert "control: label smoothing" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_cut_off_control_is_noted() -> None:
    about = {"spec": {"recipe": {"epochs": 8}, "compute_epochs": {"a": 160, "b": 90}}}
    points, _, _ = judged(controlled()[0], about)
    assert (
        "The control compute ends at 20 times the recipe's epochs, below what distilling cost, for a." in points.notes
    )


def test_tuned_values_are_columns_of_all_but_the_teacher() -> None:
    about = {"data": spec().data, "recipe": spec().recipe, "seed": 1}
    runs = [
        RunConfig(model="t", phase="teacher", **about),
        RunConfig(
            model="s", phase="confirm", control="self", method="kd", hyper={"temperature": 4.0, "beta": 2.0}, **about
        ),
    ]
    frame = frame_of(row_of("x", one, RunResult(id=one.id, status="complete"), ("lr",)) for one in runs)
    assert frame["method"].tolist() == ["hard", "self"]
    assert frame["hyper_lr"].isna().tolist() == [True, False] and frame["hyper_lr"].iloc[1] == spec().recipe.lr
    assert frame["hyper_beta"].iloc[1] == 2.0
    assert "control" not in runs[0].model_dump() and runs[1].model_dump()["control"] == "self"


def test_each_kind_of_point_names_the_sweep_that_makes_it_again() -> None:
    frame = controlled()[0].assign(hyper_lr=0.03)
    frame.loc[~frame["method"].isin(["kd", "self"]), ["temperature", "alpha"]] = None
    found, small = gather(frame), next(iter(LADDER))
    command = "kdbench sweep --pair resnet50:mobilenetv3 --tune lr --lr 0.1 --controls self,compute --trials 9 --name n"
    manifest = {"command": command, "spec": {"tuned": ["lr"], "compute_epochs": {small: 70}}}

    def again(method: str) -> str:
        start = f"kdbench sweep --lr 0.1 --pair resnet50:{small} "
        text = rerun_command(found.find(small, method), found, manifest)
        assert text.startswith(start) and text.endswith(f" --trials 1 --name rerun-{small}-{method}")
        return text.removeprefix(start).partition(" --trials")[0]

    assert again("hard") == "--method kd --temperature 4.0 --alpha 0.75 --lr 0.03"
    assert again("kd") == again("hard")
    assert again("self") == "--method kd --controls self --temperature 6.0 --alpha 0.75 --lr 0.03"
    assert again("smoothing") == again("hard") + " --set recipe.label-smoothing=0.1"
    assert again("compute") == again("hard") + " --epochs 70"
