"""One training run: train, evaluate, checkpoint, and the measurements that choose how."""

from kdbench.engine.metrics import Scores, expected_calibration_error, score
from kdbench.engine.pack import Pack, finish, pack_size, share_batches
from kdbench.engine.run import Hooks, RunOutcome, run_training, training
from kdbench.engine.step import Step
from kdbench.engine.tune import Shape, choose_precision, choose_step, seconds_per_step

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
