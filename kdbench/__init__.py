"""kdbench: which small student keeps how much of a teacher's accuracy, and is the gain bigger than the noise?

``python -m kdbench`` is the command line (:mod:`kdbench.cli`); :mod:`kdbench.config` holds the types that everything
else speaks. Importing this package imports nothing else.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
