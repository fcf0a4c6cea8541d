"""Methods side by side: mean ranks by another route, gains over kd, what few sizes cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, ttest_rel

from kdbench.report.points import gather
from kdbench.report.ranking import method_grid, method_table, ranking_figure, ranking_words
from kdbench.report.render import markdown
from kdbench.report.worth import worth
from kdbench.stats import friedman_p, holm, mean_gain, nemenyi
from tests.support.report_frames import LADDER, sweep_frame

METHODS = ("kd", "dkd", "dist", "crd")


def frame(methods: tuple[str, ...] = METHODS, seeds: int = 5, noise: float = 0.004) -> pd.DataFrame:
    return sweep_frame(dict(list(LADDER.items())[:3]), (0.01, 0.006, 0.004), methods=methods, seeds=seeds, noise=noise)


def test_ranks_and_gains_by_another_route() -> None:
    runs = frame()
    points = gather(runs)
    found = method_table(points, worth(points)).set_index("method")
    confirm = runs[runs["phase"] == "confirm"]
    scores = confirm.pivot_table(index=["seed", "student"], columns="method", values="test_acc")
    ranked = scores.rank(axis=1, ascending=False)
    assert found["mean_rank"].to_dict() == pytest.approx(ranked.mean().to_dict())
    assert found["mean_rank"].is_monotonic_increasing and set(found["sizes"]) == {3} and set(found["n_seeds"]) == {5}
    by_seed = scores.groupby("seed").mean()
    raw = [ttest_rel(by_seed[name], by_seed["kd"]).pvalue for name in METHODS[1:]]
    for name, p in zip(METHODS[1:], holm(raw), strict=True):
        gap = by_seed[name] - by_seed["kd"]
        assert found.loc[name, ["over_kd", "over_kd_p"]].tolist() == pytest.approx([gap.mean(), p])
    assert found.loc[["kd", "hard"], "over_kd"].isna().all() and math.isnan(found.loc["hard", "gain"])
    assert friedman_p(scores.groupby("student").mean()) == pytest.approx(
        friedmanchisquare(*scores.groupby("student").mean().T.to_numpy()).pvalue
    )


def test_nemenyi_is_demsars_table() -> None:
    """Demšar 2006, table 5a: critical values of the two-tailed test at 5%, for 2 to 10 classifiers."""
    table = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
    for methods, q in enumerate(table, start=2):
        assert nemenyi(methods, 14) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 84), rel=5e-4)


def test_one_method_has_no_ranks_and_many_share_their_sentences() -> None:
    one = gather(frame(("kd",)))
    assert method_table(one, worth(one)).empty and ranking_figure(method_table(one, worth(one))) is None
    two = gather(frame(("kd", "dkd")))
    assert any("over kd (paired by seed, 5 seeds" in text for text in worth(two).sentences)
    many = gather(frame())
    told = worth(many).sentences
    assert len(told) == 3 and told[0].startswith("Over 3 sizes, mean gain over hard labels (paired by seed, 5 seeds")
    assert all(name in told[1] for name in METHODS[1:]) and "tuned" not in told[1]
    words = ranking_words(many)
    assert "Friedman's test over 3 sizes" in words and f"{nemenyi(5, 3):.1f} apart" in words and "are 4.0." in words
    lines = markdown(method_grid(method_table(many, worth(many))))
    assert len(lines) == 2 + 5 and any(line.startswith("| hard labels |") for line in lines)
    assert ranking_figure(method_table(many, worth(many))) is not None


def test_kd_against_itself_is_called_different_in_five_percent() -> None:
    """Three methods that are kd but for the noise: some gain over kd is called sure in 5% of sweeps."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(1500):
        scores = rng.normal(0.9, 0.004, (4, 1, 3, 5))
        false += min(holm([mean_gain(one, scores[0, 0]).p for one in scores[1:]])) < 0.05
    assert abs(false / 1500 - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 1500) or false / 1500 < 0.05
