"""Rows C2 and C3: a promoter that is killed, or loses MLflow or its replies, between artifact, version, ledger and
alias: the alias is on a whole model all the while, and the next night settles it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.stages import mirror
from tests.fixtures.promote_worker import Fault, change_champion, check_alias, check_settled, decide
from tests.fixtures.publish_worker import run_child
from tests.fixtures.trials import Trials

# A child imports little and makes two promotions: some seconds each.
QUICK = 4
# Changes of MLflow, and steps of segpipe's own files, that it takes a second champion to take over;
# `test_the_places_above_are_all_there_are` says when that changes.
CHANGES, STEPS = 19, 7


def settled_after(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds in between, and after the next night."""
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    assert check_alias(home) in ("first", "second")
    mirror.reconcile("toy")
    assert decide(home, "second") == "promoted"
    check_settled(home)


def test_the_places_above_are_all_there_are(new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home()
    assert run_child(change_champion, str(home), Fault()) == (0, CHANGES)
    monkeypatch.setenv("SEGPIPE_HOME", str(home))
    check_settled(home)
    assert run_child(change_champion, str(new_home()), Fault(), f"*:{STEPS}")[0] == 137
    assert run_child(change_champion, str(new_home()), Fault(), f"*:{STEPS + 1}")[0] == 0


def test_killed_at_any_change_of_mlflow(
    trials: Trials, new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(number: int) -> None:
        home, fault = new_home(), Fault(at=number // 2 * 7 % CHANGES + 1, kills=True, after=bool(number % 2))
        assert run_child(change_champion, str(home), fault)[0] == 137
        settled_after(home, monkeypatch)

    trials.run("C2", range(2 * CHANGES), trial, quick=QUICK)


def test_killed_at_any_step_of_our_files(
    trials: Trials, new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(number: int) -> None:
        home = new_home()
        assert run_child(change_champion, str(home), Fault(), f"*:{number * 5 % STEPS + 1}")[0] == 137
        settled_after(home, monkeypatch)

    trials.run("C2", range(STEPS), trial, quick=QUICK)


def test_an_mlflow_that_goes_away_at_any_change_or_loses_its_reply(
    trials: Trials, new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(number: int) -> None:
        home, fault = new_home(), Fault(at=number // 2 * 7 % CHANGES + 1, after=bool(number % 2))
        assert run_child(change_champion, str(home), fault)[0] == 0, "a night goes on without MLflow"
        settled_after(home, monkeypatch)

    trials.run("C3", range(2 * CHANGES), trial, quick=QUICK)
