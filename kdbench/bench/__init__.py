"""``kdbench bench``: how fast trials and sweeps run here, beside the bare student and other distillation loops."""

from kdbench.bench.rounds import Report, Setting, run_rounds

__all__ = ["Report", "Setting", "run_rounds"]
