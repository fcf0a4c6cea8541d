"""Where names go beside points without covering points or each other. Plain geometry, y upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """An upright rectangle."""

    x0: float
    y0: float
    x1: float
    y1: float


class Label(NamedTuple):
    """A text of some size that belongs to the point (x, y)."""

    x: float
    y: float
    width: float
    height: float


class Offset(NamedTuple):
    """From the point to the middle of its text; ``far`` asks for a line between them."""

    dx: float
    dy: float
    far: bool


# Directions in the order of preference: above and below first, where a ladder leaves room.
_DIRECTIONS = ((0, 1), (0, -1), (1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (1, 0), (-1, 0))
_DISTANCES = (9, 14, 22, 32, 44, 58, 76)
_NEAR = 22


def place(labels: Sequence[Label], obstacles: Sequence[Box], frame: Box, scale: float = 1.0) -> list[Offset]:
    """Offsets for ``labels``, greedily in the order given.

    Each goes to the first of a fixed list of places where it meets no obstacle, no earlier label and no
    edge of ``frame``; where none is free, to the one that covers least.

    Args:
        labels: texts with their sizes.
        obstacles: what must stay visible.
        frame: where texts must stay.
        scale: pixels a typographic point, for the distances tried.
    """
    taken, found = list(obstacles), []
    for label in labels:
        best, chosen = math.inf, Offset(0.0, 0.0, False)
        for distance in _DISTANCES:
            for across, up in _DIRECTIONS:
                dx = across * (distance * scale + label.width / 2)
                dy = up * (distance * scale + label.height / 2)
                trial = _around(label, dx, dy)
                hidden = label.width * label.height - overlap(trial, frame)
                cost = sum(overlap(trial, other) for other in taken) + 10 * hidden
                if any(_gap(trial, other) < _gap(trial, label) for other in labels if other is not label):
                    cost += label.width * label.height  # a reader would take it for the other point's name
                if cost < best - 1e-6:
                    best, chosen = cost, Offset(dx, dy, distance > _NEAR)
            if best <= 1e-6:
                break
        taken.append(_around(label, chosen.dx, chosen.dy))
        found.append(chosen)
    return found


def _around(label: Label, dx: float, dy: float) -> Box:
    x, y = label.x + dx, label.y + dy
    return Box(x - label.width / 2, y - label.height / 2, x + label.width / 2, y + label.height / 2)


def _gap(box: Box, point: Label) -> float:
    """Distance from a box to a point outside it."""
    across = max(box.x0 - point.x, 0.0, point.x - box.x1)
    return math.hypot(across, max(box.y0 - point.y, 0.0, point.y - box.y1))


def overlap(first: Box, second: Box) -> float:
    """Shared area."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return width * height if width > 0 and height > 0 else 0.0
