"""What a front is worth, what it costs, and the figures of the runs behind it, on sweeps whose answer is known."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from kdbench.report.costs import cost_table
from kdbench.report.figures import cost_figure, gain_figure
from kdbench.report.figures_runs import FEWEST, curves_figure, reliability_figure
from kdbench.report.points import History, gather, pareto_table
from kdbench.report.report import write_report
from kdbench.report.tables import pareto_markdown
from kdbench.report.worth import worth
from kdbench.run.frame import conform
from tests.support.report_frames import LADDER, sweep_frame

SIZES = {f"net_{k}": (1_000_000 * 2**k, 0.80 + 0.02 * k) for k in range(4)}
SLOPE = 0.02  # accuracy gained by a doubling


def flat(gain: float, noise: float = 0.0, **more: object) -> pd.DataFrame:
    """Accuracy grows by two points a doubling; distilling adds ``gain`` at every size."""
    return sweep_frame(SIZES, [gain] * len(SIZES), noise=noise, trials=3, **more)  # type: ignore[arg-type]


def histories(frame: pd.DataFrame, epochs: int = 10) -> dict[str, History]:
    """Curves that rise to the run's accuracy; every run is sure of 90% and right in 80% of 100 samples."""
    confirm = frame[frame["phase"] == "confirm"]
    bins = tuple((100, 90.0, 80) if k == 13 else (FEWEST - 1, 1.0, 1) if k == 2 else (0, 0.0, 0) for k in range(15))
    return {
        row["trial_id"]: History([row["val_acc"] * (k + 1) / epochs for k in range(epochs)], bins)
        for row in confirm.to_dict("records")
    }


def test_size_saved_is_the_closed_form_in_words_and_numbers() -> None:
    """A gain of half a doubling's worth saves 1 - 2^(-1/2) of the parameters."""
    value = worth(gather(flat(SLOPE / 2)))
    inside = value.saved.set_index("student").loc[["net_1", "net_2", "net_3"]]
    assert inside["saved"].tolist() == pytest.approx([1 - 2**-0.5] * 3, abs=1e-6)
    assert inside["needed"].tolist() == pytest.approx([size * 2**-0.5 for size in (2e6, 4e6, 8e6)])
    assert set(inside["reached"]) == {"within"}
    assert value.gains["kd"].mean == pytest.approx(SLOPE / 2)


QUIET = {"noise": 0.0004, "seeds": 5}


@pytest.mark.parametrize(
    ("gain", "headline", "size"),
    [
        (SLOPE / 2, "gains +1.0 points [", "needs 5.66 M parameters: 29% fewer (95% interval: 28% to 31%)."),
        (0.07, "gains +7.0 points [", "needs at most 1.00 M parameters: at least 88% fewer"),
        (-0.01, "changes accuracy by -1.0 points [", ""),
        (0.0, "no difference that these seeds can tell from chance", ""),
    ],
)
def test_the_mean_gain_comes_first_and_sizes_saved_where_it_helps(gain: float, headline: str, size: str) -> None:
    first, shown, *rest = worth(gather(flat(gain, **QUIET))).sentences
    assert first.startswith("Over the 4 sizes, kd ") and headline in first and "5 seeds, p = " in first
    assert ("helps" in first, "hurts" in first) == (gain > 0, gain < 0)
    assert re.search(r"a true gain of 0\.0\d+ points would show, and at one size one of 0\.\d+ points", shown)
    assert len(rest) == bool(size) and all(size in text for text in rest)


@pytest.mark.parametrize(("images", "decide"), [(100, True), (100_000, False), (0, False)])
def test_it_is_said_where_the_test_images_decide(images: int, decide: bool) -> None:
    told = worth(gather(flat(0.01, noise=0.004, seeds=5)), images).sentences
    assert (f"Other test images could change this: {images:,} of them decide." in told) == decide


def test_what_is_not_certain_is_called_so() -> None:
    (first,) = worth(gather(flat(0.002, noise=0.02, seeds=1))).sentences
    assert first.endswith("too few to tell.")
    wild = worth(gather(flat(0.01, noise=0.02, seeds=3)))
    assert wild.helps("kd") or len(wild.sentences) == 2
    assert worth(gather(flat(0.01))).sentences[0].endswith("chance.")  # all seeds alike: an accident, no evidence


def test_only_students_on_the_hard_label_front_are_looked_up() -> None:
    """A large student that a small one beats on hard labels saves nothing: the small one would do as well."""
    ladder = dict(zip(SIZES, [(1_000_000, 0.9), (2_000_000, 0.8), (4_000_000, 0.85), (8_000_000, 0.95)], strict=True))
    found = worth(gather(sweep_frame(ladder, [0.01] * 4)))
    assert found.saved["student"].tolist() == ["net_0", "net_3"]


def test_markdown_tells_the_size_saved_and_partial_sweeps_tell_nothing() -> None:
    points = gather(flat(0.01))
    text = pareto_markdown(pareto_table(points), points, worth(points))
    assert "| net_3 | kd | 86.0 | 8.00 M | 5.66 M | 29% |  |" in text
    frame = flat(0.01)
    assert worth(gather(frame[(frame["phase"] != "confirm") | (frame["method"] == "hard")])).sentences == []


def test_costs_add_up() -> None:
    frame = conform(flat(0.01))
    frame["seconds"] = 100.0
    frame.loc[frame["phase"] == "teacher", "seconds"] = 800.0
    table = cost_table(frame, gather(frame))
    hard, soft = (table[(table["method"] == method)].iloc[0] for method in ("hard", "kd"))
    assert hard["total_hours"] * 3600 == pytest.approx(100)
    assert (soft["teacher_hours"] * 3600, soft["search_hours"] * 3600) == pytest.approx((800 / 4, 3 * 100))
    assert soft["total_hours"] * 3600 == pytest.approx(100 + 200 + 300)
    assert soft["hours_per_point"] * 3600 == pytest.approx(500)  # for one point
    assert math.isnan(hard["hours_per_point"])
    figure = cost_figure(table, gather(frame))
    assert figure is not None and "(minutes)" in figure.axes[0].get_xlabel()


def test_gain_figure_shows_each_gain_where_it_is() -> None:
    pareto = pareto_table(sweep_frame())
    figure = gain_figure(pareto)
    assert figure is not None
    (drawn,) = figure.axes[0].containers
    assert drawn[0].get_xdata() == pytest.approx(100 * pareto["gain"].to_numpy())
    words = [text.get_text() for text in figure.axes[0].texts]
    assert len(words) == len(LADDER) and set(words) <= {"helps", "hurts", "no difference"}
    assert gain_figure(pareto.iloc[:0]) is None


def test_curves_are_means_with_a_band_from_seed_to_seed() -> None:
    frame = flat(0.01, noise=0.01)
    figure = curves_figure(gather(frame), histories(frame))
    assert figure is not None
    axes = figure.axes[0]
    hard = frame[(frame["phase"] == "confirm") & (frame["method"] == "hard") & (frame["student"] == "net_0")]
    line = next(line for line in axes.get_lines() if line.get_label() == "hard labels")
    assert line.get_ydata()[-1] == pytest.approx(100 * hard["val_acc"].mean())
    band = next(one for one in axes.collections if isinstance(one, PolyCollection)).get_paths()[0].vertices
    last = band[band[:, 0] == 10, 1]
    assert (last.min(), last.max()) == pytest.approx((100 * hard["val_acc"].min(), 100 * hard["val_acc"].max()))
    assert curves_figure(gather(frame), {}) is None


def test_reliability_pools_seeds_and_leaves_thin_bins_out() -> None:
    frame = flat(0.01)
    figure = reliability_figure(gather(frame), histories(frame))
    assert figure is not None
    lines = [line for line in figure.axes[0].get_lines() if not str(line.get_label()).startswith("_")]
    assert [line.get_label() for line in lines] == ["hard labels", "distilled (kd)"]
    for line in lines:  # three seeds of nine samples are enough together, of one they would not be
        assert line.get_xydata().ravel() == pytest.approx([100 / (FEWEST - 1)] * 2 + [90, 80])
    assert "ECE %: hard 9.2, kd 9.2" in [text.get_text() for text in figure.axes[0].texts]
    scaled = {name: one._replace(scaled_ece=0.012) for name, one in histories(frame).items()}
    figure = reliability_figure(gather(frame), scaled)
    assert figure is not None
    assert "ECE %: hard 9.2→1.2, kd 9.2→1.2" in [text.get_text() for text in figure.axes[0].texts]
    bare = {name: History(one.val_acc) for name, one in histories(frame).items()}
    assert reliability_figure(gather(frame), bare) is None


def test_report_has_every_figure_in_three_forms_when_it_can(tmp_path: Path) -> None:
    frame = sweep_frame({"a$b$c": (1000, 0.5), **dict(list(LADDER.items())[:1])}, [0.01, 0.01], trials=3)
    files = write_report(tmp_path, frame, None, histories(frame))
    figures = {"pareto", "temperature_alpha", "gain", "curves", "cost", "reliability"}
    assert {f"{name}.{kind}" for name in figures for kind in ("png", "svg", "pdf")} < set(files.paths)
    assert {"size_saved.csv", "cost.csv"} < set(files.paths)
    page = files.paths["report.html"].read_text(encoding="utf-8")
    assert page.count('<img alt="') == 5
    assert files.as_json()["front"] == files.worth.sentences
    np.testing.assert_allclose(pd.read_csv(tmp_path / "size_saved.csv")["params"], sorted([1000, 582_722]))
