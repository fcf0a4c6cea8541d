"""The frozen types that everything else speaks: what is run, and what came of it."""

from kdbench.schema._base import PHASES, Frozen, Hyper, Phase, Status
from kdbench.schema._catalog import Budget, DatasetSpec, Dimension, Ladder, MethodSpec, Pair
from kdbench.schema._runs import DataConfig, EpochLog, Recipe, TrialConfig, TrialResult
from kdbench.schema._sweeps import Sweep

__all__ = [
    "PHASES",
    "Budget",
    "DataConfig",
    "DatasetSpec",
    "Dimension",
    "EpochLog",
    "Frozen",
    "Hyper",
    "Ladder",
    "MethodSpec",
    "Pair",
    "Phase",
    "Recipe",
    "Status",
    "Sweep",
    "TrialConfig",
    "TrialResult",
]
