"""The Optuna storage as the queue and the truth: a study a lane, a trial an attempt at a slot.

Every planned run is a *slot* of its lane. Slots are enqueued as WAITING trials and claimed with the storage's
own atomic state change, lowest slot first, so an interrupted run is taken up before anything new and an
adaptive sampler sees the same history as if nothing had happened.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from kdbench.catalog.types import Dimension
from kdbench.config import Hyper
from kdbench.errors import BadInput, MachineFault
from kdbench.files import identify
from kdbench.sweep.history import adaptive_sampler
from kdbench.sweep.manifest import without_password
from kdbench.sweep.owner import GRACE, HEARTBEAT, is_dead, me
from kdbench.sweep.plan import ADAPTIVE, Lane, drawn_point, slots, space_of, startup
from kdbench.sweep.types import Sweep

OPEN = (TrialState.WAITING, TrialState.RUNNING)
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def open_storage(url: str) -> RDBStorage:
    """Connect to ``sqlite:///...`` or ``postgresql+psycopg://...``.

    Raises:
        BadInput: a URL that cannot be one, or a driver that is not installed.
        MachineFault: a server or file that cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in url:
        raise BadInput(f"--storage '{url}' is not a URL: write sqlite:///path/to/file.db or postgresql+psycopg://...")
    connect: dict[str, Any] = {"timeout": 60} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings(), exclusively(url):
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": connect},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
            )
    except (ArgumentError, ImportError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"--storage '{without_password(url)}' cannot be used: {first} (see README, storages)") from error
    except (OperationalError, SQLAlchemyError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        why = "no space left on the disk" if "disk is full" in why else why
        raise MachineFault(f"cannot open the storage {without_password(url)}: {why}") from error


def exclusively(url: str) -> AbstractContextManager[Any]:
    """A lock around what a database server would do in one transaction; SQLite has no row locks.

    Optuna reads a trial's state and then writes it: with SQLite two processes can both read WAITING and both
    take the trial. A lock file beside the database keeps them apart; servers lock the row (SELECT FOR UPDATE).
    """
    made = make_url(url)
    if not made.drivername.startswith("sqlite") or not made.database or not Path(made.database).parent.is_dir():
        return nullcontext()
    return FileLock(f"{made.database}.lock")


@dataclass(frozen=True)
class Claim:
    """A trial that this process has taken: RUNNING in the storage until told."""

    lane: Lane
    slot: int
    attempt: int
    study: optuna.Study
    trial: Trial


class Queue:
    """All studies of one sweep in one storage."""

    def __init__(self, storage: RDBStorage, sweep: Sweep) -> None:
        self.storage = storage
        self.sweep = sweep
        self._studies: dict[str, optuna.Study] = {}

    def study(self, lane: Lane) -> optuna.Study:
        """The lane's study, made on first use; its samplers are set anew for every slot (see ``claim``)."""
        if lane.key not in self._studies:
            self._studies[lane.key] = optuna.create_study(
                storage=self.storage,
                study_name=f"{self.sweep.name}/{lane.key}",
                direction="maximize",
                load_if_exists=True,
                pruner=self._pruner(),
            )
            study = self._studies[lane.key]
            if "spec" not in study.user_attrs:
                study.set_user_attr("spec", self.sweep.id)
        return self._studies[lane.key]

    def check_spec(self, lane: Lane) -> None:
        """Refuse a storage whose study of this name was made from another spec.

        Raises:
            BadInput: naming the study.
        """
        held = self.study(lane).user_attrs.get("spec")
        if held != self.sweep.id:
            raise BadInput(
                f"the storage already holds a sweep '{self.sweep.name}' made from another spec ({held}); "
                "choose another --name or another --storage"
            )

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.sweep.pruner == "none":
            return optuna.pruners.NopPruner()
        warmup = max(1, self.sweep.recipe.epochs // 3)
        return optuna.pruners.MedianPruner(n_startup_trials=startup(self.sweep), n_warmup_steps=warmup)

    def _sampler(self, lane: Lane, slot: int) -> optuna.samplers.BaseSampler:
        """Seeded by (lane, slot): what it suggests depends on the history alone, not on restarts."""
        seed = int(identify([self.sweep.search_seed, lane.key, slot]), 16) % 2**32
        if lane.phase != "search" or self.sweep.sampler not in ADAPTIVE:
            return optuna.samplers.RandomSampler(seed=seed)
        return adaptive_sampler(self.sweep.sampler, seed=seed, startup=startup(self.sweep))

    def trials(self, lane: Lane, states: Iterable[TrialState] | None = None) -> list[FrozenTrial]:
        """The lane's trials that belong to a slot."""
        found = self.study(lane).get_trials(deepcopy=False, states=tuple(states) if states else None)
        return [trial for trial in found if "slot" in trial.user_attrs]

    def ended(self, lane: Lane) -> int:
        """How many of the lane's slots have ended: complete, pruned, or failed for good."""
        return len({t.user_attrs["slot"] for t in self.trials(lane) if t.state in DONE or failed_for_good(t)})

    def attempts(self, lane: Lane, slot: int) -> int:
        """How often a slot was started or enqueued again."""
        return max((t.user_attrs["attempt"] for t in self.trials(lane) if t.user_attrs["slot"] == slot), default=0)

    def finished(self, lane: Lane, count: int) -> bool:
        """Whether ``count`` slots of the lane have ended."""
        return self.ended(lane) >= count

    def enqueue(self, lane: Lane, points: Iterable[tuple[int, Hyper | None]]) -> None:
        """Put slots that are not there yet into the queue; ``None`` leaves the point to the sampler."""
        study = self.study(lane)
        with exclusively(self.storage.url):
            there = {trial.user_attrs["slot"] for trial in self.trials(lane)}
            for slot, point in points:
                if slot not in there:
                    study.enqueue_trial(point or {}, user_attrs={"slot": slot, "attempt": 1})

    def enqueue_search(self, lane: Lane) -> None:
        """All search slots of a lane."""
        self.enqueue(lane, ((k, drawn_point(self.sweep, lane, k)) for k in range(slots(self.sweep, lane))))

    def reclaim(self, lane: Lane) -> int:
        """Return slots of dead workers to the queue; how many.

        A worker on this machine is dead when its process is gone; elsewhere, when its heartbeat stopped.
        Slots whose trial was failed but not yet enqueued again (a kill in between) are caught here too.
        """
        study = self.study(lane)
        with exclusively(self.storage.url):
            return self._reclaim(lane, study)

    def _reclaim(self, lane: Lane, study: optuna.Study) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        for trial in self.trials(lane, (TrialState.RUNNING,)):
            if is_dead(trial.user_attrs.get("owner"), trial.datetime_start):
                self._fail(trial)
        alive = {t.user_attrs["slot"] for t in self.trials(lane) if t.state != TrialState.FAIL or failed_for_good(t)}
        lost: dict[int, FrozenTrial] = {}
        for trial in sorted(self.trials(lane, (TrialState.FAIL,)), key=_progress):
            if trial.user_attrs["slot"] not in alive:
                lost[trial.user_attrs["slot"]] = trial  # the last attempt wins, not a duplicate that never began
        for slot, trial in sorted(lost.items()):
            point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(point, user_attrs={"slot": slot, "attempt": trial.user_attrs.get("attempt", 1) + 1})
        return len(lost)

    def _fail(self, trial: FrozenTrial) -> None:
        try:
            self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            return  # another worker noticed first

    def claim(self, lane: Lane) -> Claim | None:
        """Take the lane's lowest waiting slot, or None. Atomic over processes and machines."""
        with exclusively(self.storage.url):
            return self._claim(lane)

    def _claim(self, lane: Lane) -> Claim | None:
        study = self.study(lane)
        running = self.trials(lane, (TrialState.RUNNING,))
        # a kill between claiming and signing: wait until that slot comes back rather than overtake it
        unsigned = min((t.user_attrs["slot"] for t in running if "owner" not in t.user_attrs), default=math.inf)
        for waiting in sorted(self.trials(lane, (TrialState.WAITING,)), key=lambda t: t.user_attrs["slot"]):
            slot = waiting.user_attrs["slot"]
            if slot > unsigned:
                return None
            try:
                if not self.storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            # a first sign of life before the name: a machine lost in between is noticed by its silence
            self.storage.record_heartbeat(waiting._trial_id)
            self.storage.set_trial_user_attr(waiting._trial_id, "owner", me())
            if self._superseded(lane, slot, waiting._trial_id):
                self._fail(waiting)
                continue
            study.sampler = self._sampler(lane, slot)
            study._thread_local.cached_all_trials = None  # as Study.ask does: sync once a trial
            return Claim(lane, slot, waiting.user_attrs.get("attempt", 1), study, Trial(study, waiting._trial_id))
        return None

    def _superseded(self, lane: Lane, slot: int, trial_id: int) -> bool:
        """Whether two planners raced and an older trial holds the same slot."""
        return any(
            t.user_attrs["slot"] == slot
            and t._trial_id < trial_id
            and (t.state != TrialState.FAIL or failed_for_good(t))
            for t in self.trials(lane)
        )

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is still this process's: no one gave it up meanwhile."""
        return self.storage.get_trial(claim.trial._trial_id).state == TrialState.RUNNING

    def told_ids(self, lane: Lane) -> set[str]:
        """Ids of the runs whose results the lane was told."""
        return {t.user_attrs["trial_id"] for t in self.trials(lane, DONE) if "trial_id" in t.user_attrs}

    def suggest(self, claim: Claim) -> Hyper:
        """The hyper-parameters of a search claim: its fixed point, or the sampler's suggestion."""
        chosen: Hyper = {}
        for name, dim in space_of(self.sweep, claim.lane.method).items():
            chosen[name] = _suggest(claim.trial, name, dim)
        return chosen

    def winner(self, lane: Lane) -> tuple[FrozenTrial, Hyper] | None:
        """The complete search trial with the highest validation accuracy; the earliest slot wins a tie."""
        complete = [t for t in self.trials(lane, (TrialState.COMPLETE,)) if t.value is not None]
        if not complete:
            return None
        best = min(complete, key=lambda t: (-(t.value or 0.0), t.user_attrs["slot"]))
        return best, dict(best.params)


def _suggest(trial: Trial, name: str, dim: Dimension) -> float:
    if dim.choices is not None:
        return float(trial.suggest_categorical(name, list(dim.choices)))
    assert dim.low is not None and dim.high is not None
    return trial.suggest_float(name, dim.low, dim.high, log=dim.log)


def failed_for_good(trial: FrozenTrial) -> bool:
    """A trial that failed on its own account (a non-finite loss), not by losing its worker."""
    return trial.state == TrialState.FAIL and "error" in trial.user_attrs


def _progress(trial: FrozenTrial) -> tuple[int, int]:
    return trial.user_attrs.get("attempt", 1), len(trial.params)
