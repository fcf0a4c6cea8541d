"""One training run: train, evaluate, checkpoint, and the measurements that choose how.

``loop`` has the steps, ``capture`` records one for a GPU, ``parallel`` takes one in several processes.
"""

from kdbench.train.autotune import Shape, choose_step, seconds_per_step
from kdbench.train.loop import RunOutcome, run_training
from kdbench.train.metrics import Scores, expected_calibration_error, score
from kdbench.train.step import Step

__all__ = [
    "RunOutcome", "Scores", "Shape", "Step", "choose_step", "expected_calibration_error", "run_training", "score",
    "seconds_per_step",
]  # fmt: skip
