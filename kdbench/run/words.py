"""Numbers and runs in words, for screens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from kdbench.config import Recipe, RunConfig, RunResult

T = TypeVar("T")


def counted(count: int | str, noun: str) -> str:
    """``"1 run"``, ``"1,200 runs"``; of a text (``"3 to 5"``) its last number counts."""
    plural = "" if str(count).split()[-1] == "1" else "es" if noun.endswith(("ch", "ss")) and noun != "epoch" else "s"
    return f"{count:,} {noun}{plural}" if isinstance(count, int) else f"{count} {noun}{plural}"


def numbered(name: T, replicate: int) -> T | str:
    """``resnet18 #2`` for what belongs to the second teacher or search; what belongs to the first as it is."""
    return f"{name} #{replicate + 1}" if replicate else name


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``, ``"12 days"``, ``"18 years"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    days = whole / 86400
    if days < 2:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{days:.0f} days" if days < 700 else f"{days / 365.25:.0f} years"


def percent(fraction: float | None) -> str:
    """``"91.20%"``, or an empty string."""
    return "" if fraction is None else f"{100 * fraction:.2f}%"


def hyper_text(hyper: Mapping[str, float]) -> str:
    """``"T=4 alpha=0.61"``."""
    short = {"temperature": "T"}
    return " ".join(f"{short.get(name, name)}={value:.3g}" for name, value in hyper.items())


def run_text(config: RunConfig, label: str = "") -> str:
    """A run in a few words: network (or a paper's name for the run), loss, hyper-parameters, seed."""
    words = [label or config.model, config.condition, hyper_text(config.hyper), f"seed={config.seed}"]
    words += [f"replicate={config.replicate}"] if config.replicate else []
    return " ".join(word for word in words if word)


def outcome_text(result: RunResult) -> str:
    """How a run ended: accuracy and time, or why there is none."""
    took = duration(result.seconds)
    if result.status == "failed":
        return f"failed after {took}: {result.error or 'unknown reason'}"
    accuracy = f"{percent(result.test_acc)} test" if result.test_acc is not None else f"{percent(result.val_acc)} val"
    cut = f", pruned after {counted(result.epochs, 'epoch')}" if result.status == "pruned" else ""
    return f"{accuracy}, {took}{cut}"


def fault_text(error: RuntimeError, attempts: int, recipe: Recipe) -> str:
    """Why a run was given up: what torch said, and where memory was short, what needs half of it."""
    words = f"after {counted(attempts, 'attempt')}: {str(error).splitlines()[0]}"
    if type(error).__name__ != "OutOfMemoryError":
        return words
    half, steps = max(2, recipe.batch_size // 2), 2 * recipe.accumulate
    return f"{words}; --batch-size {half} --set recipe.accumulate={steps} has this batch's gradients but for batch norm"
