"""Runs as one DataFrame: its columns, types and order are declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kdbench.config import CONTROLS, HARD, PHASES, RunConfig, RunResult
from kdbench.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who only makes rows need not wait for

_SHOWN = ("temperature", "alpha")
TEXT = ("sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "hardware", "wandb_run")
WHOLE = ("seed", "params", "macs", "epochs", "replicate")
COLUMNS: tuple[str, ...] = (
    *("sweep", "trial_id", "phase", "status", "dataset", "teacher", "student", "method", "temperature", "alpha"),
    *("seed", "params", "macs", "epochs", "val_acc", "test_acc", "best_val_acc", "nll", "ece", "agreement"),
    *("seconds", "hardware", "wandb_run"),
)
"""Columns of trials.csv, in order. Where runs have them there follow, sorted, those of ``OPTIONAL``, and as
``hyper_<name>`` a method's further hyper-parameters and what was tuned."""
SCALED = ("calibration_temperature", "scaled_nll", "scaled_ece")
OPTIONAL = (*SCALED, "replicate")


def row_of(name: str, config: RunConfig, result: RunResult, tuned: Sequence[str] = ()) -> dict[str, Any]:
    """One run of the plan called ``name`` as a row; ``tuned``: fields of the students' recipe that were searched."""
    held = config.hyper | {key: getattr(config.recipe, key) for key in tuned if config.phase != "teacher"}
    further: dict[str, Any] = {f"hyper_{key}": value for key, value in sorted(held.items()) if key not in _SHOWN}
    further |= {"replicate": config.replicate} if config.replicate else {}
    about = {
        "sweep": name, "trial_id": config.id, "phase": config.phase, "dataset": config.data.name,
        "teacher": config.written if config.phase == "teacher" else config.teacher, "student": config.model,
        "method": config.condition, "temperature": config.hyper.get("temperature"), "alpha": config.hyper.get("alpha"),
        "seed": config.seed,
    }  # fmt: skip
    return {**dict.fromkeys(COLUMNS), **result.model_dump(include={*COLUMNS, *SCALED}), **about, **further}


def frame_of(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of ``row_of``, in any order, as the runs frame."""
    import pandas as pd

    held = sorted(rows, key=lambda row: str(row["trial_id"]))
    return conform(pd.DataFrame(held, columns=[*COLUMNS, *sorted({key for row in held for key in row} - {*COLUMNS})]))


def named(frame: pd.DataFrame) -> list[Any]:
    """Rows of any frame as named tuples."""
    return list(frame.itertuples(index=False))


def conform(runs: pd.DataFrame, keep: tuple[str, ...] = ()) -> pd.DataFrame:
    """A copy with exactly the declared columns (absent ``COLUMNS`` empty) and those to ``keep``, types and order.

    Rows: by phase, then students in ascending parameters, method, seed; rows that tie keep the order given. A sweep
    that was interrupted and resumed therefore leaves the same file as one that was not.

    Raises:
        BadInput: when a column that identifies a row is missing, a phase or status is unknown, or an id is there twice.
    """
    import pandas as pd

    lacking = [name for name in ("trial_id", "phase", "status", "student", "method", "seed") if name not in runs]
    if lacking and len(runs):
        raise BadInput(f"the trials table lacks the column(s) {', '.join(lacking)}; it has {', '.join(runs.columns)}")
    further = sorted(name for name in runs.columns if name.startswith("hyper_") or name in OPTIONAL)
    frame = runs.reindex(columns=[*COLUMNS, *further, *keep]).reset_index(drop=True)
    for name in (*COLUMNS, *further):
        if name in TEXT:
            frame[name] = frame[name].astype("string")
        else:
            frame[name] = pd.to_numeric(frame[name]).astype("Int64" if name in WHOLE else "float64")
    if "replicate" in frame:
        frame["replicate"] = frame["replicate"].fillna(0)
    _check(frame)
    return _ordered(frame)


def replicate_of(frame: pd.DataFrame) -> pd.Series:
    """Of which of several teachers or searches each row is; 0 where there is one."""
    import pandas as pd

    return frame["replicate"] if "replicate" in frame else pd.Series(0, frame.index)


def _check(frame: pd.DataFrame) -> None:
    for column, allowed in (("phase", PHASES), ("status", ("complete", "pruned", "failed"))):
        strange = sorted(set(frame[column].fillna("(empty)")) - set(allowed))
        if strange:
            raise BadInput(f"unknown {column} '{strange[0]}' in the trials table; it may be {', '.join(allowed)}")
    twice = frame["trial_id"][frame["trial_id"].notna() & frame["trial_id"].duplicated()]
    if len(twice):
        raise BadInput(f"trial '{twice.iloc[0]}' is in the trials table twice; keep its last attempt only")


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    size = frame["student"].map(frame.groupby("student")["params"].max()).astype("Float64")
    keys = pd.DataFrame(
        {
            "phase": frame["phase"].map({name: index for index, name in enumerate(PHASES)}),
            "unsized": ~(size > 0).fillna(False).astype(bool),
            "size": size.fillna(0.0).astype("float64"),
            "student": frame["student"].fillna(""),
            "kind": frame["method"].map({HARD: 0, **dict.fromkeys(CONTROLS, 2)}).fillna(1),
            "method": frame["method"].fillna(""),
            "replicate": replicate_of(frame),
            "seed": frame["seed"].fillna(-1).astype("int64"),
        }
    )
    return frame.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)
