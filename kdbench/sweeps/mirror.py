"""``--storage URL``: a sweep's searches as Optuna studies in a database, live, for optuna-dashboard. Never read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.errors import BadInput, MachineFault
from kdbench.run.manifest import hide_password
from kdbench.run.observers import Progress
from kdbench.sweeps.groups import Group
from kdbench.sweeps.plan import point_of, space_of
from kdbench.sweeps.search import suggest
from kdbench.sweeps.types import Sweep


def open_storage(url: str) -> RDBStorage:
    """Connect to ``sqlite:///...``, ``postgresql+psycopg://...`` or whatever SQLAlchemy knows.

    Raises:
        BadInput: a URL that cannot be one, or a driver that is not installed.
        MachineFault: a server or file that cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (ArgumentError, ImportError, ValueError) as error:
        first = str(error).splitlines()[0].replace(url, hide_password(url))
        raise BadInput(f"--storage '{hide_password(url)}' cannot be used: {first}") from error
    except (SQLAlchemyError, RuntimeError) as error:
        why = str(error).splitlines()[0].replace(url, hide_password(url))
        raise MachineFault(f"cannot open the storage {hide_password(url)}: {why}") from error


class Mirror:
    """An observer that writes search runs into a storage; a database that fails costs the mirror, not the sweep."""

    def __init__(self, url: str, sweep: Sweep, notify: Callable[[str], None]) -> None:
        self._storage, self._sweep, self._notify = open_storage(url), sweep, notify
        self._studies: dict[str, optuna.Study] = {}
        self._trials: dict[str, tuple[optuna.Study, Trial]] = {}
        self._broken = False

    def _try(self, what: Callable[..., None], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            what(*arguments)
        except (SQLAlchemyError, OptunaError, RuntimeError, ValueError, KeyError) as error:
            self._broken = True
            self._notify(f"the storage is no longer written ({str(error).splitlines()[0]}); the sweep goes on without")

    def progress(self, state: Progress) -> None:
        """Nothing to mirror."""

    def message(self, text: str, done: int = 0, total: int = 0) -> None:
        """Nothing to mirror."""

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        if config.phase == "search":
            self._try(self._start, config)

    def epoch(self, config: RunConfig, log: EpochLog, again: bool = False) -> None:
        if config.id in self._trials:
            self._try(self._trials[config.id][1].report, log.val_acc, log.epoch)

    def end(self, config: RunConfig, result: RunResult) -> None:
        if config.id in self._trials:
            self._try(self._end, config, result)

    def close(self) -> None:
        self._trials.clear()

    def _start(self, config: RunConfig) -> None:
        key = Group("search", config.model, config.method, config.replicate).key
        if key not in self._studies:
            self._studies[key] = optuna.create_study(
                storage=self._storage, study_name=f"{self._sweep.name}/{key}", direction="maximize",
                load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=0),
            )  # fmt: skip
        study, space = self._studies[key], space_of(self._sweep, config.method)
        study.enqueue_trial(point_of(self._sweep, config), user_attrs={"trial_id": config.id})
        trial = study.ask()
        for name, dimension in space.items():
            suggest(trial, name, dimension)
        self._trials[config.id] = (study, trial)

    def _end(self, config: RunConfig, result: RunResult) -> None:
        study, trial = self._trials.pop(config.id)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        study.tell(trial, result.val_acc if result.status == "complete" else None, state=states[result.status])
