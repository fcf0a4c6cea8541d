"""Adaptive samplers that see one history however often runs were interrupted.

TPE and GP order what they learn from by trial number, and a run taken up again has a new number: the very same
results would lead to other suggestions. These samplers see every trial under the number of its slot.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState


def by_slot(trial: FrozenTrial) -> FrozenTrial:
    """A copy of the trial with its slot for a number."""
    copied = copy.copy(trial)
    copied.number = trial.user_attrs["slot"]
    return copied


class _SlotView:
    """A study whose trials are numbered, and listed, by slot; all else is the study's own."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = False, states: Iterable[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        wanted = None if states is None else tuple(states)
        found = self._study._get_trials(deepcopy=False, states=wanted, use_cache=use_cache)
        return sorted((by_slot(t) for t in found if "slot" in t.user_attrs), key=lambda t: t.number)


class SlotTPE(optuna.samplers.TPESampler):
    """TPE over slots."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE does, on the history in the order of slots."""
        return super().sample_relative(_SlotView(study), by_slot(trial), search_space)  # type: ignore[arg-type]


class SlotGP(optuna.samplers.GPSampler):
    """Gaussian process over slots."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As GP does, on the history in the order of slots."""
        return super().sample_relative(_SlotView(study), by_slot(trial), search_space)  # type: ignore[arg-type]


def adaptive_sampler(name: str, *, seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """``tpe`` or ``gp`` with this seed, guessing freely below ``startup`` finished trials."""
    if name == "gp":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return SlotGP(seed=seed, n_startup_trials=startup)
    return SlotTPE(seed=seed, n_startup_trials=startup)
