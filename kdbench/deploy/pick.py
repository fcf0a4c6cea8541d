"""One student to ship: the best on validation within what the device allows, the cheapest of those that tie with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from kdbench.config import CONTROLS, HARD
from kdbench.stats import PairedDifference, paired_difference


@dataclass(frozen=True)
class Offer:
    """A student as trained by one method."""

    student: str
    method: str
    run: str
    """Its confirm run that is best on validation: what is shipped."""
    hyper: Mapping[str, float]
    val: Mapping[int, float]
    """Validation accuracy (fraction) by seed, in the precision asked for."""
    test_acc: float
    """Mean over seeds (fraction), reported and not chosen by."""
    test_lo: float
    test_hi: float
    costs: Mapping[str, float]
    """By measure: ``params``, ``macs``, ``mb``, ``ms``."""

    @property
    def val_acc(self) -> float:
        """Mean over seeds."""
        return float(np.mean(list(self.val.values())))


@dataclass(frozen=True)
class Limit:
    """What the device allows."""

    measure: str
    """Of ``Offer.costs``, or ``acc``: the least validation accuracy."""
    value: float

    def excess(self, offer: Offer) -> float:
        """By what factor an offer is beyond it; 0 within."""
        if self.measure == "acc":
            return max(0.0, self.value - offer.val_acc) / max(self.value, 1e-9)
        return max(0.0, offer.costs.get(self.measure, math.inf) / self.value - 1)


@dataclass(frozen=True)
class Beside:
    """Another offer beside the one chosen."""

    offer: Offer
    difference: PairedDifference
    """Its validation accuracy less that of the one chosen, paired by seed."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen from."""

    chosen: Offer | None
    best: Offer | None = None
    """The most accurate on validation within the limits; the one chosen ties with it."""
    tied: Sequence[Beside] = field(default=())
    """Others within the limits that seeds cannot tell from the best."""
    cheaper: Beside | None = None
    """The most accurate of those that cost less."""
    better: Beside | None = None
    """The cheapest of all, limits aside, that is more accurate for sure."""
    hard: Beside | None = None
    """The same student on hard labels, where it was distilled."""
    missed: Offer | None = None
    """Where nothing fits: what comes nearest."""
    by: str = "params"
    """The measure that says what is cheaper."""

    @property
    def as_good(self) -> bool:
        """Whether hard labels do as well, as far as seeds can tell."""
        return self.hard is not None and _ties(self.hard.difference)

    def as_json(self) -> dict[str, Any]:
        """Plain data; unknown numbers are null."""
        told: dict[str, Any] = _plain(asdict(self) | {"hard_labels_as_good": self.as_good})
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        named = getattr(value, "_asdict", None)
        return _plain(named()) if named else [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _beside(offer: Offer, other: Offer) -> Beside:
    seeds = sorted({*offer.val} & {*other.val})
    return (
        Beside(offer, paired_difference([offer.val[s] for s in seeds], [other.val[s] for s in seeds]))
        if seeds
        else (Beside(offer, PairedDifference(offer.val_acc - other.val_acc, math.nan, math.nan, math.nan, 0)))
    )


def _ties(difference: PairedDifference) -> bool:
    """Whether seeds leave open which is better; one seed always does."""
    return not difference.p < 0.05


def choose(offers: Sequence[Offer], limits: Sequence[Limit], by: str = "params") -> Choice:
    """The cheapest ``by`` a measure of those that tie with the most accurate within the ``limits``.

    Accuracies are of the validation split, paired by seed: a tie is a paired t-test that does not reject at 5%. At one
    cost the more accurate is taken. Controls are not offered.
    """
    offers = [offer for offer in offers if offer.method not in CONTROLS]
    within = [offer for offer in offers if not any(limit.excess(offer) for limit in limits)]
    if not within:
        nearest = min(offers, key=lambda o: (max(limit.excess(o) for limit in limits), -o.val_acc), default=None)
        return Choice(None, missed=nearest, by=by)

    def cost(offer: Offer) -> float:
        return offer.costs.get(by, math.inf)

    best = max(within, key=lambda offer: (offer.val_acc, -cost(offer)))
    others = [_beside(offer, best) for offer in within if offer is not best]
    tied = [each for each in others if _ties(each.difference)]
    chosen = min([best, *(each.offer for each in tied)], key=lambda offer: (cost(offer), -offer.val_acc))
    less = [offer for offer in offers if cost(offer) < cost(chosen)]
    more = [_beside(offer, chosen) for offer in offers if cost(offer) > cost(chosen)]
    more = [each for each in more if each.difference.mean > 0 and not _ties(each.difference)]
    plain = next((o for o in offers if (o.student, o.method) == (chosen.student, HARD) and o is not chosen), None)
    return Choice(
        chosen, best, [each for each in tied if each.offer is not chosen],
        _beside(max(less, key=lambda offer: offer.val_acc), chosen) if less else None,
        min(more, key=lambda each: cost(each.offer)) if more else None,
        _beside(plain, chosen) if plain else None, None, by,
    )  # fmt: skip


NAMES = {"params": "parameters", "macs": "multiply-accumulates", "mb": "MB", "ms": "ms"}


def priced(offer: Offer, measure: str) -> str:
    """A cost in words."""
    value = offer.costs.get(measure, math.nan)
    if value != value:
        return f"unknown {NAMES[measure]}"
    number = f"{value / 1e6:.2f} M" if measure in ("params", "macs") else f"{value:.3g}"
    return f"{number} {NAMES[measure]}"


def called(offer: Offer) -> str:
    """``mobilenetv3_small_050 (kd)``."""
    return f"{offer.student} ({'hard labels' if offer.method == HARD else offer.method})"


def _gap(each: Beside) -> str:
    mean, lo, hi = (100 * value for value in each.difference[:3])
    return f"{mean:+.2f} points" + (f" [{lo:.2f}, {hi:.2f}]" if lo == lo else "")


def sentences(choice: Choice, limits: Sequence[Limit], sweep: str) -> list[str]:
    """What a person is told, one statement a line."""
    asked = " and ".join(f"{'at least' if limit.measure == 'acc' else 'at most'} {_limit(limit)}" for limit in limits)
    if choice.chosen is None:
        if choice.missed is None:
            return ["No student is confirmed here yet."]
        near, held = choice.missed, [limit for limit in limits if limit.excess(choice.missed)]
        misses = ", ".join(
            f"{100 * near.val_acc:.2f}% on validation" if limit.measure == "acc" else priced(near, limit.measure)
            for limit in held
        )
        return [f"Nothing fits {asked}. Nearest is {called(near)}: {misses}."]
    offer = choice.chosen
    costs = ", ".join(priced(offer, name) for name in NAMES if name in offer.costs)
    interval = f" [{100 * offer.test_lo:.2f}, {100 * offer.test_hi:.2f}]" if offer.test_lo == offer.test_lo else ""
    told = [
        f"Ship {called(offer)}: {costs}{f'; asked: {asked}' if asked else ''}.",
        f"Validation accuracy {100 * offer.val_acc:.2f}% over {len(offer.val)} seeds, by which it was chosen; "
        f"test accuracy {100 * offer.test_acc:.2f}%{interval}.",
    ]  # fmt: skip
    if choice.best is not None and choice.best is not offer:
        told.append(f"{called(choice.best)} is more accurate on validation, {_gap(_beside(choice.best, offer))}, but "
                    f"seeds cannot tell that from chance, and it costs {priced(choice.best, choice.by)}.")  # fmt: skip
    rest = [each.offer for each in choice.tied if each.offer is not choice.best]
    if rest:
        told.append(f"Also tied: {', '.join(called(each) for each in rest)}.")
    if choice.hard is not None:
        gained = _gap(_beside(offer, choice.hard.offer))
        if choice.as_good:
            told.append(f"Hard labels are as good here: distilling gained {gained} on validation, which seeds cannot "
                        "tell from chance.")  # fmt: skip
        else:
            told.append(f"Distilling gained {gained} on validation over hard labels.")
    if choice.cheaper is not None:
        told.append(f"Next cheaper: {called(choice.cheaper.offer)}, {priced(choice.cheaper.offer, choice.by)}: "
                    f"{_gap(choice.cheaper)}.")  # fmt: skip
    if choice.better is not None:
        told.append(f"Next better: {called(choice.better.offer)}, {priced(choice.better.offer, choice.by)}: "
                    f"{_gap(choice.better)}.")  # fmt: skip
    return [*told, f"kdbench export {sweep}:{offer.run}"]


def _limit(limit: Limit) -> str:
    if limit.measure == "acc":
        return f"{100 * limit.value:g}% on validation"
    return f"{limit.value:,.6g} {NAMES[limit.measure]}"
