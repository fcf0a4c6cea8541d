"""What students cost beside parameters, by submission: for a leaderboard's fronts over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.board.submissions import Submission
from kdbench.errors import BadInput
from kdbench.methods import ships_more


def costs_of(submissions: Sequence[Submission], x: str) -> tuple[dict[Path, dict[str, float]], str]:
    """By folder and student what ``x`` comes to, and how an axis calls it; folders that do not say are left out.

    ``macs``; ``latency_ms``: as the sweeps measured it; or a measure of exported files (``kdbench.deploy.latency``).

    Raises:
        BadInput: nobody says it, or latencies of several machines, which are never mixed.
    """
    from kdbench.deploy.latency import costs

    found: dict[Path, dict[str, float]] = {}
    axes: dict[str, None] = {}
    why = "no run says it"
    for one in submissions:
        if x == "macs":
            plain = [run for run in one.trials if run.result.macs and not ships_more(run.config.method)]
            held, axis = {run.config.model: float(run.result.macs) for run in plain}, "MACs"
        elif x == "latency_ms":
            held, axis = dict(one.latency), f"latency (ms; torch, {one.hardware})"
        else:
            try:
                held, axis = costs(one.folder, x)
            except BadInput as error:
                held, axis, why = {}, "", str(error)
        if held:
            found[one.folder] = held
            axes[axis] = None
    if not found:
        raise BadInput(f"x: nothing is known of {x} here ({why})")
    if len(axes) > 1:
        raise BadInput(f"x: {x} was measured as {' and as '.join(axes)}, never mixed: give folders of one machine")
    return found, next(iter(axes))
