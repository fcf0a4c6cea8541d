"""Numbers behind the tables: fronts, intervals and paired tests (numpy and scipy, no pandas, no I/O).

- ``pareto_front``, ``p_on_front``, ``hypervolume``: what a cheaper or better point is worth.
- ``t_interval``, ``bootstrap_interval``: how sure a mean over seeds is.
- ``paired_difference``, ``sign_flip_p``, ``holm``: whether distilling differs from not distilling.

Scores are "higher is better", costs "lower is better"; NaN means "not measured" everywhere.
"""

from kdbench.stats._intervals import Interval, bootstrap_interval, t_interval
from kdbench.stats._paired import PairedDifference, holm, paired_difference, sign_flip_p
from kdbench.stats._pareto import hypervolume, p_on_front, pareto_front

__all__ = [
    "Interval",
    "PairedDifference",
    "bootstrap_interval",
    "holm",
    "hypervolume",
    "p_on_front",
    "paired_difference",
    "pareto_front",
    "sign_flip_p",
    "t_interval",
]
