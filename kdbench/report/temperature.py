"""What temperature does to a teacher's predictions, in pictures: for those to whom soft targets are new."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdbench.report.style import GREY, INK, METHOD_COLOURS, new_figure, style

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
"""The columns of the figure."""

Array = NDArray[np.float64]


def soften(logits: Array, temperature: float) -> Array:
    """softmax(z / T) of (n, classes) logits (Hinton, Vinyals, Dean 2015, equation 1)."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def entropy(probabilities: Array) -> Array:
    """Entropy in bits of each row of (n, classes)."""
    logs = np.log2(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return np.asarray(-(probabilities * logs).sum(axis=1))


def telling_samples(logits: Array, labels: NDArray[np.int64], count: int) -> list[int]:
    """Samples of different classes to show: the surest one first, then those with the richest soft targets at T = 4.

    Only samples that the teacher gets right, so that what is soft is not what is wrong.
    """
    right = np.flatnonzero(logits.argmax(axis=1) == labels)
    if not len(right):
        return []
    bits = entropy(soften(logits[right], 4.0))
    order = [right[bits.argmin()], *right[np.argsort(-bits, kind="stable")]]
    chosen: dict[int, int] = {}
    for sample in order:
        chosen.setdefault(int(labels[sample]), int(sample))
    return list(chosen.values())[:count]


def temperature_figure(images: NDArray[np.uint8], logits: Array, shown: Sequence[int], title: str = "") -> Figure:
    """A row a shown sample: its image, then its soft targets at each of ``TEMPERATURES``; below, entropy against T.

    Args:
        images: uint8 (len(shown), H, W) grey or (len(shown), H, W, 3).
        logits: (n, classes) of a whole split, which the lower panel is about.
        shown: rows of ``logits`` that ``images`` are of.
        title: set above all.
    """
    classes = logits.shape[1]
    with style():
        figure = new_figure(10.5, 1.35 * len(shown) + 3.4)
        grid = figure.add_gridspec(len(shown) + 1, len(TEMPERATURES) + 1, height_ratios=[1.0] * len(shown) + [1.9])
        for row, (image, sample) in enumerate(zip(images, shown, strict=True)):
            picture = figure.add_subplot(grid[row, 0])
            picture.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
            picture.set_axis_off()
            for column, temperature in enumerate(TEMPERATURES):
                bars = figure.add_subplot(grid[row, column + 1])
                share = soften(logits[sample : sample + 1], temperature)[0]
                colours = [METHOD_COLOURS[0] if k == share.argmax() else METHOD_COLOURS[4] for k in range(classes)]
                bars.bar(range(classes), 100 * share, color=colours)
                bars.set_ylim(0, 100)
                bars.set_yticks([0, 50, 100], ["0", "50", "100 %"] if column == 0 else [])
                bars.set_xticks(range(classes) if classes <= 10 and row == len(shown) - 1 else [])
                bars.grid(visible=False, axis="x")
                bars.tick_params(labelsize=8)
                if row == 0:
                    bars.set_title(f"T = {temperature:g}")
        _entropy_panel(figure.add_subplot(grid[-1, :]), logits)
        figure.suptitle(title, x=0.01, ha="left")
        return figure


def _entropy_panel(axes: object, logits: Array) -> None:
    """Mean entropy over the split and where 80% of its samples lie, rising to that of guessing."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    line = np.geomspace(0.5, 100, 60)
    bits = np.stack([entropy(soften(logits, t)) for t in line])
    low, high = np.quantile(bits, [0.1, 0.9], axis=1)
    most = float(np.log2(logits.shape[1]))
    axes.fill_between(line, low, high, color=METHOD_COLOURS[0], alpha=0.18, linewidth=0, label="80% of samples")
    axes.plot(line, bits.mean(axis=1), color=METHOD_COLOURS[0], linewidth=2, label="mean")
    axes.axhline(most, color=INK, linestyle=(0, (5, 3)), linewidth=1)
    axes.text(0.55, most, f"all {logits.shape[1]} classes alike: {most:.2f} bits", va="bottom", fontsize=10, color=GREY)
    axes.set_xscale("log")
    axes.set_xticks([0.5, *TEMPERATURES, 50, 100], [f"{t:g}" for t in (0.5, *TEMPERATURES, 50, 100)])
    axes.set_ylim(0, most * 1.15)
    axes.set_xlabel("temperature T")
    axes.set_ylabel("entropy of the\nsoft targets (bits)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
