"""What scripts that draw figures of their own in the report's style may use.

``style`` (a context), ``new_figure`` and the colours; ``tick``, ``millions`` and ``short_names`` for numbers and names.
"""

from kdbench.report._cells import millions, short_names, tick
from kdbench.report._style import GREY, INK, METHOD_COLOURS, METHOD_MARKERS, new_figure, style

__all__ = ["GREY", "INK", "METHOD_COLOURS", "METHOD_MARKERS", "millions", "new_figure", "short_names", "style", "tick"]
