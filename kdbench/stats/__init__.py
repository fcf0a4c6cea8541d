"""Numbers behind the tables: fronts, intervals and paired tests (numpy and scipy, no pandas, no I/O).

- ``pareto_front``, ``p_on_front``, ``hypervolume``, ``hypervolume_interval``, ``hypervolume_gain``: fronts and
  what they are worth.
- ``size_saved``: how much smaller a distilled student may be than a hard-label one of the same accuracy.
- ``t_interval``, ``bootstrap_interval``: how sure a mean over seeds is.
- ``paired_difference``, ``sign_flip_p``, ``holm``: whether distilling differs from not distilling.
- ``paired_t_power``, ``seeds_needed``: how many seeds it takes to see that.
- ``ranks``, ``mean_ranks``, ``friedman_p``: several methods over several data sets.

Scores are "higher is better", costs "lower is better"; NaN means "not measured" everywhere.
"""

from kdbench.stats._fronts import SizeSaved, hypervolume_gain, hypervolume_interval, size_saved
from kdbench.stats._intervals import Interval, bootstrap_interval, t_interval
from kdbench.stats._paired import PairedDifference, holm, paired_difference, sign_flip_p
from kdbench.stats._pareto import hypervolume, p_on_front, pareto_front
from kdbench.stats._power import paired_t_power, seeds_needed
from kdbench.stats._ranks import friedman_p, mean_ranks, ranks

__all__ = [
    "Interval",
    "PairedDifference",
    "SizeSaved",
    "bootstrap_interval",
    "friedman_p",
    "holm",
    "hypervolume",
    "hypervolume_gain",
    "hypervolume_interval",
    "mean_ranks",
    "p_on_front",
    "paired_difference",
    "paired_t_power",
    "pareto_front",
    "ranks",
    "seeds_needed",
    "sign_flip_p",
    "size_saved",
    "t_interval",
]
