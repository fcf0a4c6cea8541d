"""Numbers behind the tables (numpy and scipy, no pandas, no I/O): ``tests``, ``crossed``, ``decisions``, ``fronts``,
``planning``.

Scores are "higher is better", costs "lower is better"; NaN means "not measured" everywhere.
"""

from kdbench.stats.crossed import (
    Components,
    Spread,
    components,
    crossed_difference,
    crossed_interval,
    spread_of,
    whole_part,
)
from kdbench.stats.decisions import (
    SURE_OF_ONE,
    at_look,
    equivalence_p,
    look_level,
    look_numbers,
    mean_gain,
    prediction_interval,
    rank_intervals,
    ratio_interval,
    smallest_crossed_gain,
    smallest_gain,
    spent_levels,
    welch_p,
)
from kdbench.stats.fronts import SizeSaved, p_on_front, pareto_front, size_saved
from kdbench.stats.planning import paired_t_power, seeds_needed
from kdbench.stats.replicates import student_replicates
from kdbench.stats.tests import (
    LEVEL,
    Interval,
    PairedDifference,
    friedman_p,
    holm,
    mean_ranks,
    nemenyi,
    paired_difference,
    paired_drop,
    ranks,
    sign_flip_p,
    t_interval,
)

__all__ = [
    "LEVEL", "SURE_OF_ONE", "Components", "Interval", "PairedDifference", "SizeSaved", "Spread", "at_look",
    "components", "crossed_difference", "crossed_interval", "equivalence_p", "friedman_p", "holm", "look_level",
    "look_numbers", "mean_gain", "mean_ranks", "nemenyi", "p_on_front", "paired_difference", "paired_drop",
    "paired_t_power", "pareto_front",
    "prediction_interval", "rank_intervals", "ranks", "ratio_interval", "seeds_needed", "sign_flip_p", "size_saved",
    "smallest_crossed_gain", "smallest_gain", "spent_levels", "spread_of", "student_replicates", "t_interval",
    "welch_p", "whole_part",
]  # fmt: skip
