"""A made-up sweep, as the report gets it: five MobileNetV3 sizes, three seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

LADDER = {
    "mobilenetv3_small_050": (582_722, 0.884),
    "mobilenetv3_small_075": (1_026_450, 0.897),
    "mobilenetv3_small_100": (1_528_106, 0.904),
    "mobilenetv3_large_075": (2_724_298, 0.913),
    "mobilenetv3_large_100": (4_214_842, 0.918),
}
GAINS = (0.013, 0.008, 0.004, 0.0, -0.006)


def sweep_frame(
    ladder: dict[str, tuple[int, float]] | None = None,
    gains: Sequence[float] = GAINS,
    *,
    methods: Sequence[str] = ("kd",),
    seeds: int = 3,
    trials: int = 12,
    noise: float = 0.0015,
    seed: int = 0,
    teacher: str = "resnet50",
) -> pd.DataFrame:
    """A trials frame: teacher, baselines, ``trials`` search trials a size (every fourth pruned), confirm runs."""
    ladder = ladder or LADDER
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []

    def add(phase: str, student: str, method: str, params: int, acc: float, **more: object) -> None:
        rows.append(
            {
                "sweep": "fashion-mnist-resnet50-mobilenetv3-kd",
                "trial_id": f"{len(rows):012x}",
                "phase": phase,
                "status": "complete",
                "dataset": "fashion-mnist",
                "teacher": teacher,
                "student": student,
                "method": method,
                "seed": 0,
                "params": params,
                "macs": params * 4,
                "epochs": 15,
                "val_acc": round(acc, 4),
                "best_val_acc": round(acc + 0.001, 4),
                "nll": 0.3,
                "ece": 0.02,
                "agreement": 0.95,
                "seconds": 61.5,
                "hardware": "cpu:test:2 threads",
                "wandb_run": f"run{len(rows):05d}",
                **more,
            }
        )

    add("teacher", teacher, "hard", 23_528_522, 0.936, test_acc=0.9312)
    for (student, (params, acc)), gain in zip(ladder.items(), gains, strict=True):
        add("baseline", student, "hard", params, acc + rng.normal(0, noise))
        for method in methods:
            for index in range(trials):
                t, alpha = float(np.exp(rng.uniform(0, np.log(20)))), float(rng.uniform())
                bump = gain * 1.6 * alpha * np.exp(-((np.log(t) - 1.4) ** 2)) - 0.01 * (alpha > 0.95)
                status = "pruned" if index % 4 == 3 else "complete"
                value = acc + bump + rng.normal(0, noise) - 0.05 * (status == "pruned")
                add("search", student, method, params, value, status=status, temperature=t, alpha=alpha)
        for k in range(seeds):
            luck = rng.normal(0, noise)
            hard = round(acc + luck + rng.normal(0, noise / 2), 4)
            add("confirm", student, "hard", params, hard, seed=1001 + k, test_acc=hard)
            for order, method in enumerate(methods):
                soft = round(acc + gain * (1 + 0.3 * order) + luck + rng.normal(0, noise / 2), 4)
                add(
                    *("confirm", student, method, params, soft),
                    seed=1001 + k,
                    test_acc=soft,
                    temperature=4.0 + order,
                    alpha=0.75,
                )
    return pd.DataFrame(rows)
