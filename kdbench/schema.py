"""Where release 0.1 kept its types: an alias for plug-ins written for it, to go with the next release."""

from __future__ import annotations

import warnings

from kdbench.catalog.types import Budget, DatasetSpec, Dimension, Ladder, Pair
from kdbench.config import DataConfig, EpochLog, Recipe
from kdbench.methods import Method as MethodSpec

warnings.warn("kdbench.schema is now kdbench.config and kdbench.catalog.types", DeprecationWarning, stacklevel=2)

__all__ = ["Budget", "DataConfig", "DatasetSpec", "Dimension", "EpochLog", "Ladder", "MethodSpec", "Pair", "Recipe"]
