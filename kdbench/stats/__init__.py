"""Numbers behind the tables (numpy and scipy, no pandas, no I/O): ``tests``, ``fronts``, ``planning``.

Scores are "higher is better", costs "lower is better"; NaN means "not measured" everywhere.
"""

from kdbench.stats.fronts import (
    SizeSaved,
    hypervolume,
    hypervolume_gain,
    hypervolume_interval,
    p_on_front,
    pareto_front,
    size_saved,
)
from kdbench.stats.planning import paired_t_power, seeds_needed
from kdbench.stats.replicates import student_replicates
from kdbench.stats.tests import (
    Interval,
    PairedDifference,
    friedman_p,
    holm,
    mean_ranks,
    paired_difference,
    ranks,
    sign_flip_p,
    t_interval,
)

__all__ = [
    "Interval", "PairedDifference", "SizeSaved", "friedman_p", "holm", "hypervolume", "hypervolume_gain",
    "hypervolume_interval", "mean_ranks", "p_on_front", "paired_difference", "paired_t_power", "pareto_front", "ranks",
    "seeds_needed", "sign_flip_p", "size_saved", "student_replicates", "t_interval",
]  # fmt: skip
