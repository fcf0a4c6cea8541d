"""One training run: train, evaluate, checkpoint, and the measurements that choose a precision."""

from kdbench.engine.metrics import Scores, expected_calibration_error, score
from kdbench.engine.run import Hooks, RunOutcome, run_training
from kdbench.engine.tune import choose_precision, seconds_per_step

__all__ = [
    "Hooks",
    "RunOutcome",
    "Scores",
    "choose_precision",
    "expected_calibration_error",
    "run_training",
    "score",
    "seconds_per_step",
]
