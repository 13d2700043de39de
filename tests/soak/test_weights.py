"""Row C6: weights and descriptions that somebody tampered with, hashes and all: a typed error, or the model that they
describe; nothing is executed, no crash and no hang."""

from pathlib import Path

from tests.fixtures import mutated_weights
from tests.fixtures.publish_worker import run_child
from tests.fixtures.trials import Trials

WHOLE, IN_A_CHILD = 2_000, 100


def test_malicious_and_mutated_weights_are_refused_and_nothing_runs(trials: Trials, tmp_path: Path) -> None:
    """In children, so that a crash counts, too; --trial repeats a batch."""
    count = trials.share(WHOLE)

    def trial(batch: int) -> None:
        numbers = list(range(batch * IN_A_CHILD, min(count, (batch + 1) * IN_A_CHILD)))
        assert run_child(mutated_weights.try_all, str(tmp_path), numbers) == (0, []), f"of {numbers[0]} and following"

    trials.run("C6", range(-(-count // IN_A_CHILD)), trial, each=IN_A_CHILD)
