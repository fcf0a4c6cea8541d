"""Names to specs, data only: families and pairs, recipes and budgets, data sets.

Nothing here imports torch or timm, so listing the catalog and reading a command line stay fast. Each module
holds one registry or table; third parties add families, pairs and data sets through entry points of
the groups ``kdbench.families``, ``kdbench.pairs`` and ``kdbench.datasets``.
"""

from __future__ import annotations

from kdbench.catalog.datasets import DATASETS
from kdbench.catalog.families import FAMILIES
from kdbench.catalog.pairs import PAIRS, TEACHERS, parse_pair
from kdbench.catalog.recipes import BUDGETS, recipe_for

__all__ = ["BUDGETS", "DATASETS", "FAMILIES", "PAIRS", "TEACHERS", "parse_pair", "recipe_for"]
