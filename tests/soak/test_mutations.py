"""Row A9: mutated images, masks, JSON, YAML, lists and manifests: success or a typed error; no crash, hang or trace."""

from tests.fixtures.mutations import try_all
from tests.fixtures.publish_worker import run_child
from tests.fixtures.trials import Trials

WHOLE, IN_A_CHILD = 10_000, 500


def test_mutated_inputs_give_a_typed_error_or_success(trials: Trials) -> None:
    """In children, so that a crash of a decoder is a count, too; --trial repeats a batch."""
    count = trials.share(WHOLE)

    def trial(batch: int) -> None:
        numbers = list(range(batch * IN_A_CHILD, min(count, (batch + 1) * IN_A_CHILD)))
        status, wrong = run_child(try_all, numbers)
        assert (status, wrong) == (0, []), f"mutations {numbers[0]} to {numbers[-1]}"

    trials.run("A9", range(-(-count // IN_A_CHILD)), trial, each=IN_A_CHILD)
