"""One training run: train, evaluate, checkpoint, and the measurements that choose how."""

from kdbench.train.autotune import Shape, choose_precision, choose_step, seconds_per_step
from kdbench.train.loop import Hooks, RunOutcome, run_training, training
from kdbench.train.metrics import Scores, expected_calibration_error, score
from kdbench.train.pack import Pack, finish, pack_size, share_batches
from kdbench.train.step import Step

__all__ = [
    "Hooks",
    "Pack",
    "RunOutcome",
    "Scores",
    "Shape",
    "Step",
    "choose_precision",
    "choose_step",
    "expected_calibration_error",
    "finish",
    "pack_size",
    "run_training",
    "score",
    "seconds_per_step",
    "share_batches",
    "training",
]
