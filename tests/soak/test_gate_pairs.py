"""Row C4: generated pairs of reports, every second one with a fault: only a comparable and better challenger passes."""

import random
from dataclasses import replace

from segpipe.promotion import Rules, judge
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import UNFIT
from tests.fixtures.trials import Trials

WHOLE = 1_000
# A tie is one pair in a hundred by itself.
TIES = 7


def test_only_fit_and_better_challengers_pass(trials: Trials) -> None:
    faults = list(UNFIT)

    def trial(number: int) -> None:
        rng = random.Random(number)
        fault = faults[number // 2 % len(faults)] if number % 2 else None
        old, margin = rng.randrange(100), rng.choice([0, 1, 5])
        new = old if number % TIES == 0 else rng.randrange(100)
        challenger = replace(scored(new / 100, "new"), **(UNFIT[fault][0] if fault else {}))
        verdict = judge(challenger, scored(old / 100, "old"), Rules(margin=margin / 100))
        promoted = fault is None and new - old > margin
        assert (verdict.outcome == "promoted") == promoted, (fault, old, new, margin, verdict)
        assert (verdict.outcome == "refused") == (fault is not None), (fault, verdict)
        assert verdict.champion == (verdict.challenger if promoted else verdict.previous)

    trials.run("C4", WHOLE, trial)
