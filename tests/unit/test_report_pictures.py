"""Figures and the page: what they show, what they keep to themselves, and that a browser takes them."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.report import pareto_figure, temperature_alpha_figure, write_report
from tests.support.report_frames import LADDER, sweep_frame

TEN = {f"family{k}_of_rather_long_names_{k:03d}.weights_in1k": (400_000 * 2**k, 0.85 + 0.008 * k) for k in range(10)}


def texts(figure: object) -> list[str]:
    """All words of a figure, annotations and titles included."""
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]  # type: ignore[attr-defined]


def test_pareto_figure_draws_every_point_once() -> None:
    figure = pareto_figure(sweep_frame(methods=("kd", "dkd")))
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    drawn = [len(container[0].get_xdata()) for container in axes.containers]
    assert drawn == [5, 5, 5]
    words = texts(figure)
    assert {"small_050", "large_100", "teacher 93.1%", "Test accuracy (%)"} <= set(words)
    heights = next(line.get_ydata() for line in axes.get_lines() if line.get_label() == "Pareto front")
    assert (np.diff(heights) >= 0).all()


@pytest.mark.parametrize("ladder", [{"resnet18": (11_000_000, 0.9)}, TEN], ids=["one", "ten"])
def test_names_on_the_figure_do_not_overlap(ladder: dict[str, tuple[int, float]]) -> None:
    from matplotlib.text import Annotation

    figure = pareto_figure(sweep_frame(ladder, np.linspace(0.015, -0.01, len(ladder)).tolist(), trials=1))
    figure.draw_without_rendering()
    boxes = [note.get_window_extent() for note in figure.axes[0].findobj(Annotation)]
    boxes = [note.get_bbox_patch() or box for note, box in zip(figure.axes[0].findobj(Annotation), boxes, strict=True)]
    assert len(boxes) == len(ladder)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def forms(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The same search as it looks under other methods, samplers and interruptions."""
    search = frame["phase"] == "search"
    grid = frame.copy()
    grid.loc[search, "temperature"] = np.resize([1.0, 2.0, 4.0, 8.0], search.sum())
    pruned = frame.copy()
    pruned.loc[search & (frame["student"] == "mobilenetv3_small_050"), "status"] = "pruned"
    return {
        "grid": grid,
        "fixed": frame.assign(temperature=frame["temperature"].where(~search, 4.0)),
        "no alpha": frame.assign(alpha=np.nan),
        "no temperature": frame.assign(temperature=np.nan),
        "neither": frame.assign(temperature=np.nan, alpha=np.nan),
        "all pruned": pruned,
        "one trial": frame.drop(frame[search].index[1:]),
        "no baseline": frame[frame["phase"] != "baseline"],
        "failed": frame.assign(status=frame["status"].where(~search | (frame.index % 2 == 0), "failed")),
    }


@pytest.mark.parametrize("form", forms(sweep_frame()))
def test_search_figure_copes_with(form: str) -> None:
    frame = forms(sweep_frame())[form]
    figure = temperature_alpha_figure(frame)
    figure.draw_without_rendering()
    words = " ".join(texts(figure))
    search = frame[(frame["phase"] == "search") & (frame["status"] != "failed")]
    for student in search["student"].unique():
        # With one student its whole name is the heading, which may be broken after an underscore.
        assert student.removeprefix("mobilenetv3_") in words.replace("\n", "")
    assert ("minus" in words) == (form in ("grid", "fixed", "all pruned", "one trial", "failed"))


def test_search_figure_has_one_colour_scale_around_the_hard_labels() -> None:
    frame = sweep_frame()
    figure = temperature_alpha_figure(frame)
    scales = [made.norm for axes in figure.axes for made in axes.collections if made.get_array() is not None]
    scales = [norm for norm in scales if hasattr(norm, "vcenter")]
    assert len(scales) >= 5
    assert {(norm.vmin, norm.vcenter, norm.vmax) for norm in scales} == {(scales[0].vmin, 0.0, scales[0].vmax)}
    base = frame[(frame["phase"] == "baseline") & (frame["student"] == "mobilenetv3_small_050")]["val_acc"].item()
    best = frame[(frame["phase"] == "search") & (frame["student"] == "mobilenetv3_small_050")]["val_acc"].max()
    assert f"hard {100 * base:.1f}%,  best {100 * best:.1f}%" in texts(figure)


def test_report_imports_neither_torch_nor_pandas_until_asked() -> None:
    """Importing the package costs nothing; using all of it still needs no torch."""
    code = (
        "import sys, kdbench.report; assert not {'pandas', 'matplotlib', 'torch'} & set(sys.modules); "
        "kdbench.report.write_report; assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = sweep_frame(
        {"<img src=x onerror=alert(1)>": (400_000, 0.8), **LADDER}, (0.02, 0.013, 0.008, 0.004, 0, -0.006)
    )
    manifest = {"command": "kdbench sweep --pair a:b --name '</pre><script>'", "git": "</pre><script>alert(2)</script>"}
    return write_report(tmp_path_factory.mktemp("page"), frame, manifest).paths["report.html"]


def test_page_is_whole_and_asks_nothing_of_the_network(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    seen: list[tuple[str, str, str]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, found: seen.extend((tag, name, value or "") for name, value in found)  # type: ignore[method-assign]
    parser.feed(html)
    assert html.count("<script") == 1
    assert not [name for _, name, _ in seen if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    links = [value for _, name, value in seen if name in ("src", "href", "xlink:href", "action", "data")]
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in links)
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert len(anchors) == 12
    assert anchors <= {value for _, name, value in seen if name == "id"}
