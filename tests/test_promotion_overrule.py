"""segpipe/promotion/overrule.py: a person's word, on record, and what the gate makes of it afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest

from segpipe.errors import InputError
from segpipe.promotion import champion, force, history, roll_back
from segpipe.promotion.gate import contender
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import promote

A, B, C = scored(0.5, "a"), scored(0.6, "b"), scored(0.55, "c")


def stands(ledger: Path) -> tuple[str, str, int]:
    record = champion(str(ledger))
    assert record is not None
    assert record.champion is not None
    return record.champion.label, record.kind, record.number


def test_a_challenger_that_lost_is_champion_by_a_persons_word(tmp_path: Path) -> None:
    promote(tmp_path, B)
    kept = promote(tmp_path, C, B)
    forced = force(str(tmp_path), kept, who="ann", why="night scenes matter more to us")
    assert stands(tmp_path) == ("c", "forced", 3)
    assert (forced.outcome, forced.number, forced.delta) == ("forced", 3, kept.delta)
    assert forced.comparison == kept.comparison
    assert forced.previous is not None
    assert forced.previous.label == "b"
    assert (
        forced.reason == f"c was made champion by ann: night scenes matter more to us. The gate had said: {kept.reason}"
    )
    assert force(str(tmp_path), kept, who="bob", why="once more") == forced, "it is champion already"
    assert [record.kind for record in history(str(tmp_path))] == ["promoted", "kept", "forced"]


def test_a_comparison_with_another_champion_is_not_told_of_the_one_that_stands(tmp_path: Path) -> None:
    promote(tmp_path, A)
    promote(tmp_path, B, A)
    kept = promote(tmp_path, C, B)
    promote(tmp_path, scored(0.9, "d"), B)
    forced = force(str(tmp_path), kept, who="ann", why="night scenes matter more to us")
    assert kept.comparison is not None
    assert (forced.delta, forced.comparison, forced.changes) == (None, None, ())
    record = history(str(tmp_path))[-1]
    assert record.previous is not None
    assert (record.kind, record.previous.label, record.previous_score) == ("forced", "d", None)
    assert record.challenger_score.value == 0.55


def test_a_champion_is_known_by_its_weights_wherever_they_lie(tmp_path: Path) -> None:
    moved = replace(B, label="renamed", checkpoint="elsewhere/b")
    promote(tmp_path, A)
    won = promote(tmp_path, B, A)
    same = replace(won, challenger=contender(moved))
    assert force(str(tmp_path), same, who="ann", why="a test") == won, "it is champion already"
    assert promote(tmp_path, replace(moved, dataset_version="v2")).outcome == "kept"
    with pytest.raises(InputError, match="renamed of record 3 is champion already"):
        roll_back(str(tmp_path), name="camvid", who="ann", why="a test", to=3)


def test_a_refused_challenger_and_one_that_won_can_be_forced_too(tmp_path: Path) -> None:
    promote(tmp_path, A)
    refused = promote(tmp_path, scored(float("nan"), "n"), A)
    assert force(str(tmp_path), refused, who="ann", why="a test").outcome == "forced"
    won = promote(tmp_path, B, scored(0.1, "n"))
    assert won.outcome == "promoted"
    assert force(str(tmp_path), won, who="ann", why="a test") == won


def test_a_champion_is_taken_back_to_the_one_before(tmp_path: Path) -> None:
    promote(tmp_path, A)
    promote(tmp_path, B, A)
    assert promote(tmp_path, C, B).outcome == "kept"
    record = roll_back(str(tmp_path), name="camvid", who="ann", why="halos around poles")
    assert stands(tmp_path) == ("a", "rollback", 4)
    assert record.reason == "b was taken back to a (record 1) by ann: halos around poles"
    assert (record.challenger, record.delta, record.comparison) == (None, None, None)
    assert record.challenger_score is not None
    assert record.challenger_score.value == 0.5
    assert promote(tmp_path, C, A).outcome == "promoted", "verdicts before it do not answer for it"


def test_what_was_taken_back_waits_for_a_person(tmp_path: Path) -> None:
    promote(tmp_path, A)
    promote(tmp_path, B, A)
    roll_back(str(tmp_path), name="camvid", who="ann", why="halos around poles")
    refused = promote(tmp_path, B, A)
    assert refused.outcome == "refused"
    assert "b was champion and is so no more since record 3: b was taken back to a" in refused.reason
    assert promote(tmp_path, B, A) == refused
    assert force(str(tmp_path), refused, who="ann", why="mended the halos afterwards").outcome == "forced"
    assert promote(tmp_path, scored(0.7, "d"), B).outcome == "promoted"
    roll_back(str(tmp_path), name="camvid", who="ann", why="again")
    assert stands(tmp_path)[0] == "b"


def test_who_was_taken_back_is_not_come_back_to(tmp_path: Path) -> None:
    better = scored(0.7, "d")
    for report, before in ((A, A), (B, A), (better, B)):
        assert promote(tmp_path, report, before).outcome == "promoted"
    for label in ("b", "a"):
        roll_back(str(tmp_path), name="camvid", who="ann", why="halos around poles")
        assert stands(tmp_path)[0] == label
    before = history(str(tmp_path))
    with pytest.raises(InputError, match="camvid: nobody was champion before who was not taken back; name a record"):
        roll_back(str(tmp_path), name="camvid", who="ann", why="halos around poles")
    assert history(str(tmp_path)) == before
    record = roll_back(str(tmp_path), name="camvid", who="ann", why="the halos were no fault of its", to=3)
    assert (record.champion, record.previous_score) == (before[2].champion, None)


def test_a_rollback_goes_back_in_time_alone(tmp_path: Path) -> None:
    for report, before in ((A, A), (B, A), (scored(0.7, "d"), B)):
        promote(tmp_path, report, before)
    roll_back(str(tmp_path), name="camvid", who="ann", why="all since May", to=1)
    with pytest.raises(InputError, match="nobody was champion before"):
        roll_back(str(tmp_path), name="camvid", who="ann", why="once more")


def test_a_champion_of_long_ago_is_named_by_its_record(tmp_path: Path) -> None:
    for report, before in ((A, A), (C, A), (B, C)):
        promote(tmp_path, report, before)
    roll_back(str(tmp_path), name="camvid", who="ann", why="the labels of June were wrong", to=1)
    assert stands(tmp_path) == ("a", "rollback", 4)


@pytest.mark.parametrize(
    ("reports", "to", "why", "message"),
    [
        ([], None, "so", "has no champion, so there is nothing to take back"),
        ([A], None, "so", "nobody was champion before"),
        ([A, B], 3, "so", "no record 3; expected 1 to 2"),
        ([A, B], 2, "so", "b of record 2 is champion already"),
        ([A, B], None, "  ", "why: expected a sentence"),
    ],
)
def test_a_rollback_to_nobody_is_refused(tmp_path: Path, reports: list, to: int | None, why: str, message: str) -> None:
    for report in reports:
        promote(tmp_path, report, *reports)
    before = history(str(tmp_path))
    with pytest.raises(InputError, match=message):
        roll_back(str(tmp_path), name="camvid", who="ann", why=why, to=to)
    assert history(str(tmp_path)) == before
