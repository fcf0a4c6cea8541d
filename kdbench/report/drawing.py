"""What scripts that draw figures of their own in the report's style may use.

``style`` (a context), ``new_figure``, ``save`` and the colours; ``tick``, ``millions`` and ``short_names`` for numbers
and names; ``temperature_figure`` with ``telling_samples`` for pictures of soft targets.
"""

from kdbench.report.numbers import millions, short_names, tick
from kdbench.report.style import GREY, INK, METHOD_COLOURS, METHOD_MARKERS, new_figure, save, style
from kdbench.report.temperature import telling_samples, temperature_figure

__all__ = [
    "GREY", "INK", "METHOD_COLOURS", "METHOD_MARKERS", "millions", "new_figure", "save", "short_names", "style",
    "telling_samples", "temperature_figure", "tick",
]  # fmt: skip
