"""Successive halving as arithmetic: how many architectures stand in each rung, how far a rung goes, who goes on. Pure.

Sources: K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (AISTATS
2016), and L. Li et al., "Hyperband" (JMLR 18, 2018), algorithm 1: in rung k stand n_k = floor(n_(k-1) / eta) of them,
each trained to r_k = r eta^k of its resource, the last one to all of it, R. Here eta is 1 / `keep`, the resource of an
architecture is its own training (R = 1, the schedule is of the full length from the first step on), and what differs:

- r is not given but is the largest that the budget holds: with K halvings r_k = r^(1 - k/K), which is r eta^k where
  the budget is that of Hyperband's r = eta^-K. More hours make longer rungs, less only shorter ones, and the last one
  always ends with a model that is trained in full.
- a training that an earlier night or search brought further than a rung goes is not ranked with those behind it: it
  takes none of their places, and is ranked in the first rung that goes as far as it stands.
- trainings are paused and go on, so that a rung costs n_k (r_k - r_(k-1)), not n_k r_k. The cost of each is its own,
  and as nobody knows who will go on, every rung is counted as if the most expensive did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

LEAST_GAIN = 1.1  # a later rung brings each at least so many times as far: less would cost a start and a validation
_BISECTIONS = 50

Fate = Literal["", "goes on", "ahead", "dropped", "trained", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Climb:
    """One training's part of a rung: from optimiser step `start` to `until`, of `steps`; `planned` device-hours.

    Then what came of it, unless `fate` is "": its validation `score` at the end, the device-hours that this rung took,
    the seconds in the training loop since its first step; what was `said` of one that failed. One that is "ahead"
    stands further than the rung goes, has no score and goes on.
    """

    label: str
    start: int
    until: int
    steps: int
    planned: float
    fate: Fate = ""
    score: float | None = None
    hours: float = 0.0
    train_seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """Trainings that are brought to the same `share` of their lengths, in the recipe's order; 1 ends them. One that has
    `until` 0 had a fault before the first step."""

    number: int
    share: float
    climbs: tuple[Climb, ...]

    @property
    def is_last(self) -> bool:
        return self.share == 1

    @property
    def is_ended(self) -> bool:
        return all(climb.fate for climb in self.climbs)

    @property
    def waiting(self) -> tuple[Climb, ...]:
        """Those whose part is still to be trained."""
        return tuple(climb for climb in self.climbs if not climb.fate)

    @property
    def onward(self) -> tuple[Climb, ...]:
        """Those that go on: first who is ahead, the furthest first, as they cost least; then the ranked, the best
        first."""
        ahead = [climb for climb in self.climbs if climb.fate == "ahead"]
        furthest = sorted(ahead, key=lambda climb: -climb.until / climb.steps)
        return (*furthest, *(climb for climb in ranked(self) if climb.fate == "goes on"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A rung that is only planned: how many stand in it, until which share, for how many device-hours at most."""

    count: int
    share: float
    hours: float


def counts(number: int, keep: float) -> list[int]:
    """How many stand in each rung: 9 of keep 0.34 are 9, 3, 1."""
    found = [number]
    while found[-1] > 1:
        found.append(max(1, math.floor(found[-1] * keep)))
    return found


def lay_out(
    costs: Sequence[float], keep: float, *, rest: float, least: float, starts: Sequence[float] = ()
) -> list[Step] | None:
    """The rungs that `rest` device-hours hold, the first of which goes to the share `least` at least; None where they
    do not hold that.

    `costs` are the device-hours of each whole training, and `starts` the share of it at which each stands, 0 without.
    One rung to the end where all of them fit.
    """
    if full_grid(costs, starts) <= rest:
        return _steps([1.0], costs, keep, starts)
    if least >= 1 or total(from_first(least, costs, keep, starts)) > rest:
        return None
    low, high = least, 1.0
    for _ in range(_BISECTIONS):  # the cost rises with the share, and by no formula that can be turned round
        middle = (low + high) / 2
        fits = total(from_first(middle, costs, keep, starts)) <= rest
        low, high = (middle, high) if fits else (low, middle)
    return from_first(low, costs, keep, starts)


def from_first(share: float, costs: Sequence[float], keep: float, starts: Sequence[float] = ()) -> list[Step]:
    """The rungs whose first one ends at `share`, or where the one stands that is the least far: somebody is to be
    ranked in it."""
    share = max(share, min(starts, default=0.0))
    halvings = len(counts(len(costs), keep)) - 1
    shares = [share ** (1 - k / halvings) for k in range(halvings + 1)] if halvings else [1.0]
    return _steps(shares, costs, keep, starts)


def total(steps: Sequence[Step]) -> float:
    """Device-hours of these rungs together, at most."""
    return sum(step.hours for step in steps)


def full_grid(costs: Sequence[float], starts: Sequence[float] = ()) -> float:
    """Device-hours of all trainings from where they stand to their ends."""
    return sum(cost * (1 - start) for cost, start in zip(costs, starts or [0.0] * len(costs), strict=True))


def _steps(shares: Sequence[float], costs: Sequence[float], keep: float, starts: Sequence[float]) -> list[Step]:
    found, before = [], starts or [0.0] * len(costs)
    for count, share in zip(counts(len(costs), keep), shares, strict=False):
        parts = [cost * max(0.0, share - reached) for cost, reached in zip(costs, before, strict=True)]
        found.append(Step(count=count, share=share, hours=sum(sorted(parts, reverse=True)[:count])))
        before = [max(share, reached) for reached in before]
    return found


def ranked(rung: Rung) -> list[Climb]:
    """Those with a score, the best first; of equal ones the first of the recipe."""
    scored = [climb for climb in rung.climbs if climb.score is not None]
    return sorted(scored, key=lambda climb: -(climb.score or 0.0))


def decided(rung: Rung, keep: float) -> Rung:
    """The rung with who goes on and who is dropped. One that failed counts among those that do not go on; one that is
    trained already keeps its place, and needs no further step. Who is ahead neither takes a place nor makes one."""
    standing = [climb for climb in rung.climbs if climb.until > 0 and climb.fate != "ahead"]
    places = max(1, math.floor(len(standing) * keep))
    best = {climb.label for climb in ranked(rung)[:places]}
    fates: Mapping[str, Fate] = {
        climb.label: climb.fate or ("goes on" if climb.label in best else "dropped") for climb in rung.climbs
    }
    return replace(rung, climbs=tuple(replace(climb, fate=fates[climb.label]) for climb in rung.climbs))


def next_steps(
    rung: Rung, costs: Mapping[str, float], keep: float, *, spendable: float, rest: float
) -> tuple[list[Climb], list[Step]] | None:
    """Who of an ended rung goes on, and the rungs from here; None where `rest` device-hours bring nobody to the end.

    As many of those that go on as there is room for, in the order of `Rung.onward`. `costs` are of whole trainings by
    label; `spendable` is what may be planned with while more than one rung is left.
    """
    on = rung.onward
    for count in counts(len(on), keep) if on else []:
        chosen = on[:count]
        steps = lay_out(
            [costs[climb.label] for climb in chosen],
            keep,
            rest=rest if count == 1 else spendable,
            least=rung.share * LEAST_GAIN,
            starts=[climb.until / climb.steps for climb in chosen],
        )
        if steps is not None:
            return list(chosen), steps
    return None
